"""Text from tokens that arrive one by one: a piece is returned when its characters are complete."""

from __future__ import annotations

from collections.abc import Sequence

from .tokenizer import Tokenizer

CONTEXT = 8  # tokens before a new one that may decide how it is written (a space, the first bytes of a character)
LONGEST = 64  # tokens decoded again for each new one


class TextStream:
    """Incremental decoding of the tokens that follow ``prompt``."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0
        self._begin(prompt)

    def push(self, token: int) -> str:
        """Add a token and return the text that it completes: often a word, or "" while a character lacks bytes."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        new, self._shown = text[self._shown :], len(text)
        if len(self._ids) > LONGEST:
            self._begin(self._ids)
        return new

    def end(self) -> str:
        """Return the text that was held back, complete or not."""
        return self._tokenizer.decode(self._ids)[self._shown :]

    def _begin(self, ids: Sequence[int]) -> None:
        self._ids = list(ids)[-CONTEXT:]
        self._shown = len(self._tokenizer.decode(self._ids)) if self._ids else 0
