"""Products: odd sizes, every layout, fused and unfused activations."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tests.cases.elementwise import REFERENCES
from tests.cases.support import INF, NAN, agree, combinations, compiles_slowly, joins_alike, near, numbers, on, refused

SIZES = [(1, 1, 1), (1, 8, 1), (5, 7, 3), (17, 12, 65), (16, 4, 16), (33, 36, 50), (3, 0, 2), (0, 4, 2), (2, 4, 0)]

FEW = [(1, 4, 8), (1, 1, 8), (1, 5, 64), (3, 130, 72), (8, 33, 576), (2, 9, 2048)]  # rows, columns, depth


def _linear(x: Any, w: Any, b: Any = 0) -> Any:
    return x @ w.T + b


async def linear_sizes(device: Device) -> None:
    for (rows, depth, columns), biased in combinations(device, SIZES, (True, False)):
        x, w, b = numbers(rows, depth), numbers(columns, depth, seed=1), numbers(columns, seed=2)
        await agree(device, tc.linear, _linear, x, w, *([b] if biased else []))


async def products_by_their_names(device: Device) -> None:
    """dot, outer, vecdot and tensordot agree with NumPy, for floats and ints."""
    shapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((7,), (7,)), ((3, 7), (7,)), ((2, 3, 7), (7, 4)), ((3, 7), (2, 7, 5)), ((0,), (0,)), ((2, 0), (0, 3)),
        ((), (3, 2)),
    )  # fmt: skip
    for left, right in shapes:
        await agree(device, tc.dot, np.dot, numbers(*left), numbers(*right, seed=1))
    ints = np.arange(12, dtype=np.int32).reshape(3, 4) - 5
    (n,) = on(device, ints)
    np.testing.assert_array_equal(await tc.dot(n, tc.permute_dims(n, (1, 0))).read(), ints @ ints.T)
    np.testing.assert_array_equal(await tc.outer(n, n[0]).read(), np.outer(ints, ints[0]))
    np.testing.assert_array_equal(await tc.vecdot(n, n[:1]).read(), (ints * ints[:1]).sum(-1))
    await agree(device, tc.outer, np.outer, numbers(5), numbers(3, seed=1))
    await agree(device, tc.vecdot, lambda a, b: (a * b).sum(-1), numbers(2, 1, 5), numbers(3, 5, seed=1))
    await agree(
        device, lambda a, b: tc.vecdot(a, b, axis=-2), lambda a, b: (a * b).sum(-2), numbers(4, 3), numbers(4, 1)
    )
    a, b = numbers(2, 3, 4), numbers(4, 3, 5, seed=1)
    choices: tuple[Any, ...] = (((1, 2), (1, 0)), ((2,), (0,)), (-2, 1), ([], []))
    for axes in (0, 1, *choices):
        await agree(device, lambda x, y, axes=axes: tc.tensordot(x, y, axes), lambda x, y, axes=axes: np.tensordot(x, y, axes), a, b)  # fmt: skip # noqa: E501
    (x,) = on(device, a)
    for wrong in (lambda: tc.dot(x, x), lambda: tc.vecdot(x, x, axis=0), lambda: tc.vecdot(x, x[..., :3]),
                  lambda: tc.tensordot(x, x, 4), lambda: tc.tensordot(x, x, ((0,), (1,))),
                  lambda: tc.tensordot(x, x, ((0, -3), (0, 0))), lambda: tc.tensordot(x, x, "ab"),  # type: ignore[arg-type]
                  lambda: tc.tensordot(x, x, (0, 1, 2)), lambda: tc.tensordot(x, x, None),  # type: ignore[arg-type]
                  lambda: tc.vecdot(x, x, axis=-1.0), lambda: tc.sum(x, axis="a")):  # type: ignore[arg-type] # fmt: skip
        refused(device, ShapeMismatch, wrong)


async def linear_of_vectors_and_batches(device: Device) -> None:
    w, b = numbers(5, 8, seed=1), numbers(5, seed=2)
    for shape in ((8,), (2, 3, 8), (2, 1, 3, 8), (0, 3, 8)):
        await agree(device, tc.linear, _linear, numbers(*shape), w, b)


async def linear_activations_fused_and_not(device: Device) -> None:
    await _linear_activations(device, 8)


async def linear_activations_of_an_odd_depth(device: Device) -> None:
    await _linear_activations(device, 7)


async def _linear_activations(device: Device, depth: int) -> None:
    x, w, b = numbers(5, depth), numbers(6, depth, seed=1), numbers(6, seed=2)
    names = ("relu", "gelu", "tanh", "sigmoid")
    for name, biased in combinations(device, names, (True, False), depth):
        function, reference = getattr(tc, name), REFERENCES[name]
        given = [x, w, b] if biased else [x, w]
        await agree(device, lambda *a, f=function: f(tc.linear(*a)), lambda *a, r=reference: r(_linear(*a)), *given)
    for name in names[:1] if compiles_slowly(device) else names:
        function, reference = getattr(tc, name), REFERENCES[name]

        def used_twice(x: Any, w: Any, f: Any = function) -> Any:
            y = tc.linear(x, w)
            return f(y) + y

        await agree(device, used_twice, lambda x, w, r=reference: r(_linear(x, w)) + _linear(x, w), x, w)


async def linear_of_few_rows(device: Device) -> None:
    """A row has the same bits alone and beside others; odd numbers of columns, and depths that lanes share unevenly."""
    for (rows, columns, depth), half in combinations(
        device, FEW[2:5] if compiles_slowly(device) else FEW, (False, True)
    ):
        x, w, b = numbers(rows, depth), numbers(columns, depth, seed=1), numbers(columns, seed=2)
        r = numbers(rows, columns, seed=3)
        w = w.astype(np.float16) if half else w
        await agree(device, lambda x, w, b: tc.relu(tc.linear(x, w, b)), lambda x, w, b: np.maximum(_linear(x, w, b), 0), x, w, b)  # fmt: skip # noqa: E501
        await agree(device, lambda x, w, r: tc.linear(x, w) + r, lambda x, w, r: x @ w.T + r, x, w, r)
        turned = np.ascontiguousarray(w.T)
        await agree(device, lambda x, w, b: tc.nn.functional.gelu(tc.linear(x, tc.permute_dims(w, (1, 0)), b)), lambda x, w, b: REFERENCES["gelu"](x @ w + b), x, turned, b)  # fmt: skip # noqa: E501
        await agree(device, lambda x, w, g, b: tc.linear(tc.layer_norm(x, g, g * 2), tc.permute_dims(w, (1, 0)), b), lambda x, w, g, b: ((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * g + 2 * g) @ w + b, x, turned, numbers(depth, seed=5), b)  # fmt: skip # noqa: E501
        given, weight = on(device, x, w)
        together = await tc.linear(given, weight).read()
        alone = await tc.linear(given[rows - 1 :], weight).read()
        if device.kind == "webgpu":
            np.testing.assert_array_equal(alone, together[rows - 1 :])


async def linear_through_views(device: Device) -> None:
    x, w = numbers(6, 8), numbers(8, 10, seed=1)
    await agree(device, lambda x, w: tc.linear(x[::2, ::-1], tc.permute_dims(w, (1, 0))), lambda x, w: x[::2, ::-1] @ w, x, w)  # fmt: skip # noqa: E501
    await agree(device, lambda x, w: tc.linear(x * 2, tc.permute_dims(w * 2, (1, 0)), w[0] * 2), lambda x, w: 4 * x @ w + 2 * w[0], x, w)  # fmt: skip # noqa: E501


async def linear_of_one_tensor_in_every_place(device: Device) -> None:
    x = numbers(8, 8)
    await agree(device, lambda x: tc.linear(x, x, x[0]), lambda x: x @ x.T + x[0], x)
    await agree(device, lambda x: tc.linear(y := x * 2, y, y[0]) * 2, lambda x: 8 * x @ x.T + 4 * x[0], x)


async def linear_of_many_rows(device: Device) -> None:
    await agree(device, tc.linear, _linear, numbers(1_048_577, 4), numbers(1, 4, seed=1))


async def matmul_sizes(device: Device) -> None:
    for rows, depth, columns in (*SIZES, (1, 8, 20), (1, 4, 4), (18, 12, 68)):
        await agree(device, tc.matmul, np.matmul, numbers(rows, depth), numbers(depth, columns, seed=1))


async def matmul_batches_broadcast(device: Device) -> None:
    leads = [((2,), (2,)), ((2,), ()), ((), (3,)), ((2, 1), (1, 3)), ((2, 3), (3,)), ((2, 1), (3,)), ((0,), (1,))]
    for first, second in leads:
        await agree(device, tc.matmul, np.matmul, numbers(*first, 5, 7), numbers(*second, 7, 3, seed=1))


async def matmul_through_views(device: Device) -> None:
    a, b = numbers(4, 6, 10), numbers(4, 6, 10, seed=1)
    swap = (0, 2, 1)
    await agree(device, lambda x, y: x @ tc.permute_dims(y, swap), lambda x, y: x @ y.transpose(swap), a, b)
    await agree(device, lambda x, y: tc.permute_dims(x, swap) @ y[::-1], lambda x, y: x.transpose(swap) @ y[::-1], a, b)
    await agree(device, lambda x: x @ tc.permute_dims(x, swap), lambda x: x @ x.transpose(swap), a)
    await agree(device, lambda x: (z := x * 2)[:, ::2, ::-1] @ tc.permute_dims(z, swap), lambda x: 4 * x[:, ::2, ::-1] @ x.transpose(swap), a)  # fmt: skip # noqa: E501


async def matmul_of_vectors(device: Device) -> None:
    a, b, batch = numbers(7), numbers(7, 5, seed=1), numbers(3, 5, 7, seed=2)
    for left, right in ((a, a), (a, b), (b.T, a), (batch, a), (b[0], batch)):
        await agree(device, tc.matmul, np.matmul, left, right)


async def linear_residuals_fused_and_not(device: Device) -> None:
    sizes = ((8, 12), (7, 5))
    for (depth, columns), activated in combinations(device, sizes, (False, True)):
        x, w, b = numbers(2, 5, depth), numbers(columns, depth, seed=1), numbers(columns, seed=2)
        r = numbers(2, 5, columns, seed=3)
        if activated:
            await agree(device, lambda x, w, r: r + tc.relu(tc.linear(x, w)), lambda x, w, r: np.maximum(x @ w.T, 0) + r, x, w, r)  # fmt: skip # noqa: E501
        else:
            await agree(device, lambda x, w, b, r: tc.linear(x, w, b) + r, lambda x, w, b, r: _linear(x, w, b) + r, x, w, b, r)  # fmt: skip # noqa: E501
    for depth, columns in sizes[:1] if compiles_slowly(device) else sizes:
        x, w = numbers(2, 5, depth), numbers(columns, depth, seed=1)
        await agree(device, lambda x, w: (y := tc.linear(x, w)) + y, lambda x, w: 2 * x @ w.T, x, w)
    square = numbers(8, 8)
    await agree(device, lambda x: tc.linear(x, x) + x, lambda x: x @ x.T + x, square)
    await agree(device, lambda x: tc.linear(y := x * 2, y) + y, lambda x: 4 * x @ x.T + 2 * x, square)


async def large_products(device: Device) -> None:
    """Sizes for tiles of each kind on hardware, with edges that no tile divides."""
    for rows, depth, columns in ((4, 1543, 6), (16, 1536, 48), (130, 72, 300), (250, 36, 900), (70, 20, 70)):
        x, w, b = numbers(rows, depth), numbers(columns, depth, seed=1), numbers(columns, seed=2)
        await agree(device, tc.linear, _linear, x, w, b)
    await agree(device, tc.matmul, np.matmul, numbers(1000, 20), numbers(20, 908, seed=1))


async def packed_products(device: Device) -> None:
    """Float16 for any operand, with sums in float32."""
    half = [numbers(*shape, seed=i).astype(np.float16) for i, shape in enumerate([(9, 8), (12, 8), (12,), (9, 12)])]
    for single in ([], [0, 2]) if compiles_slowly(device) else ([], [0], [1], [2, 3]):
        x, w, b, r = (a.astype(np.float32) if i in single else a for i, a in enumerate(half))
        tensors = on(device, x, w, b, r)
        result = await (tc.linear(*tensors[:3]) + tc.astype(tensors[3], "float32" if single else "float16")).read()
        assert result.dtype == (np.float32 if single else np.float16)
        near(result.astype(np.float32), _linear(*(np.float64(a) for a in (x, w, b))) + r, 1e-5 if single else 2e-3)
        product = await tc.matmul(tensors[0], tc.permute_dims(tensors[1], (1, 0))[:, ::-1]).read()
        near(product.astype(np.float32), (x.astype(np.float64) @ w.T)[:, ::-1], 2e-3)


async def large_packed_products(device: Device) -> None:
    """Tiles of float16, with edges that no tile divides, every order of axes and every epilogue."""
    for rows, depth, columns in ((130, 72, 136), (70, 40, 72), (33, 8, 44)):
        a, w, b, r = (
            numbers(*shape, seed=i).astype(np.float16)
            for i, shape in enumerate([(rows, depth), (columns, depth), (columns,), (rows, columns)])
        )
        x, weight, bias, residual = on(device, a, w, b, r)
        turned = tc.permute_dims(weight, (1, 0))
        other = tc.permute_dims(tc.asarray(np.ascontiguousarray(a.T), device=device), (1, 0))
        product, added = _linear(np.float64(a), np.float64(w)), np.float64(b)
        results = [
            (tc.linear(x, weight, bias) + residual, product + added + r),
            (tc.gelu(tc.linear(x, weight)), REFERENCES["gelu"](product)),
            (tc.matmul(other, turned), product),
            (tc.matmul(tc.astype(x, "float32"), turned), product),
            (tc.matmul(x, tc.asarray(np.ascontiguousarray(w.T), device=device)), product),
            (tc.matmul(tc.stack([x, x * 2]), turned), np.stack([product, 2 * product])),
            (tc.matmul(other[::-1], turned[:, 8:]), product[::-1, 8:]),
        ]
        if rows == 130:
            results.append((tc.linear(x, x) + tc.matmul(x, tc.permute_dims(x, (1, 0))), 2 * np.float64(a) @ a.T))
        for result, wanted in results:
            near((await result.read()).astype(np.float32), wanted, 2e-3)


async def matmul_of_many_batches(device: Device) -> None:
    await agree(device, tc.matmul, np.matmul, numbers(70_001, 1, 2), numbers(70_001, 2, 1, seed=1))


async def matmul_keeps_nan_and_infinity(device: Device) -> None:
    a = np.array([[1, NAN], [INF, 1], [2, 3]], np.float32)
    b = np.array([[1, 0], [2, 1]], np.float32)
    near(await tc.matmul(*on(device, a, b)).read(), [[NAN, NAN], [INF, NAN], [8, 3]])


async def wrong_shapes_are_refused(device: Device) -> None:
    x, w, b, whole = on(device, numbers(2, 3), numbers(4, 5), numbers(3), np.zeros((2, 3), np.int32))
    refused(device, ShapeMismatch, lambda: tc.linear(x, w))
    refused(device, ShapeMismatch, lambda: tc.linear(x, x, b))
    refused(device, ShapeMismatch, lambda: tc.linear(x, b))
    refused(device, ShapeMismatch, lambda: x @ w)
    refused(device, ShapeMismatch, lambda: x @ x[0, :2])
    refused(device, ShapeMismatch, lambda: tc.matmul(x, x[0, 0]))
    refused(device, UnsupportedDtype, lambda: tc.linear(x, whole))
    refused(device, UnsupportedDtype, lambda: (whole == 0) @ (whole.mT == 0))


async def products_of_a_norm_and_gated_ones(device: Device) -> None:
    """The steps of a decoder's layer: hardware joins what belongs together, with the bits that it has apart."""
    for rows, depth in ((3, 72),) if compiles_slowly(device) else ((1, 64), (3, 576), (8, 72)):
        x, g = numbers(rows, depth), numbers(depth, seed=1)
        weights = [numbers(columns, depth, seed=2) for columns in (130, 64, 64, 96, 96)]
        given = on(device, x, g, *weights)

        def layer(x: Any, g: Any, q: Any, k: Any, v: Any, a: Any, b: Any) -> Any:
            n, m = tc.rms_norm(x, g), tc.rms_norm(x, g * 2)
            gated = tc.nn.functional.silu(tc.linear(m, a)) * tc.linear(m, b)
            return tc.concat([tc.linear(n, q), tc.linear(n, k), tc.linear(n, v), gated], axis=1)

        got = await layer(*given).read()
        x64, g64, q, k, v, a, b = (np.asarray(each, np.float64) for each in (x, g, *weights))
        n = x64 / np.sqrt((x64 * x64).mean(-1, keepdims=True) + 1e-6) * g64
        gate = 2 * n @ a.T
        near(got, np.concatenate([n @ q.T, n @ k.T, n @ v.T, gate / (1 + np.exp(-gate)) * (2 * n @ b.T)], axis=1))
        if device.kind == "webgpu":
            n = await tc.rms_norm(*given[:2]).realize()
            apart = np.concatenate([await tc.linear(n, w).read() for w in given[2:5]], axis=1)
            np.testing.assert_array_equal(got[:, : apart.shape[1]], apart)


