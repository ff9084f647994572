"""Elementwise functions over all of float32: every exponent, both signs, zeros, infinities and NaN.

Subnormal numbers are tried on the CPU device alone: WebGPU may flush them to 0, and LiteRT does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.samples.elementwise import erf, erfc
from tests.cases.support import INF, NAN, on

SMALLEST = 2.0**-120  # smaller intermediate values may be 0 on devices
TURNS = 10_000.0  # bound of the arguments for which sin, cos and tan are accurate


def _acosh(x: Any) -> Any:
    """musl's, in a page, is not NaN below -4096."""
    return np.where(x < 1, NAN, np.arccosh(np.maximum(x, 1)))


UNARY: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "sinh", "cosh")},
    **{name: getattr(np, name) for name in ("tanh", "sin", "cos", "tan", "abs", "negative", "sign", "square")},
    **{name: getattr(np, name) for name in ("ceil", "floor", "trunc", "round")},
    "asinh": np.arcsinh,
    "acosh": _acosh,
    "atanh": np.arctanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "erf": erf,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "gelu": lambda x: np.where(x == INF, INF, 0.5 * x * erfc(-x * np.sqrt(0.5))),
}
BINARY: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum")},
    "atan2": np.arctan2,
    "pow": np.power,
}
EXACT: dict[str, Any] = {"floor_divide": np.floor_divide, "remainder": np.remainder}  # in float32
#: Devices that need not keep the sign of a zero.
SIGN_OF_ZERO_LOST = {"webgpu"}


def values(kind: str) -> Any:
    """Return numbers of every exponent with five mantissas, and the special values."""
    mantissas = np.array([1.0, 1.5, 2 - 2.0**-23, 1.1234567, 1.87654321])
    sizes = (2.0 ** np.arange(-126 if kind == "cpu" else -119, 128)[:, None] * mantissas).ravel()
    tiny = 2.0 ** np.arange(-149, -126 if kind == "cpu" else -149)
    special = [0.0, INF, np.pi, np.pi / 2, 0.5, 3.0, 5.0, 88.7, 89.1, 1e4]
    sizes = np.concatenate([sizes, tiny, special])
    return np.concatenate([sizes, -sizes, [NAN]]).astype(np.float32)


def _same(name: str, got: Any, wanted: Any, kind: str, counts: Any, *operands: Any) -> None:
    """Compare within 4e-6, accepting both sides of an overflow or underflow; NaN and infinities as in NumPy."""
    with np.errstate(all="ignore"):
        rounded, y = np.asarray(wanted).astype(np.float32).astype(np.float64), got.astype(np.float64)
        tiny = (np.abs(rounded) < SMALLEST) & (np.abs(y) < SMALLEST)
        huge = (np.abs(wanted) > 3.3e38) & (np.abs(y) > 3.3e38) & (np.sign(y) == np.sign(wanted))
        close = np.abs(y - rounded) <= 4e-6 * np.abs(rounded) + (1e-6 if name == "gelu" else 0)
    fine = (np.isnan(y) & np.isnan(rounded)) | (y == rounded) | tiny | huge | close
    wrong = ~fine & counts
    shown = [tuple(float(a[i]) for a in (*operands, got, rounded)) for i in np.flatnonzero(wrong)[:5]]
    assert not wrong.any(), f"{name}: {wrong.sum()} wrong, as {shown} (operands, result, expected)"
    if kind not in SIGN_OF_ZERO_LOST and name != "gelu":
        lost = (got == 0) & (np.asarray(wanted) == 0) & (np.signbit(got) != np.signbit(wanted)) & counts
        assert not lost.any(), f"{name}: {lost.sum()} zeros of the other sign, as {operands[0][lost][:5]}"


async def functions_of_one_number(device: Device) -> None:
    a = values(device.kind)
    (x,) = on(device, a)
    results = await tc.read_together([getattr(tc, name)(x) for name in UNARY])
    for (name, numpys), got in zip(UNARY.items(), results, strict=True):
        with np.errstate(all="ignore"):
            wanted = numpys(a.astype(np.float64))
        counts = np.full(a.shape, True)
        if name in ("sin", "cos", "tan") and device.kind != "cpu":
            counts = ~(np.abs(a) > TURNS) | ~np.isfinite(a)
        if name == "gelu":
            counts &= a != -INF
        _same(name, got, wanted, device.kind, counts, a)


async def functions_of_two_numbers(device: Device) -> None:
    rng = np.random.default_rng(0)
    a = np.tile(values(device.kind), 4)
    with np.errstate(all="ignore"):
        b = np.where(rng.random(a.size) < 0.5, rng.permutation(a), a * np.exp2(rng.uniform(-24, 24, a.size)))
        b = b.astype(np.float32)
    usual = (np.abs(b) >= SMALLEST) | (b == 0) | np.isnan(b) if device.kind != "cpu" else np.full(a.shape, True)
    a, b = a[usual], b[usual]
    x, y = on(device, a, b)
    results = await tc.read_together([getattr(tc, name)(x, y) for name in (*BINARY, *EXACT)])
    with np.errstate(all="ignore"):
        few = (np.abs(a.astype(np.float64) / b) < 2.0**22) & (np.abs(b) > 2.0**-80)  # if its parts are not subnormal
        wanted = [numpys(a.astype(np.float64), b.astype(np.float64)) for numpys in BINARY.values()]
        wanted += [numpys(a, b) for numpys in EXACT.values()]
    for name, got, want in zip((*BINARY, *EXACT), results, wanted, strict=True):
        counts = few if name in EXACT and device.kind == "webgpu" else np.full(a.shape, True)
        _same(name, got, want, device.kind, counts, a, b)
