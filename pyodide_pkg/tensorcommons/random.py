"""Random tensors: the same numbers on every device, from the generator that samples tokens, too.

Numbers are drawn on the host by NumPy's Philox 4x64-10 (Salmon et al., 2011,
https://www.thesalmons.org/john/random123/papers/random123sc11.pdf) and uploaded. The key is
``np.random.SeedSequence(seed).generate_state(2, np.uint64)``, and the counter the number of blocks of four words that
were drawn before. So a program can be repeated, and its numbers computed without this package.

Within a function that :func:`tensorcommons.compile` traces, numbers are drawn once, with the trace: pass them as
arguments.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import dtypes
from .backends.base import Spec
from .backends.current import default_device, device_of
from .backends.device import Device
from .dtypes import DType
from .errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from .ops import take
from .ops.registry import check_size
from .shapes import Shape, normalize_axis, size_of
from .tensor import Tensor, TensorLike, as_tensor, asarray

__all__ = ["Generator", "choice", "normal", "permutation", "randint", "seed", "uniform"]

WORDS = 4  # of 64 bits, in a block of the counter
Where = Device | str | None
Size = int | Sequence[int]


class Generator:
    """A sequence of random numbers that ``seed`` (an int from 0; ``None``: from the operating system) determines.

    >>> generator = tc.random.Generator(seed=7)
    >>> first = generator.uniform(3)
    >>> again = tc.random.Generator(seed=7).uniform(3)
    >>> bool((first.numpy() == again.numpy()).all())
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (not isinstance(seed, (int, np.integer)) or seed < 0):
            raise TensorCommonsError(f"a seed must be an int from 0, not {quoted(seed)}")
        self._key = np.random.SeedSequence(None if seed is None else int(seed)).generate_state(2, np.uint64)
        self._block = 0

    def _words(self, count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Draw ``count`` words, and move the counter past their blocks."""
        counter = [self._block & 0xFFFFFFFFFFFFFFFF, self._block >> 64, 0, 0]
        self._block += -(-count // WORDS)
        words: np.ndarray[Any, np.dtype[np.uint64]] = np.random.Philox(key=self._key, counter=counter).random_raw(count)
        return words

    def _fractions(self, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Draw multiples of 2**-53 from 0 to below 1."""
        return (self._words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def uniform(
        self, shape: Size = (), low: float = 0.0, high: float = 1.0, *, dtype: object = "float32", device: Where = None
    ) -> Tensor:
        """Draw numbers from ``low`` to below ``high``, all equally likely: 24 random bits, 11 for float16.

        Raises:
            MemoryBudgetError: more than 2**29 numbers are asked for.
            ShapeMismatch: a size is negative.
            TensorCommonsError: ``low`` exceeds ``high``, or one of them is not finite.
            UnsupportedDtype: ``dtype`` is not of floats.

        >>> tc.random.Generator(0).uniform((2, 3), -1, 1).shape
        (2, 3)
        """
        sizes, kind = _shape(shape), _float(dtype, "uniform")
        if not -math.inf < low <= high < math.inf:
            raise TensorCommonsError(f"uniform: low and high must be finite and in order, not {low} and {high}")
        bits = {2: 11, 4: 24}.get(kind.itemsize, 53)
        fractions = (self._words(size_of(sizes)) >> np.uint64(64 - bits)).astype(np.float64) * 2.0**-bits
        values = (low + fractions * (high - low)).astype(kind.numpy)
        if low < high:  # rounding may reach the end
            values = np.minimum(values, np.nextafter(kind.numpy.type(high), kind.numpy.type(low)))
        return _made(values, sizes, kind, device)

    def normal(
        self, shape: Size = (), mean: float = 0.0, std: float = 1.0, *, dtype: object = "float32", device: Where = None
    ) -> Tensor:
        """Draw from the normal distribution with that mean and standard deviation (Box and Muller, 1958, in float64).

        Raises:
            MemoryBudgetError: more than 2**29 numbers are asked for.
            ShapeMismatch: a size is negative.
            TensorCommonsError: ``std`` is negative.
            UnsupportedDtype: ``dtype`` is not of floats.

        >>> tc.random.Generator(0).normal(4, dtype="float16").dtype
        tensorcommons.dtypes.float16
        """
        sizes, kind = _shape(shape), _float(dtype, "normal")
        if not std >= 0:
            raise TensorCommonsError(f"normal: std must not be negative, not {std}")
        count = size_of(sizes)
        pairs = -(-count // 2)
        fractions = self._fractions(2 * pairs).reshape(2, pairs)
        radius, angle = np.sqrt(-2 * np.log1p(-fractions[0])), 2 * np.pi * fractions[1]
        values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return _made((mean + std * values).astype(kind.numpy), sizes, kind, device)

    def randint(
        self, low: int, high: int, shape: Size = (), *, dtype: object = "int32", device: Where = None
    ) -> Tensor:
        """Draw ints from ``low`` to below ``high``, all equally likely to within a part in 2**32.

        Raises:
            MemoryBudgetError: more than 2**29 numbers are asked for.
            ShapeMismatch: a size is negative.
            TensorCommonsError: ``low`` is not below ``high``, or there are more than 2**32 ints between them.
            UnsupportedDtype: ``dtype`` is not of ints, or cannot represent them.

        >>> sorted(set(tc.random.Generator(0).randint(1, 7, 100).numpy().tolist()))
        [1, 2, 3, 4, 5, 6]
        """
        sizes, kind = _shape(shape), dtypes.as_dtype(dtype)
        if kind.kind not in ("int", "uint"):
            raise UnsupportedDtype(f"randint makes ints, not {kind}")
        if not all(isinstance(end, (int, np.integer)) for end in (low, high)):
            raise UnsupportedDtype(f"randint: low and high must be ints, not {quoted(low)} and {quoted(high)}")
        low, high = int(low), int(high)
        if not 0 < high - low <= 2**32:
            raise TensorCommonsError(f"randint: high must exceed low, by at most 2**32, not {low} to {high}")
        limits = np.iinfo(kind.numpy)
        if low < limits.min or high - 1 > limits.max:
            raise UnsupportedDtype(f"{low} to {high - 1} is outside {kind}; pass a wider dtype")
        values = low + self._below(high - low, size_of(sizes))
        return _made(values.astype(kind.numpy), sizes, kind, device)

    def _below(self, count: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Draw ``size`` ints from 0 to below ``count``, at most 2**32: the upper part of a product of 96 bits."""
        words, wide, half = self._words(size), np.uint64(count), np.uint64(32)
        carried = (words & np.uint64(0xFFFFFFFF)) * wide >> half
        return (((words >> half) * wide + carried) >> half).astype(np.int64)

    def permutation(self, x: int | TensorLike, axis: int = 0, *, device: Where = None) -> Tensor:
        """Return the ints from 0 to below ``x`` (int32) in random order, or the tensor ``x`` with ``axis`` shuffled.

        Every order is equally likely. ``device`` is for ints; a tensor stays where it is.

        Raises:
            ShapeMismatch: ``x`` is negative, or a tensor without that axis.

        >>> sorted(tc.random.Generator(0).permutation(5).numpy().tolist())
        [0, 1, 2, 3, 4]
        """
        if isinstance(x, (int, np.integer)):
            (count,) = _shape(int(x))
            return _made(self._order(count), (count,), dtypes.int32, device)
        tensor = as_tensor(x)
        place = normalize_axis(axis, tensor.ndim)
        return take(tensor, self._order(tensor.shape[place]), axis=place)

    def _order(self, count: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the positions that sort as many words: two equal words of 64 bits are as rare as 2**-64."""
        return np.argsort(self._words(count), kind="stable").astype(np.int32)

    def choice(
        self,
        x: int | TensorLike,
        shape: Size = (),
        replace: bool = True,
        p: Any = None,
        *,
        device: Where = None,
    ) -> Tensor:
        """Choose from the ints from 0 to below ``x`` (int32), or from the elements along the first axis of a tensor.

        ``p`` are the probabilities of all, an array on the host; all are equally likely by default. Without ``replace``
        each is chosen at most once, in random order, as if one after another was taken away.

        Raises:
            ShapeMismatch: a size is negative, ``x`` has no elements or no axis, ``p`` has not one number for each, or
                ``shape`` needs more elements than there are without ``replace``.
            TensorCommonsError: a probability is negative or NaN, or they do not sum to 1.
            UnsupportedDtype: ``x`` exceeds 2**31.

        >>> tc.random.Generator(0).choice([10, 20, 30], 3, replace=False).shape
        (3,)
        """
        sizes = _shape(shape)
        tensor = None if isinstance(x, (int, np.integer)) else as_tensor(x)
        if tensor is not None and not tensor.ndim:
            raise ShapeMismatch("choice takes an int, or a tensor with axes")
        count, size = (int(x) if tensor is None else tensor.shape[0]), size_of(sizes)  # type: ignore[arg-type]
        if count > 2**31:
            raise UnsupportedDtype(f"choice: the ints below {count} are outside int32")
        weights = None if p is None else _probabilities(p, count)
        possible = count if weights is None else int(np.count_nonzero(weights))
        if size and (possible < 1 or (not replace and size > possible)):
            raise ShapeMismatch(f"choice: {size} elements cannot be chosen from {max(possible, 0)}")
        if not replace:
            _shape(count)  # all are drawn
            ids = self._order(count)[:size] if weights is None else self._race(weights)[:size]
        elif weights is None:
            ids = self._below(max(count, 1), size).astype(np.int32)
        else:
            steps = np.cumsum(weights)
            ids = np.searchsorted(steps / steps[-1], self._fractions(size), side="right").astype(np.int32)
        if tensor is None:
            return _made(ids.astype(np.int32), sizes, dtypes.int32, device)
        return take(tensor, ids.astype(np.int32).reshape(sizes), axis=0)

    def _race(self, weights: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the order in which elements win a race of exponential times (Efraimidis and Spirakis, 2006)."""
        with np.errstate(divide="ignore"):
            times = -np.log1p(-self._fractions(len(weights))) / weights
        return np.argsort(np.where(weights > 0, times, np.inf), kind="stable")


def _shape(shape: Size) -> Shape:
    sizes = tuple(map(operator.index, shape if isinstance(shape, Sequence) else (shape,)))
    if any(size < 0 for size in sizes):
        raise ShapeMismatch(f"a size must not be negative: {quoted(shape)}")
    check_size("random", Spec(sizes, dtypes.float64))  # the host draws as many words of 64 bits
    return sizes


def _float(dtype: object, what: str) -> DType:
    kind = dtypes.as_dtype(dtype)
    if kind.kind != "float":
        raise UnsupportedDtype(f"{what} makes floats, not {kind}")
    return kind


def _probabilities(p: Any, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(p, Tensor):
        raise TensorCommonsError("choice: p must be on the host: use await p.read()")
    weights = np.asarray(p, np.float64)
    if weights.shape != (count,):
        raise ShapeMismatch(f"choice: p must have {count} numbers, not the shape {weights.shape}")
    if not (weights >= 0).all() or abs(weights.sum() - 1) > 1e-5:
        raise TensorCommonsError(f"choice: p must not be negative, and must sum to 1, not to {weights.sum()}")
    return weights


def _made(values: np.ndarray[Any, Any], shape: Shape, dtype: DType, device: Where) -> Tensor:
    place = default_device() if device is None else device_of(device)
    return asarray(values.reshape(shape), dtype=dtype, device=place)


_shared: Generator | None = None  # made when it is needed: pages start from a snapshot of memory after the imports


def _generator() -> Generator:
    global _shared
    _shared = _shared or Generator()
    return _shared


def seed(value: int | None = None) -> None:
    """Begin the numbers of the functions of this module again, from ``value``: see :class:`Generator`.

    >>> tc.random.seed(3)
    >>> first = tc.random.randint(0, 100).numpy()
    >>> tc.random.seed(3)
    >>> bool(tc.random.randint(0, 100).numpy() == first)
    True
    """
    global _shared
    _shared = Generator(value)


def uniform(
    shape: Size = (), low: float = 0.0, high: float = 1.0, *, dtype: object = "float32", device: Where = None
) -> Tensor:
    """Draw numbers from ``low`` to below ``high``: :meth:`Generator.uniform` of the shared generator.

    >>> tc.random.uniform((2, 3)).shape
    (2, 3)
    """
    return _generator().uniform(shape, low, high, dtype=dtype, device=device)


def normal(
    shape: Size = (), mean: float = 0.0, std: float = 1.0, *, dtype: object = "float32", device: Where = None
) -> Tensor:
    """Draw from a normal distribution: :meth:`Generator.normal` of the shared generator.

    >>> tc.random.normal((2, 3)).shape
    (2, 3)
    """
    return _generator().normal(shape, mean, std, dtype=dtype, device=device)


def randint(low: int, high: int, shape: Size = (), *, dtype: object = "int32", device: Where = None) -> Tensor:
    """Draw ints from ``low`` to below ``high``: :meth:`Generator.randint` of the shared generator.

    >>> tc.random.randint(0, 10, (2, 3)).shape
    (2, 3)
    """
    return _generator().randint(low, high, shape, dtype=dtype, device=device)


def permutation(x: int | TensorLike, axis: int = 0, *, device: Where = None) -> Tensor:
    """Return ints or the elements of a tensor in random order: :meth:`Generator.permutation` of the shared generator.

    >>> sorted(tc.random.permutation(3).numpy().tolist())
    [0, 1, 2]
    """
    return _generator().permutation(x, axis, device=device)


def choice(
    x: int | TensorLike, shape: Size = (), replace: bool = True, p: Any = None, *, device: Where = None
) -> Tensor:
    """Choose ints or elements of a tensor: :meth:`Generator.choice` of the shared generator.

    >>> tc.random.choice(10, (2, 3)).shape
    (2, 3)
    """
    return _generator().choice(x, shape, replace, p, device=device)
