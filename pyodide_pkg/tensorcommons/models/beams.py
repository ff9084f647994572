"""Beam search: keep the ``num_beams`` most likely continuations of each prompt from step to step.

A :class:`BeamSearch` has no model: it is given the log-probabilities of a step, and returns for each row the row that
it continues and the token that it appends. Rules, arithmetic (float32) and results are those of ``transformers`` 5.23
(``_beam_search`` in ``generation/utils.py``), with two exceptions. Ties go to the first candidate; PyTorch leaves their
order open. Without an end token, rows are padded with the padding token, not with -1.

With ``do_sample`` the candidates of a step are drawn without replacement by their probability. The numbers that decide
are those of ``sampling.py``, so the draws differ from PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..ops.choosing import Scores, softmax
from .generation_options import Options
from .logits_process import Ids, renormalize

#: Called with (step, prompts, count); returns random numbers from 0 to below 1, float32 (prompts, count).
Numbers: TypeAlias = "Callable[[int, int, int], Scores]"
Flags: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

EXCLUDED = np.float32(-1e9)  # added to the score of a text that must not be chosen while there are others


@dataclass(frozen=True)
class Continuation:
    """New tokens of a beam. ``rows`` are the rows that each was chosen from, ``logprobs`` their log-probabilities."""

    tokens: Ids
    rows: Ids
    logprobs: Scores


@dataclass(frozen=True)
class Found:
    """Results of a search: ``num_return_sequences`` rows of each prompt, the best one first.

    ``tokens`` (rows, width) int32 include the prompts, ``scores`` (rows,) are sums of log-probabilities divided by the
    length penalty. ``rows`` and ``logprobs`` (rows, new tokens) are those of :class:`Continuation`, padded with -1 and
    NaN.
    """

    tokens: Ids
    scores: Scores
    rows: Ids
    logprobs: Scores


class BeamSearch:
    """One search for the continuations of ``prompts`` (batch, width), by ``options``.

    It ends at a width of ``longest`` tokens. ``stops`` returns True for new tokens that complete a stop string;
    ``numbers`` are needed for ``do_sample``. Each prompt has ``num_beams`` consecutive rows. ``tokens``
    (batch * beams, width) are the texts that the next step continues.

    Raises:
        TensorCommonsError: the vocabulary has fewer tokens than a step needs candidates.
    """

    def __init__(
        self,
        prompts: Ids,
        options: Options,
        longest: int,
        vocab_size: int,
        *,
        stops: Callable[[Ids], bool] | None = None,
        numbers: Numbers | None = None,
    ) -> None:
        batch, self._prompt = prompts.shape
        beams, ends = options.num_beams, options.eos_token_id
        self._options, self._longest, self._stops, self._numbers = options, longest, stops, numbers
        #: Candidates of a step: so many that ``beams`` remain if the others end.
        self._count = max(2, 1 + len(ends)) * beams
        if self._count > beams * vocab_size:
            raise TensorCommonsError(
                f"beam search with {len(ends)} end tokens needs a vocabulary of {self._count // beams} tokens or more, "
                f"not {vocab_size}: pass fewer in eos_token_id"
            )
        self._batch, self._beams, self._vocab_size = batch, beams, vocab_size
        self._prompts = np.asarray(prompts, np.int32)
        self._tokens = np.repeat(self._prompts[:, None], beams, axis=1)
        self._rows = np.empty((batch, beams, 0), np.int32)
        self._logprobs = np.empty((batch, beams, 0), np.float32)
        self._scores = np.full((batch, beams), EXCLUDED)
        self._scores[:, 0] = 0  # the beams are equal at first: only one counts
        nothing = Continuation(self._rows[0, 0], self._rows[0, 0], self._logprobs[0, 0])
        self._ended = [[nothing] * beams for _ in range(batch)]
        self._ended_scores = np.full((batch, beams), EXCLUDED)
        self._has_ended: Flags = np.zeros((batch, beams), bool)
        self._can_improve: Flags = np.ones(batch, bool)
        self.is_done = False

    @property
    def tokens(self) -> Ids:
        """The texts of all rows so far, (batch * beams, width) int32."""
        return self._tokens.reshape(self._batch * self._beams, -1)

    def step(self, logprobs: Scores, *, is_last: bool = False) -> tuple[Ids, Ids]:
        """Choose the continuations, given log-probabilities (batch * beams, vocabulary) after all processors.

        Returns for each row the row that it continues, and the token appended to it: both (batch * beams,) int32.
        With ``is_last`` every text ends after this step.

        Raises:
            TensorCommonsError: a log-probability is NaN, or tokens are sampled and every one is excluded.
        """
        if np.isnan(logprobs).any():
            raise TensorCommonsError(
                "the model's scores are NaN or infinite, so no token can be chosen: "
                "its weights are damaged, or a value overflowed"
            )
        vocabulary, length = logprobs.shape[1], self._tokens.shape[2] + 1 - self._prompt
        sums: Scores = (logprobs.reshape(self._batch, self._beams, -1) + self._scores[:, :, None]).reshape(
            self._batch, -1
        )
        places = self._drawn(sums, length - 1) if self._options.do_sample else largest(sums, self._count)
        scores = np.take_along_axis(sums, places, axis=1)
        parents, tokens = places // vocabulary, (places % vocabulary).astype(np.int32)
        rows = (parents + np.arange(self._batch)[:, None] * self._beams).astype(np.int32)
        made = self._extended(parents, rows, tokens, logprobs)
        stopped = np.isin(tokens, self._options.eos_token_id)
        if is_last or length + self._prompt >= self._longest:
            stopped[:] = True
        elif self._stops is not None:
            for place in zip(*np.nonzero(~stopped), strict=True):
                stopped[place] = self._stops(made[0][place][self._prompt :])
        self._finish(made, scores, stopped, length)

        running = _lowered(scores, stopped)
        kept = largest(running, self._beams)
        self._scores = np.take_along_axis(running, kept, axis=1)
        self._tokens, self._rows, self._logprobs = (np.take_along_axis(x, kept[:, :, None], axis=1) for x in made)
        self._update_end(stopped, length)
        return self._rows[:, :, -1].reshape(-1), self._tokens[:, :, -1].reshape(-1)

    def _drawn(self, sums: Scores, step: int) -> Ids:
        """Draw the candidates of a step: (batch, candidates) places in ``sums``, in the order of the draws."""
        assert self._numbers is not None
        numbers = self._numbers(step, self._batch, self._count)
        return np.stack([draw_several(row, own) for row, own in zip(sums, numbers, strict=True)])

    def _extended(self, parents: Ids, rows: Ids, tokens: Ids, logprobs: Scores) -> tuple[Ids, Ids, Scores]:
        """Return the tokens, rows and log-probabilities of all candidates, (batch, candidates, width or length)."""
        if self._options.output_logprobs:
            with np.errstate(invalid="ignore"):  # a row of minus infinity
                chosen = renormalize(tokens, logprobs)[rows, tokens]
        else:
            chosen = np.zeros(tokens.shape, np.float32)

        def appended(before: Any, new: Any) -> Any:
            return np.concatenate([np.take_along_axis(before, parents[:, :, None], axis=1), new[:, :, None]], axis=2)

        return appended(self._tokens, tokens), appended(self._rows, rows), appended(self._logprobs, chosen)

    def _finish(self, made: tuple[Ids, Ids, Scores], scores: Scores, stopped: Flags, length: int) -> None:
        """Keep the best texts that have ended: those of before, and of the first ``beams`` candidates now."""
        ends_now = stopped & (np.arange(self._count) < self._beams)
        closes = self._options.early_stopping is True
        is_full = np.asarray(self._has_ended.all(axis=1, keepdims=True) if closes else [[False]])
        scores = scores / self._penalty(length)
        for excluded in (is_full, ~self._can_improve[:, None], ~ends_now):  # one after the other, which rounds
            scores = _lowered(scores, excluded)
        scores = np.concatenate([self._ended_scores, scores], axis=1)
        places = largest(scores, self._beams)
        self._ended_scores = np.take_along_axis(scores, places, axis=1)
        self._has_ended = np.take_along_axis(np.concatenate([self._has_ended, ends_now], axis=1), places, axis=1)
        tokens, rows, logprobs = made

        def text(prompt: int, place: int) -> Continuation:
            if place < self._beams:
                return self._ended[prompt][place]
            own = prompt, place - self._beams
            return Continuation(tokens[own][self._prompt :], rows[own], logprobs[own])

        self._ended = [[text(prompt, int(place)) for place in own] for prompt, own in enumerate(places)]

    def _update_end(self, stopped: Flags, length: int) -> None:
        """Find the prompts for which a better text may still be found, and whether the search is done.

        ``early_stopping`` True ends the search of a prompt with ``beams`` texts, False if the best running one would
        not be better than the worst of them if it ended now; "never" assumes the length at which it would be best.
        """
        o = self._options
        if o.early_stopping == "never" and o.length_penalty > 0:
            length = self._longest - self._prompt
        possible = self._scores[:, :1] / self._penalty(length)
        worst = np.where(self._has_ended, self._ended_scores.min(axis=1, keepdims=True), EXCLUDED)
        self._can_improve &= (possible > worst).any(axis=1)
        is_full = o.early_stopping is True and bool(self._has_ended.all())
        self.is_done = is_full or not self._can_improve.any() or bool(stopped.all())

    def _penalty(self, length: int) -> np.float32:
        limits = np.finfo(np.float32)
        with np.errstate(over="ignore", under="ignore"):
            return np.float32(np.clip(np.float64(length) ** self._options.length_penalty, limits.tiny, limits.max))

    def found(self) -> Found:
        """Return the best texts of each prompt."""
        count, ends = self._options.num_return_sequences, self._options.eos_token_id
        texts = [text for own in self._ended for text in own[:count]]
        # There, a padding token 0 counts as unset.
        padding = (self._options.pad_token_id or ends[0]) if ends else self._options.padding
        length = max(len(text.tokens) for text in texts)
        if not 0 <= padding < self._vocab_size and any(len(text.tokens) < length for text in texts):
            raise TensorCommonsError(
                f"the padding token {quoted(padding)} is outside the vocabulary of {self._vocab_size}, "
                "and texts of different lengths need padding: pass another pad_token_id"
            )

        def padded(name: str, value: float) -> Any:
            parts = [getattr(text, name) for text in texts]
            return np.stack([np.pad(part, (0, length - len(part)), constant_values=value) for part in parts])

        tokens = np.concatenate([np.repeat(self._prompts, count, axis=0), padded("tokens", padding)], axis=1)
        scores = self._ended_scores[:, :count].reshape(-1)
        return Found(tokens, scores, padded("rows", -1), padded("logprobs", np.nan))


def _lowered(scores: Scores, excluded: Flags) -> Scores:
    return np.asarray(scores + excluded * EXCLUDED, np.float32)


def largest(scores: Scores, count: int) -> Ids:
    """Return the places of the ``count`` largest scores of each row, in descending order; ties go to the first."""
    return np.stack([_largest(row, count) for row in scores])


def _largest(row: Scores, count: int) -> Ids:
    places = np.arange(row.size)
    if count < row.size:
        edge = np.partition(row, -count)[-count]
        above, equal = np.flatnonzero(row > edge), np.flatnonzero(row == edge)
        places = np.sort(np.concatenate([above, equal[: count - above.size]]))
    return places[np.argsort(-row[places], kind="stable")]


def draw_several(scores: Scores, numbers: Scores) -> Ids:
    """Draw places of ``scores`` without replacement by their softmax: one for each number, from 0 to below 1.

    A draw is the first place whose cumulative probability, among those that remain, exceeds its number. If fewer have
    a probability above 0, those with the largest scores follow.

    Raises:
        TensorCommonsError: every score is minus infinity, or one is infinity.
    """
    if scores.max() == -np.inf:
        raise TensorCommonsError("the options exclude every token, so none can be sampled: relax them")
    possible = np.flatnonzero(scores > -np.inf)
    weights = softmax(scores[possible]).astype(np.float64)
    drawn: list[int] = []
    for number in numbers[: np.count_nonzero(weights)]:
        sums = np.cumsum(weights)
        place = int(np.searchsorted(sums, float(number) * sums[-1], side="right"))
        weights[place] = 0
        drawn.append(int(possible[place]))
    if (missing := len(numbers) - len(drawn)) > 0:
        rest = np.setdiff1d(np.arange(scores.size), drawn)
        drawn += rest[_largest(scores[rest], missing)].tolist()
    return np.array(drawn, np.int64)
