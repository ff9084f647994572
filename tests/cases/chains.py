"""Chains of elementwise ops: one dispatch, and the results of the single ops."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.graph.elementwise_fusion import INPUTS, chain_elementwise
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.samples import drawn
from tensorcommons.tensor import realize
from tests.cases.support import on

CHAINS: dict[str, Any] = {
    "one op with a number": lambda x, y: x * 3,
    "numbers on both sides": lambda x, y: 2 - (x + 1) * 2,
    "a tree of both": lambda x, y: tc.maximum(x + y, y) * (y - x),
    "broadcast operands": lambda x, y: (x + y[:1]) * y[:, :1] - x,
    "views as operands": lambda x, y: (x[::-1] + y) * x - y[:, ::-1],
    "comparisons and choices": lambda x, y: tc.where((x > y) & (x != 3), x + 1, y * 2),
    "casts between": lambda x, y: tc.astype(tc.astype(x + 1, "float32") * 0.5 + tc.astype(y, "float32"), "int32"),
    "a number everywhere": lambda x, y: tc.full_like(x, 2) * x + tc.ones_like(y) - tc.zeros_like(x),
    "the same value often": lambda x, y: x * x + x * y - x,
    "a clip": lambda x, y: tc.clip(x * 2, -1 if x.dtype.kind != "uint" else 1, 2),
}


def steps(*tensors: Any) -> list[str]:
    """Return the ops that run, in order: the nodes after fusion, without views."""
    fused = chain_elementwise(fuse(Graph([tensor.node for tensor in tensors])))
    return [node.op.name for node in fused.nodes if node.op is not None and node.op.view is None]


async def op_by_op(device: Device, function: Any, *arrays: Any) -> Any:
    """Run ``function`` with every value computed and stored before the next op reads it."""
    kept: list[Any] = []
    original = tc.ops.registry.apply

    def apply(*args: Any, **attrs: Any) -> Any:
        kept.append(original(*args, **attrs))
        return kept[-1]

    modules: tuple[Any, ...] = (tc.ops.elementwise, tc.ops.layout)
    for module in modules:
        module.apply = apply
    try:
        result = function(*on(device, *arrays))
    finally:
        for module in modules:
            module.apply = original
    await realize([value for value in kept if value.node.op is not None])
    return await result.read()


async def fused_equals_unfused(device: Device) -> None:
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float16", "int32", "uint32"):
        a, b = drawn(rng, dtype, (13, 17), -9, 9), drawn(rng, dtype, (13, 17), -9, 9)
        for name, function in CHAINS.items():
            fused = function(*on(device, a, b))
            assert [step for step in steps(fused) if step != "copy"] == ["chain"], f"{name}: {steps(fused)}"
            got, wanted = await fused.read(), await op_by_op(device, function, a, b)
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted, err_msg=f"{name} {dtype}")


async def what_is_needed_twice_is_computed_once(device: Device) -> None:
    x, y = on(device, drawn(np.random.default_rng(0), "float32", (50,)), np.ones(50, np.float32))
    shared = tc.exp(x + y) * y
    assert steps(shared * x - shared + y) == ["chain", "chain"]
    assert steps(shared, shared * x - y) == ["chain", "multiply", "subtract"]
    row = tc.exp(x[:5] * x[5:10]) - x[:5]  # broadcast by the next op: each of its elements is computed once
    assert steps(tc.broadcast_to(row, (4, 5)) + tc.reshape(y[:20], (4, 5))) == ["chain", "add"]


async def short_chains_are_left_alone(device: Device) -> None:
    x, y = on(device, np.ones(5, np.float32), np.ones(5, np.float32))
    assert steps(x + y) == ["add"]
    assert steps(tc.exp(x + y)) == ["add", "exp"]
    assert steps(tc.exp(x + y) * x) == ["chain"]
    assert steps(x + 1) == ["chain"]


async def more_operands_than_bindings(device: Device) -> None:
    arrays = [np.full(33, i, np.float32) for i in range(2 * INPUTS + 3)]
    total = sum(on(device, *arrays[1:]), start=on(device, arrays[0])[0])
    assert set(steps(total)) <= {"chain", "add"} and len(steps(total)) <= 4
    np.testing.assert_array_equal(await total.read(), sum(arrays))


async def many_ops_in_a_row(device: Device) -> None:
    (x,) = on(device, np.arange(9, dtype=np.int32))
    y = x
    for i in range(100):
        y = y * 3 + i
    assert len(steps(y)) <= 10
    wanted = np.arange(9, dtype=np.int32)
    with np.errstate(over="ignore"):
        for i in range(100):
            wanted = wanted * np.int32(3) + np.int32(i)
    np.testing.assert_array_equal(await y.read(), wanted)


async def numbers_take_no_bytes(device: Device) -> None:
    (x,) = on(device, np.ones(1000, np.float32))
    before = device.backend.live_buffers(), device.memory()["activations"]
    y = (x * 2 + 1) / 3
    assert (device.backend.live_buffers(), device.memory()["activations"]) == before
    np.testing.assert_array_equal(await y.read(), np.ones(1000, np.float32))
