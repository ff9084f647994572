"""A GPU without memory for a buffer: the operation raises, keeps nothing, and smaller ones still run.

The page's ``createBuffer`` requests 1 GiB in place of some sizes, which SwiftShader cannot allocate, so the errors are
those of the browser.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import DeviceMemoryError
from tensorcommons.models.decoder import PAGE
from tensorcommons.models.page_pool import FEW_PAGES
from tests.cases import Place, of_software, only
from tests.cases.harness import held, let_go
from tests.cases.support import near, numbers, on, raises

MANY = 2**20
WEIGHTS = "deep-bert,layers=2,vocab_size=3001"  # only its table takes 96,032 bytes
TABLE = 3001 * 8 * 4
REFUSING = """
(from, to) => {
  const make = GPUDevice.prototype.createBuffer;
  const refused = { count: 0, sizes: [] };
  GPUDevice.prototype.createBuffer = function (asked) {
    refused.sizes.push(asked.size);
    const refuse = asked.size >= from && asked.size < to;
    refused.count += refuse;
    return make.call(this, refuse ? { ...asked, size: 2 ** 30 } : asked);
  };
  refused.end = () => { GPUDevice.prototype.createBuffer = make; };
  return refused;
}
"""


@contextmanager
def refusing(least: int, below: int = 2**40) -> Iterator[Any]:
    """Have the GPU refuse buffers of ``least`` bytes and more, below ``below``.

    Gives an object with the ``count`` of refusals, and the ``sizes`` of all requested buffers.
    """
    from pyodide.code import run_js

    refused = run_js(REFUSING)(least, below)
    try:
        yield refused
    finally:
        refused.end()


async def _nothing_left(device: Device, before: dict[str, int]) -> None:
    gc.collect()
    while device.programs:
        device.programs.popitem()[1].discard()
    device.free_scratch()
    after = held(device)
    assert after["bytes"] <= before["bytes"] and after["buffers"] <= before["buffers"], (before, after)
    (x,) = on(device, numbers(7))
    near(await (x * 3).read(), numbers(7) * 3)


@of_software
@only("webgpu")
async def a_weight_is_refused_while_loading(place: Place) -> None:
    device, manager = place.device, place.manager()
    before = held(device)
    source = place.random(WEIGHTS)
    with refusing(TABLE, TABLE + 16) as refused:
        load = tc.from_pretrained(source, manager=manager, device="webgpu", tokenizer=False)
        complaint = await raises(DeviceMemoryError, load, f"a buffer of {TABLE} bytes was refused", 'device="cpu"')
        assert refused.count == 1 and complaint.device == "webgpu"
        assert "OUT_OF_DEVICE_MEMORY" in str(complaint) and not manager.models
        await _nothing_left(device, before)
        model = await tc.from_pretrained(source, manager=manager, tokenizer=False)  # "auto" tries the next device
        assert model.device.kind == "cpu", model.explain()
        assert "webgpu cannot hold" in model.explain() and "OUT_OF_DEVICE_MEMORY" in model.explain()
        await _nothing_left(device, before)
    again = await tc.from_pretrained(source, manager=manager, tokenizer=False)
    assert again.device.kind == "webgpu"
    ids = np.arange(6).reshape(1, 6)
    there, here = [await (await each(input_ids=ids))["last_hidden_state"].read() for each in (model, again)]
    near(here, there, 1e-4)
    model.unload()
    again.unload()


@of_software
@only("webgpu")
async def a_move_is_refused(place: Place) -> None:
    device, manager = place.device, place.manager()
    model = await tc.from_pretrained(place.random(WEIGHTS), manager=manager, device="cpu", tokenizer=False)
    before = held(device)
    ids = np.arange(6).reshape(1, 6)
    wanted = await (await model(input_ids=ids))["last_hidden_state"].read()
    with refusing(TABLE, TABLE + 16):
        await raises(DeviceMemoryError, model.to("webgpu"), f"a buffer of {TABLE} bytes")
    assert model.device.kind == "cpu"
    await _nothing_left(device, before)
    near(await (await model(input_ids=ids))["last_hidden_state"].read(), wanted)
    await model.to("webgpu")
    near(await (await model(input_ids=ids))["last_hidden_state"].read(), wanted, 1e-4)
    model.unload()


@of_software
@only("webgpu")
async def an_arena_an_output_and_a_read_are_refused(device: Device) -> None:
    (x,) = on(device, numbers(1))
    before = held(device)
    wide = tc.broadcast_to(x, (MANY,))
    with refusing(MANY * 4):
        for _ in range(2):
            await raises(DeviceMemoryError, tc.sum(tc.cumulative_sum(wide)).read(), "a buffer of")  # the arena
            await raises(DeviceMemoryError, (wide + 1).read(), "a run of")  # the output
            near(await tc.sum(tc.cumulative_sum(wide[:100])).read(), numbers(1)[0] * 5050)
    large = await (wide + 2).realize()
    with refusing(MANY * 4):
        await raises(DeviceMemoryError, large.read(), "a read")
        near(await large[:50].read(), np.repeat(numbers(1) + 2, 50))
    near(await large.read(), np.repeat(numbers(1) + 2, MANY))
    near(await tc.sum(tc.cumulative_sum(wide)).read(), numbers(1)[0] * MANY * (MANY + 1) / 2, 1e-4)
    del wide, large
    await _nothing_left(device, before)


@of_software
@only("webgpu")
async def arrays_are_refused(place: Place) -> None:
    """Using a tensor, the user's own or a shared one, raises if its buffer was refused."""
    device, manager = place.device, place.manager()
    before = held(device)
    values = numbers(MANY)
    with refusing(MANY * 4) as refused:
        x = tc.asarray(values, device=device)
        shared = manager.register_shared_tensor("large", (MANY,), "webgpu", "owner", [], data=values)
        for _ in range(2):
            await raises(DeviceMemoryError, x.read(), f"a buffer of {MANY * 4} bytes")
            await raises(DeviceMemoryError, tc.sum(x).read(), f"a buffer of {MANY * 4} bytes")
            await raises(DeviceMemoryError, shared.read(), f"a buffer of {MANY * 4} bytes")
        assert refused.count >= 2  # including staging
    shared.release("owner")
    del x, shared
    x = tc.asarray(values, device=device)
    np.testing.assert_array_equal(await x.read(), values)
    del x
    manager.close()
    await _nothing_left(device, before)


