"""Quantised weights: what is stored, how it is read by ops, and that its bits survive every way off the device."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tensorcommons.formats import BLOCKS, DENSE, GROUPS, OF_GGUF, Packer
from tensorcommons.ops.quantized import quantized_linear, quantized_rows
from tensorcommons.sharing.storage import Storage
from tensorcommons.tensor import Tensor
from tests.cases import only
from tests.cases.blocks import LARGE, any_blocks, blocks, digest, without_payloads
from tests.cases.blocks import numbers as to_quantize
from tests.cases.support import near, numbers, on, refused

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "formats.json").read_text("utf-8"))
Q8_0 = BLOCKS["q8_0"]
OPTIONS: dict[str, Any] = {"block_format": "q8_0"}


def stored(device: Device, shape: tuple[int, int], seed: int = 0) -> tuple[Storage, Tensor, Any, bytes]:
    """A weight on ``device``: its storage, a tensor over it, its numbers and the blocks of the file."""
    file = Q8_0.quantize(numbers(*shape, seed=seed))
    words = Q8_0.pack(file)
    spec = Q8_0.spec(shape)
    storage = Storage.upload(device, memoryview(words), "weights", spec=spec)
    return storage, Tensor.of_storage(storage, spec), Q8_0.dense(np.frombuffer(words, np.int8), shape), file


@only("cpu")
async def numbers_are_those_of_gguf(device: Device) -> None:
    assert GOLDENS.keys() == {form.name for form in OF_GGUF}
    assert device.backend.block_formats == BLOCKS.keys()
    for name, golden in GOLDENS.items():
        form = BLOCKS[name]
        file = blocks(name)
        shape = (len(file), form.size)
        words = np.frombuffer(form.pack(file.tobytes()), np.int8)
        assert form.unpack(words, shape) == file.tobytes()
        assert digest(form.dense(words, shape)) == golden["dense"]
        assert digest(np.concatenate([form.dense(words, shape, rows) for rows in form.parts(shape)])) == golden["dense"]
        ids = np.array([5, 0, len(file) - 1, 5])
        assert digest(form.rows(words, shape, ids)) == digest(form.dense(words, shape)[ids])
        with np.errstate(all="ignore"):  # of scales that are not finite
            assert digest(without_payloads(form.numbers(any_blocks(name)))) == golden["any"]
        assert bool(golden["quantized"]) == (name in LARGE) == (form.narrow is not None)
        for what in golden["quantized"]:
            packed = form.quantize(to_quantize(name)[what])
            assert digest(np.frombuffer(packed, np.uint8)) == golden["quantized"][what], what


def e4m3(bits: int) -> float:
    """The number of a byte, from its definition (OCP 8-bit floating point specification, E4M3)."""
    sign, exponent, mantissa = -1.0 if bits & 128 else 1.0, bits >> 3 & 15, bits & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def group_of(block: bytes, kind: str, size: int, scale: str) -> list[float]:
    """The numbers of a block, one by one."""
    at = size // 2 if kind == "int4" else size
    width = 4 if scale == "float32" else 2
    raw = block[at : at + width]
    (factor,) = {
        "float16": lambda: struct.unpack("<e", raw),
        "bfloat16": lambda: struct.unpack("<f", bytes(2) + raw),
        "float32": lambda: struct.unpack("<f", raw),
    }[scale]()
    if kind == "fp8":
        return [factor * e4m3(each) for each in block[:size]]
    (zero,) = struct.unpack("b", block[at + width : at + width + 1])
    if kind == "int8":
        return [factor * (each - zero) for each in struct.unpack(f"{size}b", block[:size])]
    halves = [
        [each & 15 for each in block[k : k + 16]] + [each >> 4 for each in block[k : k + 16]] for k in range(0, at, 16)
    ]
    return [factor * (quant - zero) for half in halves for quant in half]


@only("cpu")
async def groups_are_scales_times_quants_less_zeros(device: Device) -> None:
    rng = np.random.default_rng(0)
    for (kind, size, scale), form in GROUPS.items():
        raw = rng.integers(0, 256, (64, form.nbytes), np.uint8)
        raw[:4, :64] = np.arange(256, dtype=np.uint8).reshape(4, 64)[:, : form.nbytes] if form.nbytes >= 64 else 7
        place, width = form.fields[1]
        scales = rng.normal(size=64).astype(np.float32) * np.float32(0.01)
        halves = scales.astype(np.float16).view(np.uint16), (scales.view(np.uint32) >> 16).astype(np.uint16)
        bits: Any = {"float16": halves[0], "bfloat16": halves[1], "float32": scales}[scale]
        raw[:, place : place + width] = bits.view(np.uint8).reshape(64, width)
        wanted = [group_of(bytes(block), kind, size, scale) for block in raw]
        shape = (16, 4 * size)
        words = np.frombuffer(form.pack(raw.tobytes()), np.int8)
        found = form.dense(words, shape)
        np.testing.assert_array_equal(found, np.array(wanted, np.float64).astype(np.float32).reshape(shape))
        assert form.unpack(words, shape) == raw.tobytes() and form is BLOCKS[form.name]
        # Of a file: quants, scales, and zeros of as many bits as the quants.
        zeros = {"int4": 0.5, "int8": 1, "fp8": 0}[kind]
        assert form.nbytes <= 1.03 * (form.nbytes - (kind != "fp8") + zeros)


@only("cpu")
async def packing_in_chunks_is_packing(device: Device) -> None:
    for count in (1, 2, 3, 7):
        file = blocks("q8_0")[:count].tobytes()
        packer = Packer(Q8_0)
        parts = [packer.add(file[start : start + Q8_0.nbytes]) for start in range(0, len(file), Q8_0.nbytes)]
        packed = b"".join([*parts, packer.rest()])
        assert packed == Q8_0.pack(file)
        assert len(packed) == Q8_0.spec((count, 32)).nbytes and len(packed) % 4 == 0


@only("cpu")
async def numbers_that_have_no_scale_are_refused(device: Device) -> None:
    for value in (np.nan, np.inf, -np.inf, 1e7):
        values = np.zeros((2, 32), np.float32)
        values[1, 3] = value
        complaint = ""
        try:
            Q8_0.quantize(values)
        except ValueError as error:
            complaint = str(error)
        assert f"value {np.float32(value)}" in complaint
    largest = np.full((1, 32), 65504 * 127, np.float32)
    assert np.isfinite(Q8_0.dense(np.frombuffer(Q8_0.pack(Q8_0.quantize(largest)), np.int8), (1, 32))).all()


async def products_with_epilogues(device: Device) -> None:
    """Of one row, and of more than a tile; the bias, the activation and the residual are the product's."""
    for rows, depth, columns in ((1, 64, 5), (1, 576, 200), (3, 32, 64), (70, 160, 130), (16, 96, 4)):
        _, weight, dense, _ = stored(device, (columns, depth))
        x, b, r = numbers(rows, depth), numbers(columns, seed=1), numbers(rows, columns, seed=2)
        tensor, bias, residual = on(device, x, b, r)
        shape: dict[str, Any] = {**OPTIONS, "shape": (columns, depth)}
        product = x.astype(np.float64) @ dense.astype(np.float64).T
        near(await quantized_linear(tensor, weight, **shape).read(), product)
        fused = tc.relu(quantized_linear(tensor, weight, bias, **shape)) + residual
        near(await fused.read(), np.maximum(product + b, 0) + r)


