"""Text inputs: token ids, checked, completed and padded to a length from a short list.

Lengths are padded to buckets, so that a text with one more word needs no compilation; the outputs are trimmed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..dtypes import host_array
from ..errors import ShapeMismatch, TensorCommonsError
from ..shapes import Shape
from .architecture import Arrays, Prepared

# Padding to these lengths costs at most a third of the time without padding, as measured by bench/buckets.py: 8 tokens
# take as long as 16, 24 as long as 32, and 48 longer than 64 if WebNN uses two cores.
BUCKETS = (16, 32, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512)
FIRST_LENGTH = 16  # tokens of a short text
FEW = 256  # ids that are compared one by one
REPEATED = 4096  # bytes of a mask that is looked up among those of earlier calls, most of which were equal


@dataclass(frozen=True)
class TextInputs:
    """The inputs ``input_ids``, ``attention_mask`` and, if ``type_vocab_size`` is not 0, ``token_type_ids``.

    ``per_token`` names the outputs with a sequence axis (axis 1). With ``padding_id`` the forward also gets
    ``position_ids``, which number the tokens other than ``padding_id`` from ``padding_id + 1`` (as in RoBERTa). With
    ``pools_apart`` there is also ``pooling_mask``, the tokens to pool, by default those of ``attention_mask``.
    """

    vocab_size: int
    max_length: int
    type_vocab_size: int = 0
    per_token: frozenset[str] = frozenset()
    padding_id: int | None = None
    pools_apart: bool = False

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that a call may pass."""
        types = ("token_type_ids",) if self.type_vocab_size else ()
        return ("input_ids", "attention_mask", *types, *(("pooling_mask",) if self.pools_apart else ()))

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """Convert the inputs to int32 (batch, bucket). A missing or None mask is filled with ones, types with zeros."""
        inputs = {name: value for name, value in inputs.items() if value is not None}
        if "input_ids" not in inputs:
            raise TensorCommonsError(f"the input input_ids of {model} is missing; inputs: {', '.join(self.names)}")
        ids = checked_ids(inputs["input_ids"], self.vocab_size)
        length = ids.shape[1]
        if length > self.max_length:
            raise ShapeMismatch(
                f"{length} tokens exceed the maximum of {self.max_length} of {model}: truncate the text"
            )
        named = {"input_ids": ids, **{name: host_array(inputs[name]) for name in self.names if name in inputs}}
        if {array.shape for array in named.values()} != {ids.shape}:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in named.items())
            raise ShapeMismatch(f"{shapes}: all inputs must have one shape")
        mask = named.get("attention_mask")
        if mask is not None and mask.dtype.kind == "f" and np.isin(mask, (0, 1)).all():
            named["attention_mask"] = mask.astype(np.int32)
        if self.pools_apart and "attention_mask" in named:
            named.setdefault("pooling_mask", named["attention_mask"])
        shape = (ids.shape[0], min(bucket_of(length), self.max_length))
        types = ("token_type_ids", self.type_vocab_size, "iu")
        ready: Arrays = {}
        for name, size, kinds in (("attention_mask", 2, "biu"), ("pooling_mask", 2, "biu"), types):
            array = named.get(name)
            if array is not None:
                checked = _checked(array, size, shape) if array.dtype.kind in kinds else None
                if checked is None:
                    raise TensorCommonsError(f"{name} must be integers from 0 to {size - 1}, not {_shown(array)}")
                ready[name] = checked
        if self.padding_id is not None:
            counts = ids != self.padding_id
            named["position_ids"] = counts.cumsum(1) * counts + self.padding_id
        for name in self.names:
            if name not in named:
                ready[name] = _left_out(name, ids.shape, shape)
        arrays: Arrays = {
            name: ready[name] if name in ready else padded(named[name], shape)
            for name in dict.fromkeys((*self.names, *named))
        }
        cut = (slice(None), slice(0, length))
        return Prepared(arrays, dict.fromkeys(self.per_token, cut) if shape[1] > length else {})

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Create ids of ``shape`` (batch, sequence): the last token of the vocabulary, unlike all other inputs."""
        return {"input_ids": np.full(first_shape(self.max_length) if shape is None else shape, self.vocab_size - 1)}


def checked_ids(given: Any, vocab_size: int) -> np.ndarray[Any, Any]:
    """Return ``input_ids`` as an array (batch, sequence) of integers.

    Raises ShapeMismatch for another shape or dtype, TensorCommonsError for a token outside the vocabulary.
    """
    ids = host_array(given)
    if ids.ndim != 2 or 0 in ids.shape or ids.dtype.kind not in "iu":
        raise ShapeMismatch(f"input_ids must be integers (batch, sequence), not {ids.dtype} {ids.shape}")
    if not _all_below(ids, vocab_size):
        raise TensorCommonsError(
            f"input_ids from {ids.min()} to {ids.max()} are not all inside the vocabulary of {vocab_size}"
        )
    return ids


def first_shape(longest: int) -> Shape:
    """Return the (batch, sequence) of a pair of short texts in a model of at most ``longest`` tokens."""
    return 2, min(FIRST_LENGTH, longest)


def bucket_of(length: int) -> int:
    """Return the length to which ``length`` tokens are padded; above the last bucket, ``length`` itself."""
    place = bisect_left(BUCKETS, length)
    return BUCKETS[place] if place < len(BUCKETS) else length


def _shown(array: np.ndarray[Any, Any]) -> str:
    return f"{array.dtype} {np.array2string(array.reshape(-1)[:4], separator=', ')}"[:80]


def _all_below(ids: np.ndarray[Any, Any], size: int) -> bool:
    """Return whether all ids are from 0 to ``size - 1``, in one pass: as unsigned, a negative number is large.

    For few ids Python's own functions take a tenth of the time that NumPy takes in WebAssembly to begin.
    """
    if ids.size <= FEW:
        listed = ids.ravel().tolist()
        return not listed or (min(listed) >= 0 and max(listed) < size)
    if ids.dtype.kind == "i":
        ids = ids.view(f"u{ids.dtype.itemsize}")
    return bool(np.maximum.reduce(ids, axis=None) < size)  # faster than ids.max()


def _checked(array: np.ndarray[Any, Any], size: int, shape: Shape) -> np.ndarray[Any, Any] | None:
    """Return ``array`` padded to ``shape``; None if an element is not from 0 to ``size - 1``."""
    if array.nbytes <= REPEATED:
        return _repeated(array.tobytes(), array.dtype, array.shape, size, shape)
    return padded(array, shape) if _all_below(array, size) else None


@lru_cache(64)
def _repeated(data: bytes, dtype: np.dtype[Any], given: Shape, size: int, shape: Shape) -> np.ndarray[Any, Any] | None:
    """Do as :func:`_checked` for an array of these bytes."""
    array = np.frombuffer(data, dtype).reshape(given)
    if not _all_below(array, size):
        return None
    array = padded(array, shape)
    array.flags.writeable = False  # it is cached
    return array


@lru_cache(64)
def _left_out(name: str, given: Shape, shape: Shape) -> np.ndarray[Any, Any]:
    """Return the default of the input ``name``: ones for a mask, zeros for types."""
    array = padded(np.full(given, int(name.endswith("_mask"))), shape)
    array.flags.writeable = False  # it is cached
    return array


def padded(array: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, Any]:
    """Convert ``array`` to int32 and append zeros to its columns."""
    result = np.zeros(shape, np.int32)
    result[:, : array.shape[1]] = array
    return result