@of_software
@only("webgpu")
async def parameters_of_a_program_are_refused(device: Device) -> None:
    (x,) = on(device, numbers(30, 40))
    before = held(device)

    def result() -> tc.Tensor:
        return tc.sum(tc.softmax(x * 2, axis=0), axis=1) * 5

    with refusing(2**40) as seen:
        wanted = await result().read()
        sizes = [int(size) for size in seen.sizes]
    await _nothing_left(device, before)
    parameters = next(size for size in sizes if size >= 256 and size % 256 == 0)
    with refusing(parameters, parameters + 1) as refused:
        for _ in range(2):
            await raises(DeviceMemoryError, result().read(), "the parameters of a run of")
        assert refused.count == 2
    np.testing.assert_array_equal(await result().read(), wanted)
    await _nothing_left(device, before)


@of_software
@only("webgpu")
async def a_cache_is_refused_while_writing(place: Place) -> None:
    """A cache cannot grow: generation fails, keeps nothing, and gives the same tokens once memory is available."""
    device, manager = place.device, place.manager(activation_cache=False)
    model = await tc.from_pretrained(
        place.random("deep-llama,layers=2"), manager=manager, device="webgpu", tokenizer=False
    )
    ids = np.arange(1, 13).reshape(1, 12)
    for _ in range(2):  # the first compiles
        with refusing(2**40) as few:
            await model.generate(ids, max_new_tokens=2)
        with refusing(2**40) as many:
            wanted = np.asarray(await model.generate(ids, max_new_tokens=FEW_PAGES * PAGE))
    grown = max({int(size) for size in many.sizes} - {int(size) for size in few.sizes})
    await let_go()
    device.free_scratch()  # pooled caches of earlier runs, which a run would reuse
    before = held(device)
    with refusing(grown, grown + 1) as refused:
        for _ in range(2):
            await raises(DeviceMemoryError, model.generate(ids, max_new_tokens=FEW_PAGES * PAGE))
        assert refused.count >= 2
    await _nothing_left(device, before)
    np.testing.assert_array_equal(np.asarray(await model.generate(ids, max_new_tokens=FEW_PAGES * PAGE)), wanted)
    model.unload()


@of_software
@only("webgpu")
async def a_restore_is_refused(place: Place) -> None:
    """An evicted weight stays on the host without an error, and is restored when memory is available again."""
    device, manager = place.device, place.manager(activation_cache=False)
    before = held(device)
    model = await tc.from_pretrained(place.random(WEIGHTS), manager=manager, device="webgpu", tokenizer=False)
    values = numbers(TABLE // 4)
    kept = manager.register_shared_tensor("kept", (TABLE // 4,), "webgpu", "owner", [], data=values)
    ids = np.arange(6).reshape(1, 6)
    wanted = await (await model(input_ids=ids))["last_hidden_state"].read()
    for entry in manager.registry:
        if entry.storage.nbytes == TABLE:
            assert await entry.storage.evict()
    with refusing(TABLE, TABLE + 16) as refused:
        for _ in range(2):
            await raises(DeviceMemoryError, model(input_ids=ids), f"a buffer of {TABLE} bytes")
            await raises(DeviceMemoryError, (kept.tensor + 1).read(), f"a buffer of {TABLE} bytes")
        assert refused.count == 4
    near(await (await model(input_ids=ids))["last_hidden_state"].read(), wanted)
    near(await (kept.tensor + 1).read(), values + 1)
    model.unload()
    kept.release("owner")
    manager.close()
    del kept
    await _nothing_left(device, before)
