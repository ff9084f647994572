"""Long texts in overlapping windows, each short enough for a model; as the Rust tokenizers cut them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ShapeMismatch

if TYPE_CHECKING:
    from .encoding import Encoding, Ids


@dataclass(frozen=True)
class Windows:
    """A row of ``encoding`` for each window. ``ids`` are all tokens of each text; ``places`` has for each window the
    number of its text and of the first of these tokens that is in it.
    """

    encoding: Encoding
    ids: list[Ids]
    places: list[tuple[int, int]]

    def of(self, text: int) -> list[tuple[int, int]]:
        """(row, first token) of each window of a text."""
        return [(row, start) for row, (owner, start) in enumerate(self.places) if owner == text]


def spans(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """(start, stop) of the windows of ``size`` tokens over ``length`` of them; neighbours share ``overlap``.

    Raises:
        ShapeMismatch: windows that overlap so far do not get on.
    """
    if length <= size:
        return [(0, length)]
    if size <= overlap:
        raise ShapeMismatch(f"windows with room for {size} tokens of a text cannot share {overlap}: make them longer")
    step = size - overlap
    return [(at, min(at + size, length)) for at in range(0, length - overlap, step)]
