"""Patterns of the rewriter: a rewritten graph gives the results of its single operations, and was rewritten.

Shapes and formulas are drawn from seeds. Patterns of the first phase may change bits, so they are compared within the
tolerance of the conformance suite; those of the second phase keep them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Tensor
from tensorcommons.backends.base import Spec
from tensorcommons.backends.ops import OPS
from tensorcommons.graph.bound import compile_fused
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.merge import merge
from tensorcommons.graph.node import Node, argument
from tensorcommons.graph.parted import PartedProgram
from tensorcommons.graph.reuse import remainder_of, reuse_points
from tensorcommons.samples import drawn
from tensorcommons.sharing.provenance import content_identity
from tensorcommons.sharing.storage import Storage
from tests.cases import only
from tests.cases.requests import arrays_of
from tests.cases.requests import drawn as drawn_graph
from tests.cases.support import joins_alike, near, on

Array = np.ndarray[Any, Any]
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
NO_PRODUCTS = 23  # the seed of a random graph without one
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(tc.gelu, approximate="tanh"),
    "relu": tc.relu,
    "gelu": tc.gelu,
    "tanh": tc.tanh,
    "sigmoid": tc.sigmoid,
}


def _seeds(device: Device) -> range:
    """Return fewer seeds on a software adapter, which takes seconds to compile a product."""
    return range(8 if device.kind == "cpu" else 1 if device.is_software and not device.backend.takes_graphs else 3)


def _sizes(rng: np.random.Generator, count: int) -> list[int]:
    return [int(size) for size in rng.integers(1, 50, count)]


async def _one_by_one(device: Device, tensors: Sequence[Tensor]) -> list[Array]:
    """Compute each operation by its own program, which cannot be rewritten."""
    graph, made = Graph([tensor.node for tensor in tensors]), dict[int, Node]()
    for node in graph.nodes:
        over = node.over(tuple(made[id(child)] for child in node.inputs))
        if over.op is not None and not over.is_view:
            over = (await Tensor.symbolic(over, device).realize()).node
        made[id(node)] = over
    return [await Tensor.symbolic(made[id(root)], device).read() for root in graph.outputs]


def _forget_programs(device: Device) -> None:
    for program in device.programs.values():
        program.discard()
    device.programs.clear()


async def _rewritten(device: Device, tensors: Sequence[Tensor]) -> tuple[list[Array], list[Any]]:
    """Compute ``tensors`` by one program; also gives its steps."""
    _forget_programs(device)
    arrays = await tc.read_together(tensors)
    plans = [plan.plan for program in device.programs.values() for plan in program.plans]
    return arrays, [step for plan in plans for step in plan.steps]


async def _compare(
    device: Device,
    make: Callable[..., Sequence[Tensor]],
    arrays: Sequence[Array],
    tolerance: float = 0,
    rewriting: AbstractContextManager[Any] | None = None,
) -> list[Any]:
    """Compare the tensors that ``make`` builds from the arrays, rewritten and one by one; gives the steps that ran.

    ``rewriting`` changes facts of the device for the rewritten run.
    """
    given = on(device, *arrays)
    wanted = await _one_by_one(device, make(*given))
    if rewriting is None:
        got, steps = await _rewritten(device, make(*given))
    else:
        with rewriting:
            got, steps = await _rewritten(device, make(*given))
            _forget_programs(device)
    for mine, alone in zip(got, wanted, strict=True):
        assert mine.dtype == alone.dtype
        if tolerance:
            near(mine, alone, tolerance)
        else:
            np.testing.assert_array_equal(mine, alone)
    return steps


def _names(steps: Sequence[Any]) -> list[str]:
    """Return the operations of steps in order, without views."""
    return [step.op.name for step in steps if step.op.view is None]


async def epilogues_of_products(device: Device) -> None:
    for seed in _seeds(device):
        rng = np.random.default_rng(seed)
        for dtype, tolerance in list(TOLERANCE.items())[: len(_seeds(device))]:
            rows, depth, columns = _sizes(rng, 3)
            activation, is_first = list(ACTIVATIONS)[seed % 5], bool(seed % 2)
            shapes = ((rows, depth), (columns, depth), (depth, columns), (columns,), (rows, columns))

            def make(x: Any, w: Any, v: Any, b: Any, r: Any, a: str = activation, first: bool = is_first) -> list[Any]:
                total = r + tc.linear(x, w) if first else tc.linear(x, w) + r
                turned = tc.permute_dims(v, (1, 0))  # as GPT-2 stores its weights: read as they lie
                return [ACTIVATIONS[a](tc.linear(x, turned, *([b] if first else []))), total]

            steps = await _compare(device, make, [drawn(rng, dtype, shape) for shape in shapes], tolerance)
            assert _names(steps) == ["linear", "linear"], _names(steps)
            found = {(step.attrs["activation"], step.attrs["residual"]) for step in steps if step.op.name == "linear"}
            assert found == {(activation, False), (None, True)}, found


async def norms_of_sums(device: Device) -> None:
    for seed in _seeds(device):
        rng = np.random.default_rng(seed)
        for dtype, tolerance in TOLERANCE.items():
            rows, columns = _sizes(rng, 2)
            columns += 8  # the variance of a few elements may be near 0, which magnifies rounding
            arrays = [drawn(rng, dtype, shape) for shape in ((rows, columns), (rows, columns), (columns,), (columns,))]
            steps = await _compare(device, lambda a, b, w, s: [tc.layer_norm(a + b, w, s)], arrays, tolerance)
            assert _names(steps) == ["layer_norm"], _names(steps)


@only("cpu", "webgpu")
async def products_in_parts_of_their_depth(device: Device) -> None:
    for seed in _seeds(device):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 5))
        rows, depth, columns = (8 + size for size in _sizes(rng, 3))
        shapes = ((rows, count * depth), (columns, count * depth), (columns,), (rows, columns), (columns,), (columns,))

        def make(x: Any, w: Any, b: Any, r: Any, scale: Any, shift: Any) -> list[Any]:
            return [tc.layer_norm(tc.linear(x, w, b) + r, scale, shift)]

        pays = patch.object(device.backend, "parts_of_depth", lambda *sizes, count=count: count)
        arrays = [drawn(rng, "float32", shape) for shape in shapes]
        steps = await _compare(device, make, arrays, TOLERANCE["float32"], pays)
        assert _names(steps) == ["linear_parts", "sum_norm"], _names(steps)


@only("cpu", "webgpu")
async def norms_of_embeddings(device: Device) -> None:
    for seed in _seeds(device):
        rng = np.random.default_rng(seed)
        batch, sequence, words, columns = _sizes(rng, 4)
        ids = rng.integers(-words, words, (batch % 4 + 1, sequence)).astype(np.int32)
        shapes = ((words, columns), (2, columns), (sequence, columns), (columns,), (columns,))
        arrays = [ids, ids & 1, *(drawn(rng, "float32", shape) for shape in shapes)]

        def make(ids: Any, kinds: Any, words: Any, types: Any, places: Any, scale: Any, shift: Any) -> list[Any]:
            total = tc.take(words, ids, axis=0) + tc.take(types, kinds, axis=0) + places
            return [tc.layer_norm(total, scale, shift)]

        steps = await _compare(device, make, arrays)
        assert "sum_norm" in _names(steps) and "add" not in _names(steps), _names(steps)


@only("cpu", "webgpu")
async def norms_of_more_embeddings_than_a_shader_binds(device: Device) -> None:
    for seed in _seeds(device):
        rng = np.random.default_rng(seed)
        rows, words, columns = _sizes(rng, 3)
        ids = [rng.integers(0, words, rows).astype(np.int32) for _ in range(3)]
        tables = [drawn(rng, "float32", (words, columns)) for _ in range(3)]

        def make(a: Any, b: Any, c: Any, x: Any, y: Any, z: Any, scale: Any, shift: Any) -> list[Any]:
            total = tc.take(x, a, axis=0) + tc.take(y, b, axis=0) + tc.take(z, c, axis=0)
            return [tc.layer_norm(total, scale, shift)]

        scales = [drawn(rng, "float32", (columns,)) for _ in range(2)]
        steps = await _compare(device, make, [*ids, *tables, *scales])
        (terms,) = [step.attrs["terms"] for step in steps if step.op.name == "sum_norm"]
        assert sum(2 if kind == "taken" else 1 for kind, _ in terms) <= 5, terms  # of 8: weight, bias and result


def _formula(rng: np.random.Generator, values: Sequence[Any], count: int) -> Any:
    """Draw an expression of ``count`` operations, each on the result of the previous one."""
    x = values[0]
    is_float = x.dtype.kind == "float"
    for _ in range(count):
        y, kind = values[int(rng.integers(len(values)))], int(rng.integers(8))
        if kind == 0:
            x = x * 3
        elif kind == 1:
            x = 2 - x
        elif kind == 2:
            x = tc.where(x > y, y, values[0])
        elif kind == 3:
            x = tc.tanh(x) if is_float else tc.square(x)
        elif kind == 4:
            x = tc.exp(tc.minimum(x, y)) if is_float else tc.minimum(x, y)
        else:
            x = (tc.add, tc.subtract, tc.multiply)[kind - 5](x, y)
    return x


@only("cpu", "webgpu")
async def chains_of_elementwise_operations(device: Device) -> None:
    for seed in _seeds(device):
        for dtype in ("float32", "float16", "int32", "uint32"):
            rng = np.random.default_rng(seed)
            rows, columns = _sizes(rng, 2)
            arrays = [drawn(rng, dtype, shape) for shape in ((rows, columns), (rows, 1), (columns,), (rows, columns))]

            def make(*values: Any, seed: int = seed) -> list[Any]:
                return [_formula(np.random.default_rng(seed), values, 6)]

            steps = await _compare(device, make, arrays)
            spec = tc.asarray(arrays[0]).spec
            if device.backend.chains(OPS["add"], [spec, spec], spec):
                assert _names(steps) == ["chain"], (seed, dtype, _names(steps))


@only("cpu", "webgpu")
async def products_of_one_value_side_by_side(device: Device) -> None:
    if not joins_alike(device):
        return
    for seed in _seeds(device):
        rng = np.random.default_rng(seed)
        rows, depth, columns = 16, *_sizes(rng, 2)  # each part begins at an aligned offset
        columns = 4 * columns
        count, is_active = int(rng.integers(2, 6)), bool(seed % 2)
        shapes = [(rows, depth), *[(columns, depth)] * count, *[(columns,)] * count]

        def make(x: Any, *weights: Any, count: int = count, is_active: bool = is_active) -> list[Any]:
            made = [tc.linear(x, *pair) for pair in zip(weights[:count], weights[count:], strict=True)]
            return [tc.exp(tc.relu(each) if is_active else each) for each in made]

        cost = patch.object(type(device.backend), "steps_cost", True)
        steps = await _compare(device, make, [drawn(rng, "float32", shape) for shape in shapes], rewriting=cost)
        names = _names(steps)
        assert names.count("linears") == (count + 1) // 3 and names.count("linear") == (count % 3 == 1), (count, names)


def _weight(device: Device, array: Array) -> Tensor:
    """Make a tensor with a content identity, like a weight of a model."""
    data, spec = memoryview(array.reshape(-1).view(np.uint8)), Spec(array.shape, tc.dtypes.float32)
    identity = content_identity(data, array.shape, spec.dtype)
    return Tensor.of_storage(Storage.upload(device, data, "weights", identity, spec=spec), spec)


async def _run(device: Device, graph: Graph, arrays: dict[str, Array], given: dict[str, Any]) -> list[tuple[Any, Any]]:
    return await (await compile_fused(device, graph)).run(arrays, given)


async def _read(found: Sequence[tuple[Any, Any]]) -> list[bytes]:
    return [(await Tensor.of_storage(*each).read()).tobytes() for each in found]


async def reuse_points_and_merged_requests(device: Device) -> None:
    """Two heads compute their common backbone once if they run together, and reuse it one after another."""
    for seed in _seeds(device):
        rng = np.random.default_rng(seed)
        rows, depth = (2 + size for size in _sizes(rng, 2))
        x = drawn(rng, "float32", (rows, depth))
        weights = [_weight(device, drawn(rng, "float32", (depth, depth))) for _ in range(4)]

        def head(number: int, name: str, shape: Any = x.shape, weights: Any = weights) -> Graph:
            given = Tensor.symbolic(argument(name, Spec(shape, tc.dtypes.float32), is_stored=False), device)
            hidden = tc.gelu(tc.linear(tc.tanh(tc.linear(given, weights[0])), weights[1]) + given)
            return fuse(Graph([tc.softmax(tc.linear(hidden, weights[2 + number])).node]), device.backend)

        one, other = head(0, "x"), head(1, "y")
        alone = [
            *await _read(await _run(device, one, {"x": x}, {})),
            *await _read(await _run(device, other, {"y": x}, {})),
        ]
        merged = merge([(one, {"x": "same"}), (other, {"y": "same"})])
        assert max(one.executed, other.executed) < merged.executed < one.executed + other.executed - 2
        assert await _read(await _run(device, merged, {"same": x}, {})) == alone
        apart = merge([(one, {"x": "x"}), (other, {"y": "y"})])
        assert apart.executed == one.executed + other.executed
        assert (await _read(await _run(device, apart, {"x": x, "y": x}, {}))) == alone

        cuts = reuse_points(one, [merge([(other, {"y": "x"})])])
        first = remainder_of(one, cuts, [], keep=True)
        (kept,) = first.kept
        outputs = await _run(device, first.graph, {"x": x}, {})
        assert (await _read(outputs))[0] == alone[0]
        rest = remainder_of(one, cuts, [kept], keep=True)
        assert rest.graph.executed < one.executed - 2 and list(rest.taken.values()) == [kept]
        assert await _read(await _run(device, rest.graph, {}, dict.fromkeys(rest.taken, outputs[1][0]))) == alone[:1]


async def graphs_in_parts_of_few_nodes(device: Device) -> None:
    arrays = arrays_of("float32")
    for seed in (NO_PRODUCTS,) if len(_seeds(device)) == 1 else range(4):
        graph, results, parts = drawn_graph(seed), [], []
        for nodes in (2**62, 1, 3, 8):
            given = {name: tc.asarray(array, device=device) for name, array in arrays.items()}
            with patch.object(device.backend, "graph_nodes", nodes):
                results.append([array.tobytes() for array in await tc.read_together(graph.of(given))])
            found = [each for each in device.programs.values() if isinstance(each, PartedProgram)]
            parts.append(max((len(each.parts) for each in found), default=1))
            assert results[-1] == results[0], (seed, nodes, graph.done)
            _forget_programs(device)
        assert parts[1] >= parts[2] >= parts[3] >= parts[0] and parts[1] > max(parts[0], 1), (seed, parts)
