"""The pipelines that write: text or a chat in, text out, whole or piece by piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from .errors import TensorCommonsError, check_listener
from .hub.text_stream import TextStream
from .hub.tokenizer import Tokenizer
from .pipelines import Pipeline
from .tasks.job import several, tokenizer_of

TASKS = ("text-generation", "text2text-generation")


class TextGeneration(Pipeline):
    """``await pipe(prompt, max_new_tokens=50)``; ``async for piece in pipe.stream(prompt)``.

    A prompt is a text, or a chat: a list of ``{"role": "user", "content": "Hello"}``.
    """

    async def __call__(
        self,
        texts: Any,
        *,
        return_full_text: bool = True,
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Any:
        """``[{"generated_text": ...}]``, as `transformers` gives it; of a list of prompts a list of these.

        The text begins with the prompt unless ``return_full_text`` is off or the model answers rather than goes on; of
        a chat it is the messages with the answer behind them. ``options`` are those of ``model.generate``. ``on_text``
        gets the answer to one prompt piece by piece.

        Raises:
            TensorCommonsError: what is no prompt, or an unknown option.
        """
        check_listener("on_text", on_text)
        single = isinstance(texts, str) or is_chat(texts)
        prompts = [texts] if single else several(texts)
        if not prompts:
            return []
        if on_text is not None:
            if not single:
                raise TensorCommonsError("on_text follows one prompt, not a list of them")
            pieces = []
            async with aclosing(self.stream(texts, **options)) as arriving:
                async for piece in arriving:
                    pieces.append(piece)
                    on_text(piece)
            return [self._shown(texts, "".join(pieces), full=return_full_text)]
        rows = [self._ids(prompt) for prompt in prompts]
        ids, mask = self._batch(rows)
        written = await self.model.generate(ids, mask, **options)
        shown = []
        for prompt, row, tokens in zip(prompts, rows, written.tolist(), strict=True):
            text = self._new_text(row, tokens[1:] if self._answers else tokens[ids.shape[1] :])
            shown.append([self._shown(prompt, text, full=return_full_text)])
        return shown[0] if single else shown

    async def stream(self, prompt: Any, **options: Any) -> AsyncGenerator[str, None]:
        """The answer to one prompt, in pieces of whole characters. Leaving the loop early ends the writing."""
        row = self._ids(prompt)
        text = TextStream(self._tokenizer, [] if self._answers else row)
        steps: Any = self.model.stream([row], **options)
        try:
            async for tokens in steps:
                piece = text.push(int(tokens[0]))
                if piece:
                    yield piece
            if rest := text.end():
                yield rest
        finally:
            await steps.aclose()

    @property
    def _answers(self) -> bool:
        """Whether the model answers the prompt, rather than to go on with it."""
        return self.task == "text2text-generation"

    @property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.model)

    def _ids(self, prompt: Any) -> list[int]:
        if not (isinstance(prompt, str) or is_chat(prompt)):
            raise TensorCommonsError(f"a prompt is a text or a list of messages, not {prompt!r:.60}")
        chat = not isinstance(prompt, str)
        text = self._tokenizer.apply_chat_template(prompt) if chat else prompt
        encoding = self._tokenizer.encode_batch([text], truncation=False, add_special_tokens=not chat)
        ids: list[int] = encoding.input_ids[0].tolist()
        if not ids:
            raise TensorCommonsError("a prompt without any token leaves nothing to go on with")
        return ids

    def _batch(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """The rows as one array and its mask: padded on the left, or on the right for an encoder."""
        width = max(len(row) for row in rows)
        ids, mask = (np.zeros((len(rows), width), np.int32) for _ in range(2))
        ids[:] = self._tokenizer.pad_id
        for number, row in enumerate(rows):
            place = slice(len(row)) if self._answers else slice(width - len(row), None)
            ids[number, place], mask[number, place] = row, 1
        return ids, mask

    def _new_text(self, row: Sequence[int], new: Sequence[int]) -> str:
        """What ``new`` adds to the text of ``row``: decoded behind it, where a first space depends on that."""
        before = [] if self._answers else list(row)
        start = len(self._tokenizer.decode(before)) if before else 0
        return self._tokenizer.decode([*before, *new])[start:]

    def _shown(self, prompt: Any, text: str, *, full: bool) -> dict[str, Any]:
        if self._answers or not full:
            return {"generated_text": text}
        if isinstance(prompt, str):
            return {"generated_text": prompt + text}
        return {"generated_text": [*prompt, {"role": "assistant", "content": text}]}


def is_chat(value: Any) -> bool:
    """Whether ``value`` is a list of messages."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(each, Mapping) for each in value)
