"""Values larger than a binding or a buffer of the device: the same results, in windows, parts and buffers.

The whole suite also runs under such limits: ``make conformance LIMITS=small`` and ``LIMITS=default``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.webgpu.backend import WebGPUBackend
from tensorcommons.errors import DeviceMemoryError
from tensorcommons.formats import BLOCKS
from tensorcommons.ops.paging import paged_append, paged_mask, paged_rows
from tensorcommons.ops.quantized import quantized_linear, quantized_rows
from tensorcommons.samples.quantized import random_blocks
from tests.cases import Place, long, only
from tests.cases.hardware import hardware
from tests.cases.harness import let_go
from tests.cases.seeded import checkpoint
from tests.cases.small_devices import HONEST, SMALL, lowered, open_devices
from tests.cases.support import near, numbers, on, raises


async def _bytes(device: Device, function: Callable[..., Any], arrays: Sequence[Any]) -> list[bytes]:
    results = function(*on(device, *arrays))
    results = results if isinstance(results, (list, tuple)) else [results]
    return [(await result.read()).tobytes() for result in results]


async def _same(device: Device, function: Callable[..., Any], *arrays: Any, **limits: int) -> None:
    """Assert that ``function`` gives the same bits under low limits, with every value in several windows."""
    assert not device.programs, "compiled programs must depend on the limits"
    whole = await _bytes(device, function, arrays)
    device.drop_programs()
    with lowered(device, **{**SMALL, **limits}):
        assert not device.programs
        parts = await _bytes(device, function, arrays)
        device.drop_programs()
    for one, other in zip(whole, parts, strict=True):
        assert one == other, np.flatnonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8))[:20]


def _half(*shape: int, seed: int = 0) -> Any:
    return numbers(*shape, seed=seed).astype(np.float16)


@only("webgpu")
async def elements_in_windows(device: Device) -> None:
    """Five windows of each operand, whole rows, columns, and other orders of axes."""
    x, y, row = numbers(60, 84), numbers(60, 84, seed=1), numbers(84)
    await _same(
        device, lambda x, y, row: [tc.where(x > y, x + row, y), x > y, x.mT + tc.reshape(y, (84, 60))], x, y, row
    )
    await _same(device, lambda x: tc.flip(x, axis=0) + x, numbers(6001))
    await _same(device, lambda x: [x * 2 + 1, tc.astype(x, tc.dtypes.float32)], _half(50, 101))


@only("webgpu")
async def copies_in_windows(device: Device) -> None:
    """Concatenated, padded and transposed values, also of packed dtypes."""
    x, y = numbers(40, 52), numbers(40, 52, seed=1)
    await _same(device, lambda x, y: [tc.concat([x, y], axis=0), tc.concat([x, y, x], axis=1)], x, y)
    await _same(device, lambda x: [tc.pad(x, ((3, 1), (0, 5)), constant_values=1.5), tc.reshape(x.mT, (-1,))], x)
    await _same(device, lambda x: [tc.reshape(x.mT, (-1,)), tc.concat([x > 0, x < 0], axis=1)], _half(90, 51))
    await _same(
        device,
        lambda x: [tc.pad(x, ((3, 1), (0, 5)), constant_values=1.5), tc.pad(x > 0, 2, constant_values=False)],
        _half(300, 101),
    )

    def ranges(x: tc.Tensor) -> list[tc.Tensor]:
        return [tc.arange(1, 2, 2.5e-5, device=device) + x, tc.arange(30_001, device=device)]

    await _same(device, ranges, numbers(1))


@only("webgpu")
async def tables_in_parts(device: Device) -> None:
    """Rows of a table of more windows than a dispatch binds, also out of range."""
    ids = np.random.default_rng(1).integers(-310, 310, (5, 7)).astype(np.int32)
    for table in (numbers(300, 80), _half(300, 81), numbers(300, 401) > 0):
        await _same(device, lambda table, ids: tc.take(table, ids, axis=0), table, abs(ids) % 300)
    await _same(device, lambda table, ids: tc.nn.functional.embedding(ids, table), numbers(300, 80), ids)
    many = np.random.default_rng(2).integers(0, 300, (40, 9)).astype(np.int32)
    await _same(device, lambda table, ids: tc.take(table, ids, axis=0), numbers(300, 100), many)


@only("webgpu")
async def products_in_parts(device: Device) -> None:
    """Products are cut along rows and columns of the result, never along the depth, with fused ops."""
    functional = tc.nn.functional
    given = [numbers(33, 36), numbers(300, 36, seed=1), numbers(300), numbers(33, 300, seed=2)]
    await _same(device, lambda x, w, b, r: functional.linear(x, w, b) + r, *given)
    given = [_half(1, 64), _half(700, 64, seed=1), _half(700)]
    await _same(device, lambda x, w, b: functional.gelu(functional.linear(x, w, b)), *given)
    x, weights = numbers(16, 64), [numbers(64, 64, seed=seed) for seed in range(3)]
    await _same(device, lambda x, *weights: [functional.linear(x, each) * 2 for each in weights], x, *weights)


@long("webgpu")
@only("webgpu")
async def more_products_in_parts(device: Device) -> None:
    """Products of any order of axes and number of columns, and by batch."""
    functional = tc.nn.functional
    for kind, rows, depth, columns in ((np.float32, 70, 20, 203), (np.float16, 5, 13, 600)):
        given = [numbers(rows, depth), numbers(columns, depth, seed=1), numbers(columns), numbers(rows, columns)]
        await _same(device, lambda x, w, b, r: functional.linear(x, w, b) + r, *(each.astype(kind) for each in given))
    await _same(device, lambda x, w: x @ w, numbers(50, 8), numbers(8, 300))
    await _same(device, lambda a, b: a @ b, numbers(6, 30, 20), numbers(6, 20, 44))


@only("webgpu")
async def products_of_one_value(device: Device) -> None:
    """Parts at an offset: of operands that are one value, and of unaligned rows."""
    functional = tc.nn.functional
    x = numbers(90, 72)
    await _same(device, lambda x: functional.linear(x, x), x)
    await _same(device, lambda x: [functional.linear(x * 2, x * 2), (x + 1) @ (x + 1).mT], x)
    await _same(device, lambda x, w: x @ w, numbers(213, 12), numbers(12, 256, seed=1))
    await _same(device, lambda x: functional.scaled_dot_product_attention(x, x, x), numbers(2, 3, 60, 16))


@only("webgpu")
async def rows_that_are_written_in_parts(device: Device) -> None:
    ids = np.random.default_rng(3).integers(-300, 300, (70, 80)).astype(np.int32)
    x, updates = numbers(300, 81), numbers(70, 80, seed=1)
    for reduction in ("assign", "add"):
        await _same(device, lambda x, i, u, r=reduction: tc.scatter(x, i, u, 0, r), x, ids, updates)
        await _same(
            device, lambda x, i, u, r=reduction: tc.scatter(x, i, u, 1, r), x, ids.T[:, :60] % 81, updates.T[:, :60]
        )


@only("webgpu")
async def rows_in_parts(device: Device) -> None:
    """Norms, sums and sorting of rows."""
    for rows, columns in ((64, 300), (30, 301)):
        x, weight, bias = numbers(rows, columns), numbers(columns, seed=1), numbers(columns, seed=2)
        await _same(device, lambda x: [tc.softmax(x, axis=-1), tc.log_softmax(x, axis=-1)], x)
        await _same(device, lambda x, w, b: [tc.layer_norm(x, w, b), tc.rms_norm(x, w)], x, weight, bias)
        await _same(device, lambda x, y, w, b: tc.layer_norm(x + y, w, b), x, x * 2, weight, bias)
        await _same(device, lambda x: [tc.sum(x, axis=1), tc.argmax(x, axis=1), tc.var(x, axis=1)], x)
        await _same(device, lambda x: [tc.cumulative_sum(x, axis=1), tc.argsort(x, axis=-1)], x)


@only("webgpu")
async def attention_and_images_in_parts(device: Device) -> None:
    """Splits by batch, head, query and image."""
    functional = tc.nn.functional
    q, k, v = (numbers(1, 2, 120, 16, seed=seed) for seed in range(3))
    await _same(device, lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v)
    q, k, v = (numbers(3, 4, 20, 16, seed=seed) for seed in range(3))
    await _same(device, lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v)
    image, weight = numbers(4, 3, 20, 20), numbers(8, 3, 3, 3)
    await _same(device, lambda x, w: functional.max_pool2d(functional.conv2d(x, w, padding=1), 2), image, weight)


@only("webgpu")
async def quantized_products_in_windows(device: Device) -> None:
    """Parts along the rows and along the columns of the result, by a weight in one and in several bindings.

    One row in more workgroups than allowed is cut along the columns.
    """
    for rows, depth, columns, name in ((70, 32, 130, "q8_0"), (5, 96, 300, "q5_1"), (300, 256, 12, "q6_k")):
        words = random_blocks(BLOCKS[name], (columns, depth))
        product = partial(quantized_linear, block_format=name, shape=(columns, depth))
        x, bias = numbers(rows, depth, seed=1), numbers(columns, seed=2)
        await _same(device, lambda x, w, b, product=product: tc.relu(product(x, w, b)), x, words, bias)
        await _same(device, product, x[:1], words, bias, maxComputeWorkgroupsPerDimension=2)
        taken = partial(quantized_rows, block_format=name, shape=(columns, depth))
        await _same(device, taken, words, np.arange(-1, columns + 1, dtype=np.int32))


@only("webgpu")
async def few_rows_in_windows(device: Device) -> None:
    """Cut the columns of several rows, whose parts lie apart in the result: by dense weights, and by quantised ones."""
    rows, depth, columns = 3, 96, 300
    x, bias = numbers(rows, depth, seed=1), numbers(columns, seed=2)
    words = random_blocks(BLOCKS["q4_0"], (columns, depth))
    with hardware(device):
        await _same(device, tc.linear, x, numbers(columns, depth), bias)
        for precision in ("exact", "fast") if device.backend.multiplies_int8 else ("exact",):
            product = partial(quantized_linear, block_format="q4_0", shape=(columns, depth), precision=precision)
            await _same(device, product, x, words, bias)


@only("webgpu")
async def pages_in_windows(device: Device) -> None:
    """Append to a pool that a step does not bind as a whole, and read one in five windows."""
    table = np.array([[15, 3, 23, 0, 5], [0, 1, 11, 4, 7], [40, 2, 8, 1, 30]], np.int32)
    pool, update = numbers(24, 2, 16, 32), numbers(3, 2, 3, 32, seed=1)
    await _same(device, lambda *operands: [paged_append(*operands)], pool, update, table)
    few = numbers(10, 2, 16, 32)
    await _same(device, lambda pool, table: [paged_rows(pool, table), paged_mask(table, 3, 16)], few, table)


@only("webgpu")
async def bytes_in_buffers(device: Device) -> None:
    """Writes, reads, copies and ranges of a value of many buffers; the device counts each byte once."""
    with lowered(device, **SMALL):
        data = numbers(5, 4001)
        x = tc.asarray(data, device=device)
        assert device.memory()["weights"] + device.memory()["activations"] == data.nbytes, device.memory()
        np.testing.assert_array_equal(await x.read(), data)
        np.testing.assert_array_equal(await x[1:3, 7:4000:3].read(), data[1:3, 7:4000:3])
        y = await (x[1:] * 1).realize()
        np.testing.assert_array_equal(await y.read(), data[1:])
        del x, y
        device.drop_programs()


@only("webgpu")
async def models_in_parts(place: Place) -> None:
    """Run a small encoder with tables, weights and the arena in many windows and buffers: the same bits and bytes."""
    await _model_in_parts(place, f"{place.tiny}/tiny-bert-mlm", 4096)


@only("webgpu")
async def a_step_too_large_is_refused_before_the_download(place: Place) -> None:
    """Rows of four bindings, of a weight and of its other operand."""
    source = place.random("deep-bert,layers=1,intermediate_size=200")
    manager, seen = place.manager(), list[Any]()
    await let_go()
    place.device.drop_programs()
    with lowered(place.device, **{**SMALL, "maxStorageBufferBindingSize": 256}):
        load = tc.from_pretrained(
            source, manager=manager, device=place.device, tokenizer=False, progress_callback=seen.append
        )
        await raises(DeviceMemoryError, load, "linear of encoder.layer.0.output.dense.weight", 'device="cpu"')
        assert not any(event["loaded"] for event in seen) and not manager.models
        model = await tc.from_pretrained(source, manager=manager, tokenizer=False)
        assert model.device.kind == "cpu" and "webgpu cannot hold" in model.explain(), model.explain()
        model.unload()


@long("webgpu")
@only("webgpu")
async def decoders_in_parts(place: Place) -> None:
    """Run a decoder in many windows and buffers: the same tokens."""
    await _model_in_parts(place, checkpoint(place, "tiny-llama"), 4096)


async def _model_in_parts(place: Place, source: Any, binding: int) -> None:
    device = place.device

    async def answer() -> tuple[bytes, int]:
        manager = place.manager(activation_cache=False)
        model = await tc.from_pretrained(source, manager=manager, device=device, tokenizer=False)
        output = await model(input_ids=np.arange(24).reshape(2, 12) % 20)
        array = await next(iter(output.values())).read()
        weights = device.memory()["weights"]
        model.unload()
        manager.close()
        return array.tobytes(), weights

    async def compiled_no_more() -> None:
        await let_go()
        device.drop_programs()
        assert not device.programs, "compiled programs must depend on the limits"

    await compiled_no_more()
    whole = await answer()
    await compiled_no_more()
    with lowered(device, **{**SMALL, "maxStorageBufferBindingSize": binding, "maxBufferSize": 2 * binding}):
        parts = await answer()
        await compiled_no_more()
    assert whole == parts


@long("webgpu")
@only("webgpu")
async def real_default_limits(device: Device) -> None:
    """A table, logits and an arena above 128 MiB per binding and 256 MiB per buffer, limits enforced by the browser."""
    from pyodide.code import run_js

    devices = await open_devices("default")
    device = devices.opened[0]
    try:
        ids = np.array([[0, 49_999, 7, 31_000, 43_690, 43_691]], np.int32)
        values = np.arange(50_000, dtype=np.float32)[:, None] + np.arange(768, dtype=np.float32) / 1024
        table = tc.asarray(values, device=device)  # 154 MB
        np.testing.assert_array_equal(
            await tc.nn.functional.embedding(tc.asarray(ids, device=device), table).read(), values[ids]
        )
        del values
        x, weight = numbers(8 * 128, 8), numbers(100_000, 8, seed=1)
        logits = tc.nn.functional.linear(*on(device, x.reshape(8, 128, 8), weight))  # 410 MB
        await logits.realize()
        for row in (0, 327, 328, 1023):
            near(await logits[row // 128, row % 128].read(), x[row].astype(np.float64) @ weight.T.astype(np.float64))
        largest = tc.argmax(tc.softmax(logits, axis=-1), axis=-1)  # an arena of 410 MB
        np.testing.assert_array_equal((await largest.read()).reshape(-1)[:40], np.argmax(x[:40] @ weight.T, axis=1))
        del logits, largest, table
        assert not cast(WebGPUBackend, device.backend).bridge.errors()
    finally:
        devices.close()
        run_js(HONEST)
