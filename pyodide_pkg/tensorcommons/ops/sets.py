"""Unique elements. Their number is the shape of a result, so the values are read, and NumPy finds them on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..tensor import Tensor, TensorLike, as_tensor, asarray
from .reading import values_of


class UniqueAll(NamedTuple):
    """Result of :func:`unique_all`."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """Result of :func:`unique_counts`."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """Result of :func:`unique_inverse`."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: TensorLike) -> UniqueAll:
    """Return the unique elements of the flattened ``x``, sorted, with positions and counts (int32).

    ``values`` (n,); ``indices`` (n,), where each occurs first; ``inverse_indices`` with the shape of ``x``, so that
    ``values[inverse_indices]`` equals ``x``; ``counts`` (n,). Each NaN is an element of its own; 0 and -0 are equal.
    The values are read, and the results are on the device of ``x``.

    Raises:
        ReadRequired: the device is asynchronous, and the running Python cannot be suspended.

    >>> found = tc.unique_all([3, 1, 3])
    >>> print(found.values.numpy(), found.indices.numpy(), found.inverse_indices.numpy(), found.counts.numpy())
    [1 3] [1 0] [1 0 1] [1 2]
    """
    tensor = as_tensor(x)
    found = np.unique(
        values_of(tensor, "unique_all()", "np.unique(await x.read())"),
        return_index=True, return_inverse=True, return_counts=True, equal_nan=False,
    )  # fmt: skip
    values, *numbers = (np.asarray(each) for each in found)
    numbers[1] = numbers[1].reshape(tensor.shape)
    ids = (asarray(each.astype(np.int32), device=tensor.own_device) for each in numbers)
    return UniqueAll(asarray(values, dtype=tensor.dtype, device=tensor.own_device), *ids)


def unique_counts(x: TensorLike) -> UniqueCounts:
    """Return the unique elements of ``x``, sorted, and how often each occurs; see :func:`unique_all`.

    >>> values, counts = tc.unique_counts([3, 1, 3])
    >>> print(counts.numpy())
    [1 2]
    """
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: TensorLike) -> UniqueInverse:
    """Return the unique elements of ``x``, sorted, and the position of each element among them.

    See :func:`unique_all`.

    >>> values, inverse = tc.unique_inverse([3, 1, 3])
    >>> print(inverse.numpy())
    [1 0 1]
    """
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: TensorLike) -> Tensor:
    """Return the unique elements of ``x``, sorted, as a tensor of one axis; see :func:`unique_all`.

    >>> print(tc.unique_values([3, 1, 3]).numpy())
    [1 3]
    """
    tensor = as_tensor(x)
    values = np.unique(values_of(tensor, "unique_values()", "np.unique(await x.read())"), equal_nan=False)
    return asarray(values, dtype=tensor.dtype, device=tensor.own_device)
