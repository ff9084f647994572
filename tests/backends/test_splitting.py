"""WebNN graphs that would take too much memory are split into several, with equal results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorcommons.backends.webnn.splitting import BLOCK, GRAPH_BYTES, Calls, Kind, Node, Subgraph, kept_bytes, reserved

MIB = 2**20
MEANING: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "matmul": lambda a, b: np.tanh(a @ b),
    "sigmoid": np.tanh,
    "cast": lambda x, dtype: x.astype(dtype),
    "reduceSum": lambda x: x.sum(keepdims=True).reshape(1, 1),
}


class Making:
    """Builder of a recorded graph: each method returns a reference to its result."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.kinds: list[Kind] = []

    def add(self, node: Node, shape: tuple[int, ...], dtype: str = "float32") -> dict[str, int]:
        self.nodes.append(node)
        self.kinds.append((dtype, shape))
        return {"v": len(self.nodes) - 1}

    def input(self, number: int, shape: tuple[int, ...], dtype: str = "float32") -> dict[str, int]:
        return self.add(["input", dtype, list(shape), number], shape, dtype)

    def finished(self, *outputs: dict[str, int]) -> Calls:
        return Calls(self.nodes, self.kinds, [each["v"] for each in outputs])


def products(count: int, mib: int, dtype: str) -> Calls:
    """Build the sum of ``count`` products with weights of ``mib`` MiB each."""
    m = Making()
    rows = mib * MIB // np.dtype(dtype).itemsize // 1024
    x = m.input(count, (1024, 1))
    total = None
    for number in range(count):
        weight = m.input(number, (rows, 1024), dtype)
        if dtype != "float32":
            weight = m.add(["cast", weight, "float32"], (rows, 1024))
        y = m.add(["reduceSum", m.add(["matmul", weight, x], (rows, 1))], (1, 1))
        total = y if total is None else m.add(["add", total, y], (1, 1))
    assert total is not None
    return m.finished(total)


def sums(count: int, mib: int) -> Calls:
    """Build the running sum of ``count`` functions of one value."""
    m = Making()
    shape = (mib * MIB // 4096, 1024)
    x = m.input(0, shape)
    total = None
    for _ in range(count):
        y = m.add(["sigmoid", x], shape)
        total = y if total is None else m.add(["add", total, y], shape)
    assert total is not None
    return m.finished(m.add(["reduceSum", total], (1, 1)))


@pytest.mark.parametrize(
    "calls",
    [products(10, 103, "float32"), products(4, 90, "float16"), products(2, 200, "float16"), sums(10, 110)],
    ids=["weights", "casts", "large casts", "values"],
)
def test_graphs_that_crash_a_tab_are_detected_and_split(calls):
    assert calls.block_bytes >= BLOCK, "each of these crashed a tab of Chromium 153"
    assert rows(350).bytes_alone(2) >= BLOCK, "this crashed one, too, and cannot be split"
    subgraphs = calls.subgraphs(GRAPH_BYTES)
    assert len(subgraphs) > 1 and all(each.calls.block_bytes <= GRAPH_BYTES for each in subgraphs)


@pytest.mark.parametrize("calls", [products(8, 100, "float32"), products(3, 95, "float16"), sums(5, 120)])
def test_a_graph_that_fits_stays_whole(calls):
    assert calls.block_bytes <= GRAPH_BYTES
    assert [each.calls for each in calls.subgraphs(GRAPH_BYTES)] == [calls]


def test_a_cast_of_a_weight_is_computed_in_the_part_that_uses_it():
    subgraphs = products(6, 100, "float16").subgraphs(GRAPH_BYTES)
    crossing = [subgraph.calls.kinds[node] for subgraph in subgraphs for node in subgraph.calls.outputs]
    assert len(subgraphs) > 2 and set(crossing) <= {("float32", (1, 1)), ("float32", (51_200, 1))}


def test_equal_layers_become_equal_graphs():
    subgraphs = products(12, 100, "float16").subgraphs(GRAPH_BYTES)
    assert len(subgraphs) >= 12 and len({subgraph.structure for subgraph in subgraphs}) <= 4
    assert kept_bytes(subgraphs) < BLOCK


def rows(mib: int) -> Calls:
    """Build a lookup of four rows of a float16 table of ``mib`` MiB."""
    m = Making()
    table = m.input(0, (mib * MIB // 2048, 1024), "float16")
    return m.finished(m.add(["gather", table, m.input(1, (4,), "int32"), {"axis": 0}], (4, 1024), "float16"))


def drawn(seed: int) -> tuple[Calls, dict[int, np.ndarray]]:
    """Draw a random graph over a few inputs, and the values of these."""
    rng = np.random.default_rng(seed)
    m = Making()
    given = {n: rng.normal(size=(4, 4)).astype(rng.choice(["float16", "float32"])) for n in range(5)}
    known = [m.input(n, (4, 4), array.dtype.name) for n, array in given.items()]
    for _ in range(40):
        a, b = (known[int(i)] for i in rng.integers(max(len(known) - 9, 0), len(known), 2))
        wide = [
            each if m.kinds[each["v"]][0] == "float32" else m.add(["cast", each, "float32"], (4, 4)) for each in (a, b)
        ]
        method = str(rng.choice(["add", "matmul", "sigmoid"]))
        known.append(m.add([method, *wide[: 1 if method == "sigmoid" else 2]], (4, 4)))
    first, second = (known[int(i)] for i in rng.choice(np.arange(20, len(known) - 1), 2, replace=False))
    return m.finished(known[-1], first, second).pruned([known[-1]["v"], first["v"], second["v"]]), given


def evaluated(calls: Calls, given: dict[int, np.ndarray]) -> list[np.ndarray]:
    values: list[np.ndarray] = []
    for method, *arguments in calls.nodes:
        if method == "input":
            values.append(given[arguments[2]])
        else:
            values.append(MEANING[method](*(values[a["v"]] if isinstance(a, dict) else a for a in arguments)))
        assert (values[-1].dtype.name, values[-1].shape) == calls.kinds[len(values) - 1]
    return [values[node] for node in calls.outputs]


def run(subgraphs: list[Subgraph], outputs: list[int], given: dict[int, np.ndarray]) -> list[np.ndarray]:
    known = dict(given)
    for subgraph in subgraphs:
        results = evaluated(subgraph.calls, {number: known[number] for _, number in subgraph.calls.inputs})
        known.update({-1 - node: result for node, result in zip(subgraph.gives, results, strict=True)})
    return [known[-1 - node] for node in outputs]


@pytest.mark.parametrize("seed", range(30))
def test_subgraphs_compute_what_the_whole_graph_computes(seed):
    calls, given = drawn(seed)
    wanted = evaluated(calls, given)
    for most in (200, 400, 600, 1000):
        subgraphs = calls.subgraphs(most)
        assert all(each.calls.block_bytes <= most or len(each.gives) == 1 for each in subgraphs)
        for got, expected in zip(run(subgraphs, list(calls.outputs), given), wanted, strict=True):
            np.testing.assert_array_equal(got, expected)
    assert len(calls.subgraphs(400)) > 2


def test_a_block_reserves_a_power_of_two():
    assert [reserved(n) for n in (0, 1, 64, 65, 600 * MIB)] == [0, 1, 64, 128, BLOCK]
