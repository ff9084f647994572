"""A batch of texts as a model takes it, with the origin of each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ids = NDArray[np.int32]

HEADER = 3  # numbers of an input before its rows: text, length, tokens left out
ROWS = 6  # ids, types, sequences, starts, ends, words


@dataclass(frozen=True)
class Encoding:
    """A batch, ready for a model: int32 arrays of shape ``[inputs, length]``.

    ``sequence_ids`` is the origin of each token: 0 the text, 1 the text of the pair, -1 neither. ``offsets``
    ``[inputs, length, 2]`` are (start, end) in characters of that text; ``word_ids`` count the words that the text was
    split into before they were looked up (-1 outside). ``owners`` is the number of the text of each input.
    """

    input_ids: Ids
    attention_mask: Ids
    token_type_ids: Ids
    sequence_ids: Ids
    offsets: Ids
    word_ids: Ids
    owners: Ids
    dropped: int = 0  # tokens that truncation left out
    with_types: bool = True

    def as_inputs(self) -> dict[str, Ids]:
        """The arrays, by the names of the models' inputs."""
        arrays = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return {**arrays, "token_type_ids": self.token_type_ids} if self.with_types else arrays

    def rows_of(self, text: int) -> list[int]:
        """Return the indices of the inputs of a text: one, or all its windows."""
        rows: list[int] = np.flatnonzero(self.owners == text).tolist()
        return rows


def unpack(packed: Ids) -> list[tuple[int, int, Ids]]:
    """List (number of the text, tokens left out, ``[6, length]``) of each input; see tokenizer.js."""
    found, at = [], 0
    while at < len(packed):
        owner, length, dropped = packed[at : at + HEADER].tolist()
        start, at = at + HEADER, at + HEADER + ROWS * length
        found.append((owner, dropped, packed[start:at].reshape(ROWS, length)))
    return found


def pad(
    inputs: Sequence[tuple[int, int, Ids]], width: int, pad_id: int, pad_type: int, *, left: bool, with_types: bool
) -> Encoding:
    """Return the inputs as arrays of ``width`` columns."""
    shape = (len(inputs), width)
    rows = np.zeros((ROWS, *shape), np.int32)
    rows[0], rows[1], rows[2], rows[5] = pad_id, pad_type, -1, -1
    mask = np.zeros(shape, np.int32)
    for number, (_, _, each) in enumerate(inputs):
        length = each.shape[1]
        place = slice(width - length, None) if left else slice(length)
        rows[:, number, place] = each
        mask[number, place] = 1
    owners = np.array([owner for owner, *_ in inputs], np.int32)
    dropped = sum(count for _, count, _ in inputs)
    offsets = np.stack([rows[3], rows[4]], axis=-1)
    return Encoding(rows[0], mask, rows[1], rows[2], offsets, rows[5], owners, dropped, with_types)
