"""Comparison of a device with NumPy in float64."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice, product
from typing import Any, TypeVar, cast

import numpy as np

import tensorcommons as tc
from tensorcommons import Device

NAN, INF = float("nan"), float("inf")
A = TypeVar("A")
B = TypeVar("B")
NO_SHAPES: tuple[Any, ...] = ((1.5, 2), (-1, 3), "ab", None, ((1, 2),), (1, 2, 3))  # for a batch of texts


def largest_buffer(device: Device) -> int:
    """Return the bytes of the largest buffer that a WebGPU adapter allows in a kernel; copies may allow more."""
    limits = cast(Any, device.backend).bridge.proxy.device.limits  # device.limits are those that the package observes
    return min(int(limits.maxBufferSize), int(limits.maxStorageBufferBindingSize))


def joins_alike(device: Device) -> bool:
    """Return whether joined products have the bits of single ones, by means of the device or by NumPy throughout.

    WebAssembly's kernels compute single products, and the device never joins them: NumPy would.
    """
    return device.kind != "cpu" or any("no kernels" in each for each in device.backend.features)


def compiles_slowly(device: Device) -> bool:
    """True on a software adapter that runs the kernels for hardware, each of which it compiles in a second or more."""
    backend: Any = device.backend
    return device.kind == "webgpu" and device.is_software and not backend.adapter.fallback


def combinations(device: Device, first: Sequence[A], second: Sequence[B], turn: int = 0) -> list[tuple[A, B]]:
    """All combinations of two choices; if each compiles slowly, each of ``first`` once, with ``second`` in turn.

    Callers with a third choice give its number as ``turn``, so that every pair of choices occurs.
    """
    if compiles_slowly(device):
        return list(zip(first, islice(cycle(second), turn, None), strict=False))
    return list(product(first, second))


def numbers(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray[Any, Any]:
    """Return float32 numbers without a pattern that would hide a wrong stride."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(np.float32)


def on(device: Device, *arrays: Any) -> Any:
    """Convert the arrays to a list of tensors."""
    return [tc.asarray(array, device=device) for array in arrays]


def near(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Assert the shape, NaN and infinities as in float32, and the rest within ``tolerance`` of the expected norm."""
    assert actual.shape == np.shape(expected), f"shape {actual.shape}, expected {np.shape(expected)}"
    with np.errstate(over="ignore"):
        wanted = np.asarray(expected, np.float64).astype(np.float32).astype(np.float64)
    got = np.asarray(actual, np.float64)
    odd = ~np.isfinite(wanted)
    np.testing.assert_array_equal(got[odd], wanted[odd])
    assert np.isfinite(got[~odd]).all(), f"not finite where it should be: {got} instead of {wanted}"
    error = float(np.linalg.norm(got[~odd] - wanted[~odd]))
    norm = float(np.linalg.norm(wanted[~odd]))
    assert error <= tolerance * norm, f"relative error {error / max(norm, 1e-300):.2e} over {tolerance:.0e}"


async def agree(
    device: Device, function: Callable[..., Any], reference: Callable[..., Any], *arrays: Any, tolerance: float = 1e-5
) -> None:
    """Assert that ``function`` of the arrays on ``device`` agrees with ``reference`` in float64."""
    result = await function(*on(device, *arrays)).read()
    assert result.dtype == np.float32
    with np.errstate(all="ignore"):
        near(result, reference(*(np.asarray(array, np.float64) for array in arrays)), tolerance)


async def raises(error: type[Exception], work: Awaitable[Any], *words: str) -> Any:
    """Assert that awaiting ``work`` raises ``error`` with ``words`` in its message. Gives the exception."""
    try:
        await work
    except tc.errors.TensorCommonsError as complaint:
        text = str(complaint)
        if not isinstance(complaint, error) or not all(word in text for word in words):
            raise AssertionError(f"not {error.__name__} with {words}: {complaint!r}") from complaint
        return complaint.with_traceback(None)  # its frames refer to tensors
    raise AssertionError(f"no {error.__name__} was raised")


def refused(device: Device, error: type[Exception], function: Callable[[], Any]) -> Exception:
    """Assert that ``function`` raises ``error``, of the package, and allocates nothing."""
    before = device.total, device.backend.live_buffers()
    caught = None
    try:
        function()
    except tc.errors.TensorCommonsError as complaint:
        caught = complaint.with_traceback(None)  # its frames refer to tensors, until they are collected
    assert type(caught) is error, f"{caught!r} instead of {error.__name__}"
    assert len(str(caught)) > 10
    assert (device.total, device.backend.live_buffers()) == before, "a refused op allocated memory"
    return caught


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """Record the warnings of the logger ``name`` within the block."""
    heard: list[str] = []
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger(name)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
