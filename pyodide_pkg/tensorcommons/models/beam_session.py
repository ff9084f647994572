"""Generation with several beams: a session whose texts change their places from step to step.

A step processes the last token of every beam. The search (beams.py) runs on the host and selects the beams to continue.
Continuations of one beam share its full pages; a last page that is partly filled is copied (page_pool.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..errors import TensorCommonsError
from .beams import BeamSearch
from .generation import GenerationSession
from .logits_process import Ids, renormalize
from .page_pool import copies_of, pages_of


class BeamSession(GenerationSession):
    """One generation with ``num_beams`` rows for each prompt. ``tokens`` are those of the beams that go on."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        o = self.options
        self._parents: list[int] | None = None  # rows that the texts have to continue, before the next step
        self._search = BeamSearch(
            self.tokens[:: o.num_beams],
            o,
            self.longest,
            self._decoder.vocab_size,
            stops=self._stops if o.stop_strings else None,
            numbers=self._sampler.several,
        )

    @property
    def is_done(self) -> bool:
        """True if no better text can be found, or the maximum length or time is reached."""
        return self._search.is_done

    async def step(self) -> Ids:
        """Choose and append the next token of each beam. See :meth:`GenerationSession.step`."""
        values = await self._values()
        scores = self._sampler.scores(renormalize(self.tokens, values), self.tokens)
        parents, chosen = self._search.step(scores, is_last=time.monotonic() > self._ends_at)
        self._parents = parents.tolist()
        self.tokens = self._search.tokens
        self._lengths = self._lengths + 1
        return chosen

    def result(self) -> Any:
        """Return the best texts of each prompt, ``num_return_sequences`` rows; see :meth:`GenerationSession.result`."""
        found = self._search.found()
        return (found.tokens, found.logprobs) if self.options.output_logprobs else found.tokens

    def check_streaming(self) -> None:
        """Raise TensorCommonsError: the tokens are known when the search ends."""
        raise TensorCommonsError(
            f"num_beams={self.options.num_beams} cannot stream tokens, which are known when the search ends: "
            "pass num_beams=1, or generate without a callback"
        )

    def _stops(self, new: Ids) -> bool:
        """Return whether the last of the ``new`` tokens completes one of the stop strings."""
        assert self._decode is not None
        text, before = self._decode(new.tolist()), self._decode(new[:-1].tolist())
        return any(stop in text and stop not in before for stop in self.options.stop_strings)

    async def _begin(self) -> None:
        texts = self._texts
        await super()._begin()
        if self._parents is not None and texts is self._texts:  # else the texts began again, in the present order
            try:
                self._texts = await self._pool.reorder(self._steps, texts, self._parents)
            except BaseException:
                self.close()
                raise
        self._parents = None

    async def compile(self, progress_callback: Callable[[int, int], None]) -> None:
        """Compile every program that the generation may need; see :meth:`GenerationSession.compile`."""
        await super().compile(progress_callback)
        steps, rows = self._steps, len(self.tokens)
        present, widths = self._pool.capacity, range(1, self.longest)
        pages = {max(self._pool.capacity_for(steps, rows * pages_of(width)), present) for width in widths}
        for count in {copies_of(rows) for rows in range(1, rows)}:
            for each in sorted(pages):
                await steps.compile_copy(count, each)

    def close(self) -> None:
        """See :meth:`GenerationSession.close`."""
        if self._parents is not None:  # the texts are not those of `tokens`
            for text in self._texts:
                self._pool.close(text)
            self._texts = []
        super().close()
