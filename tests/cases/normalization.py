"""Softmax and layer norm: odd shapes, long rows, numbers at the limits of float32."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tensorcommons.graph.embedding_norm import fuse_embedding_norms
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tests.cases import only
from tests.cases.support import INF, NAN, agree, compiles_slowly, near, numbers, on, refused


def _softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _norm(x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


async def softmax_shapes(device: Device) -> None:
    for shape in ((1,), (7,), (13, 17), (2, 3, 1), (3, 1, 5), (0, 4)):
        await agree(device, tc.softmax, _softmax, numbers(*shape, low=-9, high=9))
    near(await tc.softmax(*on(device, numbers(3, 0))).read(), np.zeros((3, 0)))


async def softmax_over_each_axis_and_through_views(device: Device) -> None:
    a = numbers(4, 6, 5)
    for axis in (0, 1, 2, -2):
        await agree(device, lambda x, axis=axis: tc.softmax(x, axis), lambda x, axis=axis: _softmax(x, axis), a)
    await agree(device, lambda x: tc.softmax(x[::2, ::-1], 1), lambda x: _softmax(x[::2, ::-1], 1), a)
    await agree(device, lambda x: tc.softmax(x + x, 0) * 2, lambda x: 2 * _softmax(2 * x, 0), a)


async def softmax_of_long_rows_and_many_rows(device: Device) -> None:
    await agree(device, tc.softmax, _softmax, numbers(2, 100_000, low=-5, high=5))
    await agree(device, tc.softmax, _softmax, numbers(300_001, 2))


async def softmax_of_extreme_values(device: Device) -> None:
    rows = [
        [1e30, -1e30, 0, 1e30],
        [-1e30, -1e30, -1e30, -1e30],
        [88, 89, 90, -INF],
        [-INF, -INF, 0, 1],
        [3.4e38, -3.4e38, 0, 0],
        [1e-38, 0, 0, 0],
    ]
    await agree(device, tc.softmax, _softmax, np.array(rows, np.float32))
    for row in ([NAN, 0, 1], [1, NAN, 0], [INF, 0, 1], [-INF, -INF, -INF]):
        near(await tc.softmax(*on(device, np.array(row, np.float32))).read(), np.full(3, NAN))


async def layer_norm_shapes(device: Device) -> None:
    for shape in ((1,), (7,), (13, 17), (2, 3, 1), (2, 3, 36), (0, 4)):
        await agree(
            device, tc.layer_norm, _norm, numbers(*shape), numbers(shape[-1], seed=1), numbers(shape[-1], seed=2)
        )
    empty, none = on(device, numbers(3, 0), numbers(0))
    near(await tc.layer_norm(empty, none, none).read(), np.zeros((3, 0)))


async def layer_norm_of_views(device: Device) -> None:
    a, w, b = numbers(6, 10), numbers(12, seed=1), numbers(6, seed=2)
    await agree(
        device,
        lambda x, w, b: tc.layer_norm(tc.permute_dims(x, (1, 0)), w[::-2], b),
        lambda x, w, b: _norm(x.T, w[::-2], b),
        a, w, b,
    )  # fmt: skip
    await agree(device, lambda x: tc.layer_norm(x, x[0], x[1]), lambda x: _norm(x, x[0], x[1]), a)
    await agree(device, lambda x: tc.layer_norm(y := x * 2, y[0], y[0]), lambda x: _norm(2 * x, 2 * x[0], 2 * x[0]), a)


async def layer_norm_of_a_sum(device: Device) -> None:
    a, b, w = numbers(5, 7), numbers(5, 7, seed=1), numbers(7, seed=2)
    await agree(device, lambda x, y, w: tc.layer_norm(x + y, w, w), lambda x, y, w: _norm(x + y, w, w), a, b, w)
    await agree(device, lambda x, w: tc.layer_norm(x + x, w, w), lambda x, w: _norm(2 * x, w, w), a, w)
    await agree(device, lambda x, w: tc.layer_norm(x + w, w, w), lambda x, w: _norm(x + w, w, w), a, w)

    def sum_used_twice(x: Any, y: Any, w: Any) -> Any:
        total = x + y
        return (tc.layer_norm if isinstance(x, tc.Tensor) else _norm)(total, w, w) + total

    await agree(device, sum_used_twice, sum_used_twice, a, b, w)


async def layer_norm_keeps_its_digits(device: Device) -> None:
    one, zero = np.ones(384, np.float32), np.zeros(384, np.float32)
    large = (1e4 + numbers(3, 384)).astype(np.float32)
    await agree(device, tc.layer_norm, _norm, large, one, zero)
    await agree(device, tc.layer_norm, _norm, np.full((2, 384), 7, np.float32), one, zero + 3)
    long = numbers(2, 100_000, low=2, high=3)
    await agree(device, tc.layer_norm, _norm, long, np.ones(100_000, np.float32), np.zeros(100_000, np.float32))


async def layer_norm_eps(device: Device) -> None:
    tiny = numbers(3, 8) * np.float32(1e-4)
    one, zero = np.ones(8, np.float32), np.zeros(8, np.float32)
    for eps in (1e-12, 1e-5, 0.5):
        await agree(device, lambda x, w, b, e=eps: tc.layer_norm(x, w, b, e), lambda x, w, b, e=eps: _norm(x, w, b, e), tiny, one, zero)  # fmt: skip # noqa: E501


def _rms(x: Any, weight: Any) -> Any:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


async def rms_norm_shapes_and_views(device: Device) -> None:
    for shape in ((1,), (7,), (13, 17), (2, 3, 36), (0, 4), (2, 1100), (1, 100_000)):
        await agree(device, tc.rms_norm, _rms, numbers(*shape), numbers(shape[-1], seed=1))
    a = numbers(6, 10)
    await agree(device, lambda x: tc.rms_norm(x[:, ::-1], x[0] * 2), lambda x: _rms(x[:, ::-1], x[0] * 2), a)
    await agree(device, lambda x: tc.rms_norm(y := x * 2, y[0]) * 2, lambda x: 2 * _rms(2 * x, 2 * x[0]), a)


async def log_softmax_of_extreme_values(device: Device) -> None:
    rows = [[1e30, -1e30, 0, 1e30], [88, 89, 90, -INF], [-1e5, 0, 1, 2]] * 9
    for a in (np.array(rows, np.float32), np.array(rows, np.float32).T.reshape(-1, 36)):
        await agree(device, tc.log_softmax, _log, a)
    for row in ([NAN, 0, 1], [1, NAN, 0], [INF, 0, 1], [-INF, -INF, -INF]):
        for width in (3, 36):
            wide = np.array(row + [0] * (width - 3) if NAN in row or INF in row else [-INF] * width, np.float32)
            near(await tc.log_softmax(*on(device, wide)).read(), np.full(width, NAN))


def _log(x: Any) -> Any:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


async def packed_rows(device: Device) -> None:
    """Float16 computed in float32: rows of every alignment, weights of either dtype."""
    for shape in ((3, 5), (3, 7, 36), (5, 33), (2, 1100)):
        x, r = numbers(*shape).astype(np.float16), numbers(*shape, seed=3).astype(np.float16)
        w, b = numbers(shape[-1], seed=1), numbers(shape[-1], seed=2).astype(np.float16)
        half, single, bias, residual = on(device, x, w, b, r)
        exact, weight = x.astype(np.float64), w.astype(np.float64)
        short = tc.astype(single, "float16")
        for result, wanted in (
            (tc.softmax(half), _softmax(exact)),
            (tc.log_softmax(half), _log(exact)),
            (tc.layer_norm(half, short, bias), _norm(exact, weight, b)),
            (tc.layer_norm(half + residual, short, bias), _norm(exact + r, weight, b)),
            (tc.rms_norm(half, short), _rms(exact, weight)),
        ):
            assert str(result.dtype) == "float16", result.dtype
            near((await result.read()).astype(np.float32), wanted, 2e-3)
        near(await tc.layer_norm(half, single, bias).read(), _norm(exact, weight, b.astype(np.float64)))
        near(await tc.rms_norm(half, single).read(), _rms(exact, weight))
    outlier = np.r_[1000, numbers(64)].astype(np.float16)  # the subtracted value must not round the others
    ones = np.ones(65, np.float16)
    near(
        (await tc.layer_norm(*on(device, outlier, ones, ones)).read()).astype(np.float32),
        _norm(outlier.astype(np.float64), ones, ones), 2e-3,
    )  # fmt: skip


async def wrong_shapes_are_refused(device: Device) -> None:
    x, w, scalar, whole = on(device, numbers(2, 3), numbers(2), numbers(), np.arange(3, dtype=np.int32))
    refused(device, ShapeMismatch, lambda: tc.layer_norm(x, w, w))
    refused(device, ShapeMismatch, lambda: tc.layer_norm(scalar, scalar, scalar))
    refused(device, ShapeMismatch, lambda: tc.softmax(scalar))
    refused(device, ShapeMismatch, lambda: tc.softmax(x, axis=2))
    refused(device, ShapeMismatch, lambda: tc.log_softmax(scalar))
    refused(device, ShapeMismatch, lambda: tc.rms_norm(x, w))
    refused(device, UnsupportedDtype, lambda: tc.softmax(whole))
    refused(device, UnsupportedDtype, lambda: tc.rms_norm(whole, whole))
    refused(device, UnsupportedDtype, lambda: tc.layer_norm(x, whole, whole))


async def _fused_as_unfused(device: Device, total: Any, norm: Any, expected: Any, fused: bool = True) -> None:
    """Compare a norm fused with a sum, where fusion applies, with the norm of the stored sum, bit for bit."""
    answer = tc.layer_norm(total(), *norm)
    joined = fuse_embedding_norms(fuse(Graph([answer.node])), device.backend)
    steps = {node.op.name for node in joined.nodes if node.op is not None}
    assert ("sum_norm" in steps) == fused, (answer.shape, expected.shape, steps)
    got = await answer.read()
    near(got, expected)
    kept = await total().realize()
    assert got.tobytes() == (await tc.layer_norm(kept, *norm).read()).tobytes()


@only("cpu", "webgpu")
async def a_norm_adds_up_the_parts_of_a_product(device: Device) -> None:
    """A norm adds the parts of a product that is split along its depth, without storing their sum."""
    backend: Any = device.backend
    shapes = ((5, 8, 36, 2, True), (1, 64, 129, 4, False), (33, 96, 7, 3, True))
    for rows, depth, columns, count, biased in shapes[:2] if compiles_slowly(device) else shapes:
        arrays = [numbers(1, rows, depth), numbers(columns, depth, seed=1), numbers(1, rows, columns, seed=2)]
        arrays += [numbers(columns, seed=seed) for seed in ((3, 4, 5) if biased else (3, 4))]
        x, w, r, scale, shift, *bias = on(device, *arrays)
        exact = [array.astype(np.float64) for array in arrays]
        wanted = _norm(exact[0] @ exact[1].T + sum(exact[5:]) + exact[2], exact[3], exact[4])
        backend.parts_of_depth = lambda *sizes, count=count: count if sizes == (rows, depth, columns) else 1  # noqa: B023
        try:
            answer = tc.layer_norm(tc.linear(x, w, *bias) + r, scale, shift)
            near(await answer.read(), wanted)
            steps = [step.op.name for step in list(device.programs.values())[-1].planned.plan.steps]
            assert steps == ["linear_parts", "sum_norm"], steps

            def both(x: Any, w: Any = w, r: Any = r, norm: Any = (scale, shift), bias: Any = bias) -> Any:
                total = tc.linear(x, w, *bias) + r  # it has another use: it is computed once, without a split
                return tc.layer_norm(total, *norm), total * 2

            normed, double = await tc.compile(both)(x)
            near(await normed.read(), wanted)
            assert np.array_equal(await double.read(), 2 * await (tc.linear(x, w, *bias) + r).read())
        finally:
            del backend.parts_of_depth
        near(await tc.layer_norm(tc.linear(x, w, *bias) + r, scale, shift).read(), wanted)
    x, w, column, scale, shift = numbers(5, 8), numbers(36, 8), numbers(5, 1), numbers(36), numbers(36, seed=1)
    backend.parts_of_depth = lambda *sizes: 2
    try:  # one number per row is not a row of numbers
        await agree(
            device,
            lambda x, w, c, *norm: tc.layer_norm(tc.linear(x, w) + tc.broadcast_to(c, (5, 36)), *norm),
            lambda x, w, c, *norm: _norm(x @ w.T + c, *norm), x, w, column, scale, shift,
        )  # fmt: skip
    finally:
        del backend.parts_of_depth


async def embeddings_and_their_norm_are_one_step(device: Device) -> None:
    rng = np.random.default_rng(5)
    for batch, sequence, columns in ((1, 1, 1), (2, 5, 36), (3, 2, 7), (1, 3, 129)):
        words, types, places = numbers(11, columns), numbers(2, columns), numbers(9, columns)
        weight, bias = numbers(columns, low=0.5, high=2), numbers(columns)
        ids = rng.integers(-11, 11, (batch, sequence)).astype(np.int32)
        kinds = rng.integers(0, 2, (batch, sequence)).astype(np.int32)
        whole = numbers(batch, sequence, columns)
        w, t, p, i, k, x, *norm = on(device, words, types, places, ids, kinds, whole, weight, bias)

        def typed(w: Any = w, t: Any = t, i: Any = i, k: Any = k) -> Any:
            return tc.take(w, i, axis=0) + tc.take(t, k, axis=0)

        sums: list[tuple[Any, Any]] = [
            (lambda w=w, i=i: tc.take(w, i, axis=0) + tc.take(w, -i - 1, axis=0), words[ids] + words[-ids - 1]),
            (lambda f=typed, p=p, n=sequence: f() + p[:n], words[ids] + types[kinds] + places[:sequence]),
            (lambda f=typed, w=w, k=k: f() + tc.take(w, k, axis=0), words[ids] + types[kinds] + words[kinds]),
            (lambda w=w, i=i, x=x: x + tc.take(w, i, axis=0), whole + words[ids]),
            (lambda w=w, i=i, x=x: tc.take(w, i, axis=0) + x, words[ids] + whole),
        ]
        for total, expected in sums:
            await _fused_as_unfused(device, total, norm, _norm(expected, weight, bias))
        if batch > 1:  # a row per sequence cannot be fused
            row = (await x[:, :1].realize()) if sequence > 1 else None
            if row is not None:
                expected = words[ids] + whole[:, :1]
                total = lambda w=w, i=i, row=row: tc.take(w, i, axis=0) + row  # noqa: E731
                await _fused_as_unfused(device, total, norm, _norm(expected, weight, bias), fused=False)


async def embeddings_out_of_the_table_are_nan_in_their_norm(device: Device) -> None:
    table, weight, bias = numbers(4, 40), numbers(40), numbers(40)
    w, i, *norm = on(device, table, np.array([3, 4, -4, -5, 0], np.int32), weight, bias)
    got = await tc.layer_norm(tc.take(w, i, axis=0) + tc.take(w, i, axis=0), *norm).read()
    near(got[[0, 2, 4]], _norm(2 * table[[3, 0, 0]].astype(np.float64), weight, bias))
    assert np.isnan(got[[1, 3]]).all()
