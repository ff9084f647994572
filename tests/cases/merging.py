"""Merged computations: each value has the bits that it has alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Tensor
from tensorcommons.backends.base import Spec
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.node import Node
from tensorcommons.graph.traces import Arguments, Traces
from tensorcommons.sharing.contract import Request
from tensorcommons.sharing.provenance import content_identity
from tensorcommons.sharing.storage import Storage
from tests.cases import Place, long, only
from tests.cases.hardware import hardware
from tests.cases.requests import WEIGHTS, Drawn, arrays_of, drawn
from tests.cases.support import near, on, raises

Array = np.ndarray[Any, Any]
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}


async def results_that_differ_only_in_shape(device: Device) -> None:
    def twos(*shape: int) -> tc.Tensor:
        return tc.ones(shape, device=device) * 2

    (row,) = on(device, np.array([0, 1], np.float32))
    assert (await (tc.sum(twos(3)) + tc.sum(twos(5))).read()).item() == 16
    assert (await tc.sum(twos(3, 2) @ twos(2, 4)).read()).item() == 96
    assert (await tc.concat([twos(3), twos(1)]).read()).tolist() == [2] * 4
    running = tc.concat([tc.cumulative_sum(twos(3)), tc.cumulative_sum(twos(5))])
    assert (await running.read()).tolist() == [2, 4, 6, 2, 4, 6, 8, 10]
    totals = [tc.sum(row + tc.ones((rows, 2), device=device)) for rows in (3, 5)]
    assert (await tc.stack(totals).read()).tolist() == [9, 15]
    pair = [twos(3), twos(5)]
    assert [array.tolist() for array in await tc.read_together(pair)] == [[2] * 3, [2] * 5]
    assert [array.tolist() for array in await tc.read_together(pair[1:])] == [[2] * 5]


async def a_read_outside_its_bytes_breaks_no_later_read(device: Device) -> None:
    short, whole = on(device, np.zeros(3, np.float32), np.arange(5, dtype=np.float32))
    storage = short.node.storage
    assert storage is not None
    await raises(tc.errors.InternalError, device.read(storage.handle, 0, 20), "20 of a value of 12 bytes")
    assert (await whole.read()).tolist() == [0, 1, 2, 3, 4] and (await short.read()).tolist() == [0, 0, 0]


def _same(got: Array, wanted: Array, what: str) -> None:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype, what
    different = (got != wanted) & ~(np.isnan(got) & np.isnan(wanted))
    assert not different.any(), (
        f"{what}: {different.sum()} of {got.size} differ, {got[different][:2]} {wanted[different][:2]}"
    )


async def tensors_read_together(device: Device, seed: int, dtype: str) -> None:
    """Assert that every value of merged requests has the bits that it has alone, and agrees with NumPy."""
    graph, arrays = drawn(seed), arrays_of(dtype)
    given = {name: tc.asarray(array, device=device) for name, array in arrays.items()}
    wanted = graph.of({name: array.astype(np.float64) for name, array in arrays.items()})
    merged = await tc.read_together(graph.of(given))
    for i, (together, exact) in enumerate(zip(merged, wanted, strict=True)):
        what = f"{dtype} {seed}, value {i}: {'; '.join(graph.done)}"
        _same(together, await graph.of(given)[i].read(), what)
        near(together, exact, TOLERANCE[dtype])


async def donated_and_not(device: Device, seed: int) -> None:
    """A compiled function of the graph gives the same bits with and without donating the cache."""
    graph, arrays = drawn(seed), arrays_of("float32")
    if not any(name.startswith("append", name.index("= ") + 2) for name in graph.done if "= " in name):
        return

    def function(cache: Tensor, given: dict[str, Tensor]) -> list[Tensor]:
        return graph.of({**given, "cache": cache})

    results = []
    for donated in ((), ("cache",)):
        given = {name: tc.asarray(array, device=device) for name, array in arrays.items()}
        call = tc.compile(function, donate_argnames=donated)
        results.append(await tc.read_together(await call(given.pop("cache"), given)))
    for kept, given_up in zip(*results, strict=True):
        _same(given_up, kept, f"{seed}: {'; '.join(graph.done)}")


class _Model:
    """A request as a model: weights by content, activations given by the host."""

    def __init__(self, manager: tc.TensorSharingManager, device: Device, graph: Drawn, request: int) -> None:
        self.name = f"model {request}"
        self.model_type = "random"
        self.device = device
        self.graph, self.request_number = graph, request
        arrays = arrays_of("float32")
        self.weights = {name: _weight(device, arrays[name]) for name in WEIGHTS}
        inputs = {name: arrays[name] for name in ("x", "y", "cache")}
        self.traces = Traces(device, self._forward, lambda: _arguments(inputs))
        self.related_traces = [self.traces]
        manager.attach(self)  # type: ignore[arg-type]  # it is never moved nor unloaded

    def _forward(self, arguments: Mapping[str, Node]) -> Mapping[str, Node]:
        given = {name: Tensor.symbolic(node, self.device) for name, node in arguments.items()}
        answer = self.graph.of({**self.weights, **given}, self.request_number)
        return {str(i): tensor.node for i, tensor in enumerate(answer)}

    def request(self, inputs: Mapping[str, Array], outputs: Any, once: Any = None) -> Request:
        arguments = _arguments(inputs)
        trace = self.traces.of(arguments)
        return Request(self.name, arguments, trace, inputs, tuple(str(i) for i in range(len(trace.nodes))), {})

    def moved(self, decision: Any, weights: Any) -> None:
        raise AssertionError("no device is lost in this test")


def _arguments(inputs: Mapping[str, Array]) -> Arguments:
    return tuple((name, Spec(array.shape, tc.dtypes.float32)) for name, array in inputs.items())


def _weight(device: Device, array: Array) -> Tensor:
    data = memoryview(array.reshape(-1).view(np.uint8))
    spec = Spec(array.shape, tc.dtypes.float32)
    identity = content_identity(data, array.shape, spec.dtype)
    return Tensor.of_storage(Storage.upload(device, data, "weights", identity, spec=spec), spec)


async def models_run_together(place: Place, seed: int) -> None:
    """Run requests as models: merged, one after another with kept activations, and alone."""
    graph, arrays = drawn(seed), arrays_of("float32")
    same = {name: arrays[name] for name in ("x", "y", "cache")}
    wanted = graph.of({name: array.astype(np.float64) for name, array in arrays.items()})
    others = {**same, "x": arrays["x"] * np.float32(0.5)}

    async def read(answers: Sequence[dict[str, Tensor]]) -> list[Array]:
        return await tc.read_together([tensor for answer in answers for tensor in answer.values()])

    def models(manager: tc.TensorSharingManager) -> list[Any]:
        return [_Model(manager, place.device, graph, i) for i in range(len(graph.requests))]

    alone = []
    for request in range(len(graph.requests)):
        plain = place.manager(activation_cache=False)
        alone.append(
            [
                await read([(await plain.run_together([(models(plain)[request], inputs)]))[0]])
                for inputs in (same, others)
            ]
        )
    plain, cached = place.manager(activation_cache=False), place.manager()
    merged, one_by_one = models(plain), models(cached)
    for mixed in (False, True):  # equal inputs, then unequal ones
        given = [others if mixed and i % 2 else same for i in range(len(merged))]
        expected = [array for i, each in enumerate(alone) for array in each[int(mixed and i % 2)]]
        together = await read(await plain.run_together(list(zip(merged, given, strict=True))))
        turns = [await read(await cached.run_together([pair])) for pair in zip(one_by_one, given, strict=True)]
        again = await read(await cached.run_together(list(zip(one_by_one, given, strict=True))))
        for i, value in enumerate(expected):
            what = f"{seed}, value {i}, mixed {mixed}: {'; '.join(graph.done)}"
            _same(together[i], value, f"merged {what}")
            _same([array for turn in turns for array in turn][i], value, f"one after another {what}")
            _same(again[i], value, f"again {what}")
            if not mixed:
                near(value, wanted[i], TOLERANCE["float32"])


CONTESTED = {  # combinations of a product y, a residual r and a norm, which fusion makes one step if they are alone
    "an activation": lambda y, r, norm: [tc.relu(y), y, tc.sigmoid(y)],
    "a residual": lambda y, r, norm: [y + r, y, tc.tanh(y)],
    "a norm": lambda y, r, norm: [norm(y + r), y + r, y],
    "a norm of sums": lambda y, r, norm: [norm(r + r), r + r],
}


async def _contested(device: Device, dtype: str) -> list[str]:
    """Assert that values read together have the bits that each has alone; gives the fused ops that ran."""
    arrays = arrays_of(dtype)
    given = {name: tc.asarray(array, device=device) for name, array in arrays.items()}

    def norm(x: Tensor) -> Tensor:
        return tc.layer_norm(x, given["norm 32"], given["shift 32"])

    ran = []
    for name, make in CONTESTED.items():

        def values(make: Any = make) -> list[Tensor]:
            return list(make(tc.linear(given["x"], given["matrix 32 192"], given["shift 32"]), given["y"], norm))

        for i, together in enumerate(await tc.read_together(values())):
            _same(together, await values()[i].read(), f"{name}, value {i}, {dtype}")
            fused = fuse(Graph([values()[i].node]), device.backend)
            ran += [node.op.name for node in fused.nodes if node.op is not None]
    return ran


async def what_fusion_would_join_is_decided_for_each_request(device: Device) -> None:
    for dtype in TOLERANCE:
        await _contested(device, dtype)


@only("webgpu")
async def a_product_in_parts_beside_one_that_is_whole(device: Device) -> None:
    with hardware(device):
        ran = await _contested(device, "float32")
    assert {"linear_parts", "sum_norm", "linear", "layer_norm"} <= set(ran)


def _seeds(device: Device) -> range:
    return range(5) if device.kind == "cpu" else range(2)


async def random_requests(place: Place) -> None:
    for seed in _seeds(place.device):
        for dtype in TOLERANCE:
            await tensors_read_together(place.device, seed, dtype)
        await donated_and_not(place.device, seed)


async def random_models(place: Place) -> None:
    for seed in _seeds(place.device):
        await models_run_together(place, seed)


@only("webgpu")
@long("webgpu")
async def random_requests_with_kernels_for_hardware(place: Place) -> None:
    with hardware(place.device):
        for seed in range(2):
            await tensors_read_together(place.device, seed, "float32")
            await models_run_together(place, seed)


@long("cpu", "webgpu", "webnn")
async def many_random_requests(place: Place) -> None:
    for seed in range(100, 600 if place.device.kind == "cpu" else 106):
        for dtype in TOLERANCE:
            await tensors_read_together(place.device, seed, dtype)
        await models_run_together(place, seed)
