"""The contract of decoders: keys and values of earlier tokens, and the attention mask.

A decoder's layers are written once. In a plain forward, a layer attends to the keys that it has just computed. In
generation, the keys and values of earlier tokens are in pools on the device, to which new ones are appended.

The keys and values of a layer are in a pool of pages, each of ``PAGE`` tokens. A row of a batch is a text that has
pages of its own, and others in common with texts that begin alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from .. import dtypes
from ..backends.base import Spec
from ..backends.select import MATRICES, ROW
from ..dtypes import DType
from ..nn import Weights
from ..ops import (
    arange,
    astype,
    embedding,
    equal,
    expand_dims,
    greater_equal,
    less_equal,
    logical_and,
    logical_or,
    maximum,
    reshape,
)
from ..ops.paging import paged_append, paged_mask, paged_rows
from ..tensor import Tensor

PAGE = 16  # tokens


class KVState:
    """Keys, values and mask for the attention of one forward.

    ``positions`` (rows, sequence) int32 are the tokens' positions in their texts. ``mask`` (batch or 1, 1, sequence,
    keys) is true where a token attends to a key. In a step of a generation, ``pools`` hold the keys and values of
    earlier tokens by name and ``grown`` those after it; ``table`` has the pages of each row (:mod:`~..ops.paging`).
    """

    def __init__(
        self,
        positions: Tensor,
        mask: Tensor,
        pools: Mapping[str, Tensor] | None = None,
        table: Tensor | None = None,
        *,
        every: bool = False,
    ) -> None:
        self.positions = positions
        self.mask = mask
        self.pools = pools or {}
        self.table = table
        self.grown: dict[str, Tensor] = {}
        self._every = every

    @classmethod
    def whole(cls, ids: Tensor, attention_mask: Tensor | None = None) -> KVState:
        """Create the state for all tokens of ``ids`` (batch, sequence) at once, at positions 0, 1, 2, ..."""
        sequence = ids.shape[1]
        places = arange(sequence, device=ids.own_device)
        own, other = reshape(places, (1, 1, -1, 1)), reshape(places, (1, 1, 1, -1))
        mask = less_equal(other, own)
        if attention_mask is not None:  # padding attends to itself, since attention over no keys is NaN
            counts = reshape(equal(attention_mask, 1), (-1, 1, 1, sequence))
            mask = logical_and(mask, logical_or(counts, equal(other, own)))
        return cls(expand_dims(places, axis=0), mask)

    @classmethod
    def paged(cls, ids: Tensor, table: Tensor, pools: Mapping[str, Tensor], *, every: bool = False) -> KVState:
        """Create the state for the new tokens of ``ids`` (rows, sequence); see :mod:`~..ops.paging` for ``table``.

        The first columns of ``ids`` are new tokens, as many as the table says, the others padding. With ``every``,
        :meth:`last` keeps all columns.
        """
        positions = table[:, :1]
        if ids.shape[1] > 1:
            positions = positions + reshape(arange(ids.shape[1]), (1, -1))
        mask = paged_mask(table, ids.shape[1], PAGE)
        return cls(positions, mask, pools, table, every=every)

    def extend(self, name: str, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append ``key`` and ``value`` (batch, heads, sequence, head_dim) to those of the layer ``name``.

        Returns all keys and values of the layer.
        """
        if self.table is None:
            return key, value
        names = f"{name}.key", f"{name}.value"
        for part, new in zip(names, (key, value), strict=True):
            self.grown[part] = paged_append(self.pools[part], new, self.table)
        keys, values = (paged_rows(self.grown[part], self.table) for part in names)
        if keys.dtype is not key.dtype:
            keys, values = astype(keys, key.dtype), astype(values, value.dtype)
        return keys, values

    def within(self, window: int) -> Tensor:
        """Return ``mask`` without the keys that are ``window`` tokens before a token or more; 0 removes none.

        The pools keep the keys and values that no window reaches any more.
        """
        if not window or window >= self.mask.shape[3]:
            return self.mask
        if self.table is not None:
            return paged_mask(self.table, self.mask.shape[2], PAGE, window)
        keys = reshape(arange(self.mask.shape[3]), (1, 1, 1, -1))
        return logical_and(self.mask, greater_equal(keys, reshape(self.positions - (window - 1), (1, 1, -1, 1))))

    def last(self, hidden: Tensor) -> Tensor:
        """Return the hidden state of each row's last token: (rows, sequence, hidden) -> (rows, hidden).

        With ``every`` it is that of all tokens, (rows * sequence, hidden).
        """
        rows, sequence, size = hidden.shape
        hidden = reshape(hidden, (-1, size))
        if self._every or sequence == 1:
            return hidden
        ends = sequence if self.table is None else maximum(self.table[:, 1], 1)
        return embedding(hidden, arange(rows) * sequence + ends - 1)


def product_of(architecture: object) -> str:
    """Return the product that a model's time consists of, by which "auto" chooses its device."""
    return ROW if isinstance(architecture, Decoder) else MATRICES


class Decoder(ABC):
    """An architecture that generates text: the members that it has beside those of :class:`Architecture`.

    ``cached`` are the names of the layers that keep keys and values, ``keys`` is the (heads, head size) of their keys
    and values.
    """

    vocab_size: int
    max_length: int  # of a text, in tokens
    start_token: int | None = None  # first token of an encoder-decoder's output; None: it continues the prompt
    generation: Mapping[str, Any]  # default options, from ``generation_config.json`` or ``config.json``
    cached: Sequence[str]
    keys: tuple[int, int]

    def pools(self, pages: int, dtype: DType = dtypes.float32) -> dict[str, Spec]:
        """Return the specs of each layer's keys and values by name: (pages, heads, PAGE, head size)."""
        heads, size = self.keys
        spec = Spec((pages, heads, PAGE, size), dtype)
        return {f"{layer}.{part}": spec for layer in self.cached for part in ("key", "value")}

    def begin(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the tensors that all steps of a generation read: the output of an encoder, if there is one."""
        return {}

    @abstractmethod
    def step(
        self, weights: Weights, inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """Compute the logits after the tokens of ``inputs["input_ids"]`` (rows, sequence) that ``past`` keeps."""
