"""Every WGSL text that the package composes, compiled by naga, the shader compiler of Firefox.

The samples of all ops, long rows, products in every tile, golden models and generations are planned on devices that
compute nothing. Each step is composed for all kinds of adapters, with few and many features and limits.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest

import tensorcommons as tc
from scripts import chromium, paths
from tensorcommons import Device, Devices, TensorSharingManager
from tensorcommons.backends.base import Op, Plan, Spec, Step
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.cpu.code import Code
from tensorcommons.backends.webgpu.backend import WebGPUBackend
from tensorcommons.backends.webgpu.kernels import matmul
from tensorcommons.backends.webgpu.kernels.probe import probes
from tensorcommons.backends.webgpu.packing import DECODERS
from tensorcommons.bridge.webgpu import WebGPUBridge
from tensorcommons.errors import UnsupportedOp
from tensorcommons.formats import BLOCKS
from tensorcommons.ops.quantized import quantized_linear
from tensorcommons.samples import SAMPLES
from tensorcommons.samples.quantized import random_blocks
from tensorcommons.shapes import Layout
from tensorcommons.tensor import realize
from tests.cases import Place, conformance, decoders, halves, loops, paging
from tests.cases.golden_models import INPUTS, checkpoint_of, load_goldens
from tests.cases.seeded import checkpoint
from tests.cases.small_devices import SMALL
from tests.cases.support import numbers
from tests.models.server import TINY

#: Limits of a modest adapter, by WebGPU's names.
DEFAULT = {
    "maxBufferSize": 2**28,
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxComputeWorkgroupStorageSize": 16384,
    "maxComputeWorkgroupsPerDimension": 65535,
    "maxStorageBufferBindingSize": 2**27,
    "maxStorageBuffersPerShaderStage": 8,
}
LARGE = {**DEFAULT, "maxComputeInvocationsPerWorkgroup": 1024, "maxComputeWorkgroupStorageSize": 49152}
MATRICES: dict[str, Any] = {
    "features": frozenset({"shader-f16", "subgroups", "chromium-experimental-subgroup-matrix", "buffer_view"}),
    "subgroups": (32, 32),
    "matrices": frozenset({("f16", "f32", 16, 16, 16)}),
}
SUBGROUPS: dict[str, Any] = {"features": frozenset({"subgroups", "subgroup_id"}), "subgroups": (32, 32)}
#: A feature of the language, which all browsers have.
INT8 = frozenset({"packed_4x8_integer_dot_product"})
#: The extension that naga does not know by name: it has its functions without.
ENABLES = "enable subgroups;"
#: Kernels for features that Chromium alone has: naga does not compile their texts.
CHROMIUM_ONLY = {"matmul/matrices"}


def adapter(description: str, limits: Mapping[str, int], *, fallback: bool = False, **features: Any) -> WebGPUBackend:
    """Return the backend of an adapter with these facts, which composes shaders without a device."""
    facts: dict[str, Any] = {"features": frozenset(), "subgroups": (0, 0), "matrices": frozenset(), **features}
    facts["features"] |= INT8
    bridge = SimpleNamespace(description=description, fallback=fallback, limits={**limits}, **facts)
    return WebGPUBackend(cast(WebGPUBridge, bridge))


def hardware() -> list[WebGPUBackend]:
    return [
        adapter("hardware", DEFAULT),
        adapter("hardware that binds little", {**DEFAULT, **SMALL}),
        adapter("large hardware with subgroup matrices", LARGE, **MATRICES),
        adapter("hardware with subgroups of 32", DEFAULT, **SUBGROUPS),
    ]


def software() -> list[WebGPUBackend]:
    ending = adapter("llvmpipe, which ends loops", LARGE, fallback=True)
    # sooner, so that short rows take the kernels of long ones
    ending.adapter = replace(ending.adapter, loops=loops.LOOPS)
    return [
        adapter("SwiftShader", DEFAULT, fallback=True),
        adapter("SwiftShader that binds little", {**DEFAULT, **SMALL}, fallback=True),
        ending,
    ]


def _outline(step: Step) -> Hashable:
    """Return what the texts of a step depend on: all but where its operands lie."""
    operands = (*step.inputs, step.output)
    places = [each.place for each in operands]
    buffers = [(place.kind, place.index) for place in places]
    shown = [(each.layout, each.dtype, places.index(each.place), each.place.offset % 256) for each in operands]
    return step.op.name, frozenset(step.attrs.items()), *shown, *map(buffers.index, buffers)


class Composing(CpuBackend):
    """Backend that plans as the first of ``adapters``, composes the shaders for all of them, and computes zeros."""

    kind = "webgpu"

    def __init__(self, adapters: Sequence[WebGPUBackend], texts: dict[str, tuple[str, str]]) -> None:
        super().__init__()
        self.adapters, self.texts, self.own = adapters, texts, adapters[0]
        self.seen: set[Hashable] = set()
        self.multiplies_int8 = self.own.multiplies_int8
        self.is_software, self.facts, self.limits = self.own.is_software, self.own.facts, self.own.limits

    @property
    def steps_cost(self) -> bool:  # type: ignore[override]
        return self.own.steps_cost

    @property
    def samples(self) -> bool:  # type: ignore[override]
        return self.own.samples

    def joins_products(self, x: Spec, *, block_format: str = "", normed: bool = False, fast: bool = False) -> bool:
        return self.own.joins_products(x, block_format=block_format, normed=normed, fast=fast)

    def rounds(self, x: Spec, block_format: str) -> bool:
        return self.own.rounds(x, block_format)

    def rotates(self, operands: Sequence[Spec]) -> bool:
        return self.own.rotates(operands)

    def attends_in_pages(self, operands: Sequence[Spec]) -> bool:
        return self.own.attends_in_pages(operands)

    def keys_of_part(self, keys: int) -> int:
        return self.own.keys_of_part(keys)

    def parts_of_depth(self, rows: int, depth: int, columns: int) -> int:
        return self.own.parts_of_depth(rows, depth, columns)

    def accepts_layout(self, op: Op, position: int, layout: Layout) -> bool:
        return self.own.accepts_layout(op, position, layout)

    def binds_whole(self, spec: Spec) -> bool:
        return self.own.binds_whole(spec)

    async def compile(self, plan: Plan) -> Code:
        for step in plan.steps:
            key = _outline(step)
            if key not in self.seen:
                self.seen.add(key)
                self._compose(step)
        for pair in zip(plan.steps, plan.steps[1:], strict=False):  # what is one dispatch
            if all(step.op.in_place for step in pair) and (key := tuple(map(_outline, pair))) not in self.seen:
                self.seen.add(key)
                self._compose(*pair)
        return await super().compile(plan)

    def _compose(self, *steps: Step) -> None:
        largest = max(each.place.nbytes for step in steps for each in (*step.inputs, step.output))
        for each in self.adapters:
            if largest > 4 * each.limits["maxStorageBufferBindingSize"]:
                continue  # very many equal parts
            try:
                for command in each.commands(Plan(steps, 0, 0, 0, ())):
                    self.texts.setdefault(command.source, (command.kernel, each.name))
            except UnsupportedOp:  # by the limits of others
                if each is self.own:
                    raise

    async def run(self, executable: Code, arena: int, host: memoryview, leaves: Any, outputs: Any) -> None:
        sizes = executable.plan.output_bytes
        self.arrays.update({handle: np.zeros(size, np.uint8) for handle, size in zip(outputs, sizes, strict=True)})


@cache
def attempts(number: int, dtype: str) -> list[tuple[list[Any], list[int]]]:
    """Return the operands and layouts of a sample, which are drawn once for all devices."""
    sample = SAMPLES[number]
    return list(conformance.attempts(sample, dtype, np.random.default_rng([*sample.op.encode(), *dtype.encode()])))


async def ops(device: Device, *names: str) -> None:
    """Run the samples of the named ops, or of all, as the conformance suite does."""
    for number, sample in enumerate(SAMPLES):
        for dtype in sample.dtypes if not names or sample.op in names else ():
            await realize([conformance.computed(device, sample, *each) for each in attempts(number, dtype)])


async def few_rows(device: Device) -> None:
    """Run products of few rows with weights of every format, and with activations rounded to int8."""
    for name in DECODERS:
        words = tc.asarray(random_blocks(BLOCKS[name], (8, 256)), device=device)
        for rows in (1, 4, 20):
            x = tc.asarray(np.zeros((rows, 256), np.float32), device=device)
            await quantized_linear(x, words, block_format=name, shape=(8, 256), precision="fast").realize()


async def long_rows(device: Device) -> None:
    """Run calls of more iterations than some software adapters take, and products for subgroup matrices."""
    pair = [np.zeros((256, 256), np.float16)] * 2
    products = [(tc.matmul, pair), (lambda a, b: tc.matmul(a.mT, b.mT), pair)]
    for call, arrays in (*loops.CALLS.values(), *products):
        await call(*(tc.asarray(array, device=device) for array in arrays)).realize()


async def pages(device: Device) -> None:
    """Run attention to keys and values in pages: to few of them and to many, of few queries and of many."""
    rows, heads, shared, width, size = 2, 4, 2, 20, 16
    run = tc.compile(paging.layer, donate_argnames=["pools"])
    for count, queries, dtype in ((3, 1, "float32"), (40, 2, "float32"), (40, 1, "float16"), (3, 20, "float32")):
        shapes = [(rows, queries, each, width) for each in (heads, shared, shared)]
        shapes += [(rows * count, shared, size, width)] * 2 + [(rows, heads, queries, width)]
        *new, keys, values, q = (
            tc.asarray(numbers(*shape, seed=i).astype(dtype), device=device) for i, shape in enumerate(shapes)
        )
        table = np.zeros((rows, 2 + count), np.int32)
        _, (keys, values) = await run(*new, table, [keys, values])
        await paging.attend(q, keys, values, tc.asarray(table, device=device)).realize()


async def models(device: Device) -> None:
    """Run golden models and generations."""
    manager = TensorSharingManager(1024, devices=Devices([device], {}))
    quantized = load_goldens(str(TINY), "quantized")[0]
    for table, names, dtypes in (
        ("architectures", halves.TINY, ("float32", "float16")),
        ("quantized", quantized, ("int8",)),
    ):
        entries, arrays = load_goldens(str(TINY), table)
        for name in names:
            inputs = {key: arrays[f"{name}.{key}"] for key in INPUTS if f"{name}.{key}" in arrays}
            for dtype in dtypes:
                model = await tc.from_pretrained(
                    checkpoint_of(entries[name]), manager=manager, dtype=dtype, tokenizer=False
                )
                await model(**inputs)
                model.unload()
    place = Place(None, "", "", "", str(TINY))  # type: ignore[arg-type]
    for name in (*decoders.DECODERS, *decoders.ENCODER_DECODERS):
        model = await tc.from_pretrained(checkpoint(place, name), manager=manager, tokenizer=False)
        await model.generate([[5, 6, 7]], max_new_tokens=3, pad_token_id=0)
        await model.generate([[5, 6, 7]], max_new_tokens=3, pad_token_id=0, do_sample=True, repetition_penalty=1.2)
        model.unload()


async def composed() -> dict[str, tuple[str, str]]:
    """Compose everything. Returns the kernel and the first adapter of each text."""
    texts: dict[str, tuple[str, str]] = {}
    for adapters in (hardware(), software()):
        device = Device(Composing(adapters, texts))
        for probe in probes(2**20, hardware=not device.is_software):
            await device.backend.compile(probe.plan)
        await ops(device)
        await long_rows(device)
        if device.backend.multiplies_int8:
            await few_rows(device)
        await pages(device)
        await models(device)
        device.close()
    for tile in matmul.HARDWARE:
        device = Device(Composing(hardware(), texts))
        with patch.object(matmul, "HARDWARE", (replace(tile, groups=0),)):
            await ops(device, "matmul", "linear", "quantized_linear")
        device.close()
    return texts


@pytest.fixture(scope="module")
def texts() -> dict[str, tuple[str, str]]:
    return asyncio.run(composed())


@pytest.fixture(scope="module")
def naga() -> Any:
    """Return a device whose shader modules naga validates: of the npm Chromium's Vulkan, else of the system."""
    import wgpu

    with pytest.MonkeyPatch.context() as patched:
        if chromium.runs_here():
            patched.setenv("VK_DRIVER_FILES", str(paths.CHROMIUM / "vk_swiftshader_icd.json"))
            ctypes.CDLL(str(paths.CHROMIUM / "libvulkan.so.1"))  # found by its name from now on
        adapters = wgpu.gpu.enumerate_adapters_sync()
        if not adapters and not chromium.runs_here():
            pytest.skip("wgpu finds no adapter on this system, and the npm Chromium has none for it")
        own = [feature for feature in adapters[0].features if feature.startswith("subgroup")]
        return adapters[0].request_device_sync(required_features=own)


def test_every_shader_is_composed(texts: dict[str, tuple[str, str]]) -> None:
    files = {path for path in paths.SHADERS.rglob("*.wgsl") if "fn main(" in path.read_text("utf-8")}
    names = {path.relative_to(paths.SHADERS).with_suffix("").as_posix() for path in files}
    assert {kernel for kernel, _ in texts.values()} == names


def test_naga_compiles_every_text(texts: dict[str, tuple[str, str]], naga: Any) -> None:
    import wgpu

    refused: dict[str, str] = {}
    for text, (kernel, name) in texts.items():
        if ENABLES in text and "subgroup" not in naga.features and kernel not in CHROMIUM_ONLY:
            continue
        try:
            naga.create_shader_module(code=text.replace(ENABLES, ""))
        except wgpu.GPUValidationError as error:
            refused.setdefault(kernel, f"{kernel} for {name}: {error}")
    faults = [message for kernel, message in refused.items() if kernel not in CHROMIUM_ONLY]
    assert not faults, "\n".join(faults)
    assert refused.keys() == CHROMIUM_ONLY, "naga compiles it now: remove it from CHROMIUM_ONLY"
