"""Dispatches of attention in pages on WebGPU hardware, from plans that compute nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device, Devices, TensorSharingManager
from tensorcommons.backends.base import Plan
from tensorcommons.backends.cpu.code import Code
from tensorcommons.backends.webgpu.kernels import few_queries
from tests.backends.test_naga import Composing, hardware
from tests.cases import Place, paging
from tests.cases.seeded import checkpoint
from tests.cases.support import numbers, on
from tests.models.server import TINY


class Recording(Composing):
    """Backend that records the kernels of each plan."""

    def __init__(self) -> None:
        super().__init__(hardware()[:1], {})
        self.plans: list[list[str]] = []

    async def compile(self, plan: Plan) -> Code:
        self.plans.append([command.kernel for command in self.own.commands(plan)])
        return await super().compile(plan)


def kernels(call: Any) -> list[list[str]]:
    """Return the kernels of each program that ``call`` of a device runs."""
    backend = Recording()
    device = Device(backend)
    asyncio.run(call(device))
    device.close()
    return backend.plans


def _operands(device: Device, queries: int) -> tuple[list[Any], list[Any]]:
    """Return query, key and value of two rows, and the pools of keys and values."""
    new = on(device, *(numbers(2, queries, heads, 64, seed=i) for i, heads in enumerate((9, 3, 3))))
    return new, on(device, *(numbers(4, 3, 16, 64, seed=i) for i in range(2)))


@pytest.mark.parametrize(("keys", "more"), [(512, []), (528, ["attention/combine"]), (8192, ["attention/combine"])])
def test_a_layer_appends_in_one_dispatch_and_attends_in_one_or_two(keys: int, more: list[str]) -> None:
    async def step(device: Device) -> None:
        operands, pools = _operands(device, 1)
        run = tc.compile(paging.layer, donate_argnames=["pools"])
        await run(*operands, np.zeros((2, 2 + keys // 16), np.int32), pools)

    *_, found = kernels(step)
    assert [name for name in found if name.startswith("attention/")] == [
        "attention/append",
        "attention/few_queries",
        *more,
    ]
    assert not any(name.startswith(("paging/", "rotary/")) for name in found)


def test_parts_that_no_step_binds_as_a_whole_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async def step(device: Device) -> None:
        operands, pools = _operands(device, 1)
        limits: Any = device.limits
        monkeypatch.setitem(limits, "maxStorageBufferBindingSize", 2**16)  # two rows of 9 heads have 157 kB of parts
        await tc.compile(paging.layer, donate_argnames=["pools"])(*operands, np.zeros((2, 2 + 512), np.int32), pools)

    *_, found = kernels(step)
    assert "attention/few_queries" in found and "attention/combine" not in found


def test_prompts_read_copies_in_the_order_of_the_text() -> None:
    async def step(device: Device) -> None:
        operands, pools = _operands(device, 40)
        await tc.compile(paging.layer, donate_argnames=["pools"])(*operands, np.zeros((2, 6), np.int32), pools)

    *_, found = kernels(step)
    assert found.count("paging/rows") == 2 and found.count("paging/mask") == 1 and "attention/tiled" in found


def test_parts_cover_all_keys_and_are_few() -> None:
    for keys in (1, 512, 513, 4096, 16384, 16400, 131072):
        span = few_queries.keys_of_part(keys)
        assert span == keys <= 512 or (span % 256 == 0 and 2 <= -(-keys // span) <= 64)
        assert keys > 16384 or span in (keys, 256)


def test_a_step_of_a_llama_takes_six_dispatches_a_layer() -> None:
    async def generate(device: Device) -> None:
        manager = TensorSharingManager(1024, devices=Devices([device], {}))
        place = Place(None, "", "", "", str(TINY))  # type: ignore[arg-type]
        model = await tc.from_pretrained(checkpoint(place, "tiny-llama"), manager=manager, tokenizer=False)
        await model.generate([[5, 6, 7]], max_new_tokens=3, pad_token_id=0)
        layers.append(model.config.num_hidden_layers)
        model.unload()

    layers: list[int] = []
    *_, step = kernels(generate)
    assert step.count("attention/few_queries") == layers[0] and "attention/combine" not in step
    assert len(step) <= 6 * layers[0] + 10