async def several_rows_of_a_batch(device: Device) -> None:
    _, weight, dense, _ = stored(device, (36, 64))
    x = numbers(2, 3, 64)
    for view in (x, x[:, ::2], x[1]):
        (tensor,) = on(device, view)
        near(await quantized_linear(tensor, weight, **OPTIONS, shape=(36, 64)).read(), view @ dense.T)
    (wide,) = on(device, x)
    near(await quantized_linear(wide[:, ::2], weight, **OPTIONS, shape=(36, 64)).read(), x[:, ::2] @ dense.T)
    (half,) = on(device, x.astype(np.float16))
    result = await quantized_linear(half, weight, **OPTIONS, shape=(36, 64)).read()
    assert result.dtype == np.float16
    near(result, x.astype(np.float16).astype(np.float32) @ dense.T, 2e-3)


async def rows_have_every_bit(device: Device) -> None:
    """Include scales that are subnormal in float16, except where a GPU flushes those to 0."""
    for shape in ((1, 32), (300, 96)):
        _, table, dense, _ = stored(device, shape)
        ids = np.random.default_rng(0).integers(0, shape[0], (7, 5)).astype(np.int32)
        (chosen,) = on(device, ids)
        found = await quantized_rows(table, chosen, **OPTIONS, shape=shape).read()
        np.testing.assert_array_equal(found, dense[ids])
    outside = on(device, np.array([-1, 300, 2**31 - 1, 2], np.int32))[0]
    found = await quantized_rows(table, outside, **OPTIONS, shape=shape).read()
    assert np.isnan(found[:3]).all()
    np.testing.assert_array_equal(found[3], dense[2])