async def products_of_one_value_are_one_step(device: Device) -> None:
    """Products of one value run as one step, with the bits of each alone.

    A product of another shape, or without a bias, stays separate.
    """
    backend: Any = device.backend
    with patch.object(backend, "steps_cost", True) if device.kind == "cpu" and joins_alike(device) else nullcontext():
        shapes = ((16, 96, 64, True), (64_000, 4, 16, False))  # one dispatch; too large for one dispatch
        for rows, depth, columns, biased in shapes[: 2 if backend.steps_cost and not compiles_slowly(device) else 1]:
            x, other = on(device, numbers(1, rows, depth), numbers(7, depth))
            weights = on(device, *(numbers(columns, depth, seed=i) for i in range(4)))
            biases = on(device, *(numbers(columns, seed=i) for i in range(4)))
            pairs = list(zip(weights, biases if biased else [None] * 4, strict=True))
            alone = [await tc.relu(tc.linear(x, *pair)).read() for pair in pairs]
            results = [tc.relu(tc.linear(x, *pair)) for pair in pairs]
            small = tc.linear(x, other)
            joined = await (tc.concat(results, axis=1) + tc.sum(small) * 0).realize()
            steps = [step.op.name for step in list(device.programs.values())[-1].planned.plan.steps]
            assert steps.count("linears") == (1 if backend.steps_cost else 0)
            near(await small.read(), numbers(1, rows, depth).astype(np.float64) @ numbers(7, depth).T)
            assert np.array_equal(await joined.read(), np.concatenate(alone, 1))
            assert steps.count("linear") == (2 if backend.steps_cost else 5)
            (second,) = on(device, numbers(5, columns))
            after = [tc.linear(tc.relu(tc.linear(x, *pair)), second) for pair in pairs[:3]]
            await tc.concat(after, axis=1).realize()
            steps = [step.op.name for step in list(device.programs.values())[-1].planned.plan.steps]
            assert "copy" not in steps, steps  # a part is read in place

            def seen(x: Any, pairs: Any = pairs, shape: tuple[int, int] = (columns, rows)) -> Any:
                made = [tc.relu(tc.linear(x, *pair)) for pair in pairs[:3]]  # one kernel for all of this case
                return tc.reshape(made[0], shape), tc.permute_dims(made[1], (2, 0, 1)), made[2] * 2

            flat, turned, double = await tc.compile(seen)(x)  # parts as outputs, in other shapes
            assert np.array_equal(await flat.read(), alone[0].reshape(columns, rows))
            assert np.array_equal(await turned.read(), alone[1].transpose(2, 0, 1))
            assert np.array_equal(await double.read(), 2 * alone[2])
