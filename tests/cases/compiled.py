"""``compile``, ``scope`` and reads of several tensors: traces, replays, and released bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.errors import (
    DeviceMismatch,
    DeviceUnavailable,
    MemoryBudgetError,
    TensorCommonsError,
    TensorReleased,
)
from tensorcommons.sharing.lock import using
from tests.cases import only
from tests.cases.support import near, numbers, on, raises, refused


async def one_trace_a_shape(device: Device) -> None:
    def double(x: Any) -> Any:
        return x * 2 + 1

    compiled = tc.compile(double)
    (x,) = on(device, numbers(4, seed=9))  # programs stay while there is a tensor
    for shape in ((4,), (3, 5), (4,), (3, 5), (0, 2), (4,)):
        values = numbers(*shape, seed=compiled.traces)
        near(await (await compiled(on(device, values)[0])).read(), values * 2.0 + 1)
    assert compiled.traces == 3
    programs = len(device.programs)
    near(await (x * 2 + 1).read(), numbers(4, seed=9) * 2.0 + 1)
    assert len(device.programs) == programs, "eager ops must reuse the program"


async def numbers_that_are_equal_but_not_the_same_are_traced_each(device: Device) -> None:
    (x,) = on(device, np.ones(3, np.float32))
    scaled = tc.compile(lambda x, factor: x * factor)
    for factor in (0.0, -0.0, np.float32(-0.0), 0.0, -0.0):
        got = await (await scaled(x, factor)).read()
        assert (np.signbit(got) == np.signbit(factor)).all(), factor
    assert scaled.traces == 3
    for _ in range(2):
        assert np.isnan(await (await scaled(x, float("nan"))).read()).all()
    assert scaled.traces == 4


async def eager_ops_are_compiled_once(device: Device) -> None:
    kept = []
    before = set(device.programs)
    for seed in range(4):
        x, y = on(device, numbers(2000, seed=seed), numbers(2000, seed=seed + 10))
        kept.append(await (x + y).realize())
    assert len(set(device.programs) - before) == 1
    for seed, result in enumerate(kept):
        near(await result.read(), numbers(2000, seed=seed) + numbers(2000, seed=seed + 10).astype(np.float64))


@only("webgpu")
async def a_replay_is_one_call(device: Device) -> None:
    compiled = tc.compile(lambda x, y: tc.softmax(x @ y) + 1)
    x, y = on(device, numbers(40, 30), numbers(30, 50))
    await compiled(x, y)
    before = device.backend.calls
    result = await compiled(x, y)
    assert device.backend.calls == before + 1
    wanted = await result.read()
    assert device.backend.calls == before + 2
    live, total = device.backend.live_buffers(), device.total
    for _ in range(3):  # the output is written to the buffer of the previous one
        result.release()
        assert (device.backend.live_buffers(), device.total) == (live, total)
        result = await compiled(x, y)
        assert np.array_equal(await result.read(), wanted)
    assert (device.backend.live_buffers(), device.total) == (live, total)


COUNT_BIND_GROUPS = """
() => {
  const make = GPUDevice.prototype.createBindGroup;
  const counted = { made: 0, end() { GPUDevice.prototype.createBindGroup = make; } };
  GPUDevice.prototype.createBindGroup = function (...given) {
    counted.made += 1;
    return make.apply(this, given);
  };
  return counted;
}
"""


@only("webgpu")
async def a_repeated_run_keeps_its_bind_groups(device: Device) -> None:
    from pyodide.code import run_js

    compiled = tc.compile(lambda x, y: tc.matmul(tc.matmul(x, x), y))
    arrays = [numbers(4, 4, seed=seed) for seed in range(3)]
    x, y, other = on(device, *arrays)

    async def made(tensor: tc.Tensor, array: Any) -> int:
        """Run once, and return the number of bind groups that were made for it."""
        counted = run_js(COUNT_BIND_GROUPS)()
        try:
            near(await (await compiled(x, tensor)).read(), arrays[0] @ arrays[0] @ array)
        finally:
            counted.end()
        return int(counted.made)

    assert await made(y, arrays[1]) == 2
    for _ in range(2):  # the output's buffer is reused from then on
        await made(y, arrays[1])
    assert await made(y, arrays[1]) == 0
    assert await made(other, arrays[2]) == 1, "one dispatch reads it"
    assert await made(y, arrays[1]) == 1


@only("webgpu")
async def a_read_that_a_run_began_gives_what_is_there_when_it_is_asked_for(device: Device) -> None:
    compiled, other = tc.compile(lambda x: (x + 1, x * 2)), tc.compile(lambda x: x - 1)
    gpu: Any = device.backend.bridge.proxy  # type: ignore[attr-defined]
    values = numbers(30)
    (x,) = on(device, values)

    async def begun() -> Any:
        """Return the outputs of a run that has begun to read the first."""
        for _ in range(2):
            result = await compiled(x)
            near(await result[0].read(), values + 1.0)
        result = await compiled(x)
        assert gpu.reads.ahead
        return result

    near(await (await begun())[0].read(), values + 1.0)
    result = await begun()
    near(await result[1].read(), values * 2.0)  # another one
    near(await result[0].read(), values + 1.0)
    result = await begun()
    near(await result[0][3:7].read(), values[3:7] + 1.0)  # a part
    result = await begun()
    near(await (await other(x)).read(), values - 1.0)  # another run
    near(await result[0].read(), values + 1.0)
    result = await begun()
    storage = result[0].node.storage
    async with using([storage], [storage]):
        await storage.write(0, memoryview(values[:10].tobytes()))
    near(await result[0].read(), np.concatenate([values[:10], values[10:] + 1]))
    result = await begun()
    device.free_scratch()
    near(await result[0].read(), values + 1.0)
    result = await begun()
    result[0].release()
    assert not gpu.reads.ahead
    near(await result[1].read(), values * 2.0)
    first, second = await begun(), await compiled(x)
    both = await tc.read_together([*first, *second])
    for i, wanted in enumerate([values + 1.0, values * 2.0] * 2):
        near(both[i], wanted)


class Pair(NamedTuple):
    left: Any
    right: Any


async def arguments_and_answers_of_any_form(device: Device) -> None:
    def work(pair: Pair, *, more: dict[str, Any], times: float, sign: str | None = None) -> Any:
        left = pair.left * times if sign is None else -pair.left
        return {"sum": left + pair.right, "list": [more["x"], (pair.right, "as it was", None)]}

    compiled = tc.compile(work)
    a, b, c = (numbers(3, 4, seed=i) for i in range(3))
    x, y, z = on(device, a, b, c)
    for times in (2.0, 3.0, 2.0):
        answer = await compiled(Pair(x, y), more={"x": c}, times=times)
        near(await answer["sum"].read(), a * times + b.astype(np.float64))
        near(await answer["list"][0].read(), c)
        near(await answer["list"][1][0].read(), b)
        assert answer["list"][1][1:] == ("as it was", None)
    assert compiled.traces == 2
    near(await (await compiled(Pair(x, y), more={"x": z}, times=2.0, sign="-"))["sum"].read(), b - a.astype(np.float64))


async def views_lazy_tensors_and_the_same_one_twice(device: Device) -> None:
    compiled = tc.compile(lambda x, y: x @ y)
    a = numbers(6, 6)
    (x,) = on(device, a)
    wide = a.astype(np.float64)
    near(await (await compiled(x, x)).read(), wide @ wide)
    near(await (await compiled(x, on(device, a + 1)[0])).read(), wide @ (wide + 1))
    assert compiled.traces == 1
    near(await (await compiled(tc.permute_dims(x, (1, 0)), x[::-1])).read(), wide.T @ wide[::-1])
    near(await (await compiled(x * 2, x + 1)).read(), 2 * wide @ (wide + 1))
    near(await (await compiled(x * 2, on(device, a - 1)[0] + 1)).read(), 2 * wide @ wide)
    assert compiled.traces == 3


async def what_it_refers_to_is_read_at_every_call(device: Device) -> None:
    manager = tc.TensorSharingManager(64, tc.Devices([device], {}))
    weight = manager.register_shared_tensor("w", (3,), device.kind, "m", data=np.ones(3, np.float32))
    compiled = tc.compile(lambda x: x * weight.tensor)
    (x,) = on(device, np.arange(3, dtype=np.float32))
    assert (await (await compiled(x)).read()).tolist() == [0, 1, 2]
    await weight.write(np.full(3, 5, np.float32))
    assert (await (await compiled(x)).read()).tolist() == [0, 5, 10]


async def what_cannot_be_compiled_says_so(device: Device) -> None:
    (x,) = on(device, numbers(3))

    async def coroutine(x: Any) -> Any:
        return x

    wrong: Any = "abacus"
    refused(device, TensorCommonsError, lambda: tc.compile(wrong))
    refused(device, DeviceUnavailable, lambda: tc.compile(abs, device=wrong))
    refused(device, TensorCommonsError, lambda: tc.compile(lambda x: x, donate_argnames=5))  # type: ignore[arg-type]
    await raises(TensorCommonsError, tc.read_together([x, 5]), "int")  # type: ignore[list-item]
    await tc.TensorSharingManager(64, tc.Devices([device], {})).compile_together([])
    await raises(TensorCommonsError, tc.compile(coroutine)(x), "coroutine")
    await raises(TensorCommonsError, tc.compile(lambda x, y: x)(x, {1, 2}), "hashable")
    other = tc.asarray(numbers(3), device=tc.Device(CpuBackend()))
    await raises(DeviceMismatch, tc.compile(lambda x, y: x + y)(x, other), "arguments")
    near(await (await tc.compile(lambda x: x + 1, device=device)(numbers(3))).read(), numbers(3) + 1.0)
    seen = []

    def leaking(x: Any) -> Any:
        seen.append(x)
        return x

    await tc.compile(leaking)(x)
    await raises(TensorCommonsError, seen[0].read(), "traced")


async def a_scope_lets_go_of_what_it_made(device: Device) -> None:
    (x,) = on(device, numbers(3000))
    before = device.memory()["activations"]
    with tc.scope() as keep:
        y = await (x + 1).realize()
        z = keep(await (y * 2).realize())
        lazy = keep(tc.exp(tc.asarray(numbers(3000, seed=1), device=device)))
    await raises(TensorReleased, y.read())
    near(await z.read(), (numbers(3000) + 1.0) * 2)
    near(await lazy.read(), np.exp(numbers(3000, seed=1).astype(np.float64)))
    near(await x.read(), numbers(3000))
    del z, lazy, y
    with tc.scope() as keep, tc.scope() as inner:
        outer = inner(await (x + 3).realize())
    await raises(TensorReleased, outer.read())
    del outer
    assert device.memory()["activations"] == before


async def several_are_read_at_once(device: Device) -> None:
    a, b = numbers(7, 5), np.arange(11, dtype=np.int8)
    x, y = on(device, a, b)
    z = await (x + 1).realize()
    calls = device.backend.calls
    results = await tc.read_together([x, y[1:6], z, x[:, 1:3], y[:0], tc.permute_dims(x, (1, 0)), y])
    assert device.kind == "cpu" or device.backend.calls == calls + 1
    for got, wanted in zip(results, (a, b[1:6], a + 1, a[:, 1:3], b[:0], a.T, b), strict=True):
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted)
    assert await tc.read_together([]) == []


@only("webgpu")
async def a_large_read_goes_in_pieces_where_memory_is_short(device: Device) -> None:
    manager = tc.TensorSharingManager(1, tc.Devices([device], {}))
    data = [numbers(100_000, seed=i) for i in range(2)]
    tensors = on(device, *data)
    for got, wanted in zip(await tc.read_together(tensors), data, strict=True):
        assert np.array_equal(got, wanted)
    await raises(MemoryBudgetError, (tensors[0] + 1).read())
    assert manager.report().peak_bytes <= manager.limit_bytes