async def a_tied_table_is_one_storage(device: Device) -> None:
    _, table, dense, _ = stored(device, (50, 64))
    ids = np.array([3, 49], np.int32)
    (chosen,) = on(device, ids)
    rows = quantized_rows(table, chosen, **OPTIONS, shape=(50, 64))
    near(await quantized_linear(rows, table, **OPTIONS, shape=(50, 64)).read(), dense[ids] @ dense.T)
    assert device.memory()["weights"] == table.spec.nbytes


async def bits_survive_eviction(device: Device) -> None:
    for shape in ((3, 32), (40, 96)):  # the first has bytes that fill up the last word
        storage, weight, dense, file = stored(device, shape)
        words = bytes(await storage.content())
        assert words == Q8_0.pack(file) and storage.nbytes == weight.spec.nbytes == len(words)
        assert Q8_0.unpack(np.frombuffer(words, np.int8), shape) == file
        assert await storage.evict() and not storage.is_resident
        assert bytes(await storage.content()) == words and await storage.restore()
        (x,) = on(device, numbers(2, shape[1]))
        near(await quantized_linear(x, weight, **OPTIONS, shape=shape).read(), numbers(2, shape[1]) @ dense.T)
        assert bytes(await storage.content()) == words


async def operands_that_do_not_fit_are_refused(device: Device) -> None:
    _, weight, _, _ = stored(device, (4, 64))
    x, ids, wide, bias = on(device, numbers(2, 64), np.zeros(2, np.int32), np.zeros(2, np.int64), numbers(5))

    def product(x: Any, *more: Any, shape: Any = (4, 64), name: str = "q8_0") -> Any:
        return quantized_linear(x, weight, *more, block_format=name, shape=shape)

    refused(device, ShapeMismatch, lambda: product(x[:, :32]))
    refused(device, ShapeMismatch, lambda: product(x, bias))
    refused(device, ShapeMismatch, lambda: product(x, shape=(5, 64)))
    refused(device, ShapeMismatch, lambda: product(x, shape=(4, 63)))
    refused(device, ShapeMismatch, lambda: product(x, shape=(256,)))
    refused(device, ShapeMismatch, lambda: product(x, shape="4 x 64"))
    refused(device, UnsupportedDtype, lambda: product(x, name="float32"))
    refused(device, TensorCommonsError, lambda: quantized_linear(x, weight, **OPTIONS, shape=(4, 64), precision="best"))
    refused(device, UnsupportedDtype, lambda: product(ids))
    refused(device, UnsupportedDtype, lambda: quantized_rows(weight, wide, **OPTIONS, shape=(4, 64)))
    refused(device, ShapeMismatch, lambda: quantized_linear(x, x, **OPTIONS, shape=(4, 64)))


@only("cpu")
async def dense_formats_read_what_is_stored(device: Device) -> None:
    a = numbers(6, 4)
    for name, form in DENSE.items():
        words = a.astype(name).reshape(-1).view(np.uint8)
        assert form.spec(a.shape).nbytes == words.nbytes and not form.misfit(a.shape)
        np.testing.assert_array_equal(form.dense(words, a.shape, slice(1, 3)), a.astype(name)[1:3].astype(np.float32))
    assert "rows have 33" in Q8_0.misfit((2, 33)) and "matrices" in Q8_0.misfit((32,))
