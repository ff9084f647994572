"""The arguments of a run: the arrays of all its requests, each once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..graph.reuse import ReusePoint

HASHED_BYTES = 16 * 2**20  # of inputs; more would take longer to hash than it is worth


class Arguments:
    """The arrays of one run by the names that its graph has for them: equal arrays have one name."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._bytes: dict[str, memoryview | bytes] = {}

    def bound(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, str]:
        """Return the graph's names of a request's ``arrays``, by the request's names of them."""
        return {name: self._bind(name, array) for name, array in arrays.items()}

    def _bind(self, name: str, array: np.ndarray[Any, Any]) -> str:
        raw = None
        for known, other in self.arrays.items():
            if other is array:
                return known
            if array.shape == other.shape and array.dtype == other.dtype:
                raw = _bytes(array) if raw is None else raw
                if known not in self._bytes:
                    self._bytes[known] = _bytes(other)
                if raw == self._bytes[known]:
                    return known
        free, number = name, 2
        while free in self.arrays:
            free, number = f"{name} {number}", number + 1
        self.arrays[free] = array
        if raw is not None:
            self._bytes[free] = raw
        return free

    def keys_of(self, cuts: Sequence[ReusePoint]) -> dict[ReusePoint, str]:
        """Return the key of each reuse point for these inputs; none if they are so large that hashing would cost too
        much.
        """
        names = {name for cut in cuts for name in cut.arguments}
        if sum(self.arrays[name].nbytes for name in names) > HASHED_BYTES:
            return {}
        digests = {name: hashlib.sha256(np.ascontiguousarray(self.arrays[name])).digest() for name in names}
        return {cut: cut.key(digests) for cut in cuts}


def _bytes(array: np.ndarray[Any, Any]) -> memoryview | bytes:
    """Return the bytes for a comparison, which takes a tenth of NumPy's time for short arrays."""
    return memoryview(array).cast("B") if array.size and array.flags.c_contiguous else array.tobytes()
