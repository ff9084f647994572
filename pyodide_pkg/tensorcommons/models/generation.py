"""Text generation: the prompts are processed in pieces, then each step processes one token of each row.

Keys and values stay on the device, in the pages of a pool (page_pool.py). Hardware runs several steps in one call, each
with the token that the one before chose; their tokens are read together, at least every 30 ms. The pages are given back
when the generation ends, by an error or a cancellation too, and when its iterator is closed. If the device was lost or
the model moved, all tokens are processed again.

With ``prompt_lookup_num_tokens`` a step over a single text also processes tokens that may follow (lookup.py). Its
results after them are the choices of the next steps, as long as these choose the tokens that were expected.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..bridge.runtime import retrieve
from ..dtypes import host_array
from ..errors import MemoryBudgetError, ShapeMismatch, TensorCommonsError, quoted
from ..graph.bound import RunsInParts
from ..ops.choosing import NOT_A_NUMBER, Scores
from ..shapes import Shape
from ..sharing.contract import Movable
from ..sharing.manager import TensorSharingManager
from ..sharing.run_account import GenerationAccount
from ..tensor import Tensor
from .adapter import Chosen
from .adapter_set import AdapterSet
from .batch import MOST_STEPS, READ_EVERY, Batch, Request
from .decode_programs import LIKELIEST, LOGITS, Arrays, Choice, DecodePrograms, Specs, Tensors
from .decoder import PAGE, Decoder
from .generation_options import DEFAULT_NEW_TOKENS, Options
from .logits_process import Ids, Prompt
from .lookup import candidates
from .page_pool import FEW_PAGES, PagesLost, Text, pages_of, room_of, width_of
from .sampling import Sampler
from .text import checked_ids

Decode: TypeAlias = "Callable[[Sequence[int]], str]"
WIDTHS = (1, 8, 16, 32, 64, 128, 256)  # numbers of tokens in a step, and multiples of the last


class Generator(Movable, Protocol):
    """The part of a model that a generation uses."""

    manager: TensorSharingManager

    def batch(self, adapters: AdapterSet | None = None) -> Batch:
        """Return the model's generations on its current device, with these adapters."""


class GenerationSession:
    """One generation. ``tokens`` are all tokens so far (batch, sequence): the prompts and the new tokens.

    Each prompt has :attr:`Options.copies` consecutive rows. ``finished`` marks the rows that have ended,
    which are continued with padding tokens. ``adapters`` returns those of so many prompts. A padding token outside the
    vocabulary is an error when a row needs it, or at once with ``checks_padding``.
    """

    def __init__(
        self,
        model: Generator,
        decoder: Decoder,
        ids: Any,
        attention_mask: Any,
        options: Options,
        decode: Decode | None = None,
        *,
        adapters: Callable[[int], Chosen | None] = lambda rows: None,
        checks_padding: bool = False,
    ) -> None:
        if options.stop_strings and decode is None:
            raise TensorCommonsError("stop_strings need a tokenizer, and this model was loaded without one")
        self.options = options
        self._model = model
        self._decoder = decoder
        prompts, mask = _prompts(ids, attention_mask, decoder.vocab_size)
        chosen = adapters(len(prompts))
        self._adapters = chosen and chosen.repeated(options.copies)
        if self._slots and decoder.start_token is not None:
            raise TensorCommonsError(
                f"{model.name}: an encoder-decoder generates with one adapter for all rows: generate for each by itself"
            )
        self._batch = self._current()
        self._pool = self._batch.pool
        self._decode = decode
        self._source: dict[str, Ids] = {}
        if decoder.start_token is not None:
            self._source = {"input_ids": _padded(prompts), "attention_mask": _padded(mask)}
        prompts, mask = (np.repeat(array, options.copies, 0) for array in (prompts, mask))
        rows = len(prompts)
        if checks_padding and rows > 1 and options.num_beams == 1:
            self._check_padding()
        self._start = mask.argmax(axis=1).astype(np.int32)
        source, starts = prompts, self._start if self._start.any() else None
        if decoder.start_token is not None:
            first = options.decoder_start_token_id or options.bos_token_id or (decoder.start_token,)
            prompts = _first_tokens(first, rows, decoder.vocab_size)
            self._start, starts = np.zeros(rows, np.int32), None
        elif not (np.diff(mask, axis=1) >= 0).all():
            raise ShapeMismatch(
                "attention_mask has a 0 after a 1: pad shorter prompts on the left, so that every row ends in a token"
            )
        if prompts.shape[1] >= decoder.max_length:
            raise ShapeMismatch(
                f"the prompt of {prompts.shape[1]} tokens leaves no room for new tokens: "
                f"the model takes {decoder.max_length} in all"
            )
        self.tokens = prompts
        self.finished = np.zeros(rows, bool)
        #: Log-probabilities of the tokens of each step, (batch,): NaN for padding. Empty unless ``output_logprobs``.
        self.logprobs: list[Scores] = []
        self._prompt = prompts.shape[1]
        self._ends_at = time.monotonic() + options.max_time if options.max_time is not None else float("inf")
        #: Width of ``tokens`` at which the generation ends: that of the options, or the model's maximum.
        self.longest = min(_max_length(options, self._prompt), decoder.max_length)
        prompt = Prompt(self._prompt, self.longest, source, starts)
        self._sampler = Sampler(options, rows, prompt, decoder.vocab_size)
        self._lengths = self._prompt - self._start  # tokens of each row, without padding: those up to its end
        self._texts: list[Text] = []
        self._fixed: Tensors = {}
        self._ahead: tuple[Tensor, Tensor] | None = None  # last and all results of steps that started before a read
        self._chosen: deque[Ids] = deque()  # tokens of later steps that were read already
        self._looks_up = options.prompt_lookup_num_tokens is not None and rows == 1
        self._drafted: deque[int] = deque()  # tokens that the steps in `_chosen` expect
        self._at_once = 1  # steps to begin at once
        self._read_at = 0.0

    @property
    def is_done(self) -> bool:
        """True if every row has ended, or the maximum length or time is reached."""
        width = self.tokens.shape[1]
        is_late = width > self._prompt and time.monotonic() > self._ends_at
        return bool(self.finished.all()) or width >= self.longest or is_late

    async def step(self) -> Ids:
        """Choose, append and return the next token of each row: (batch,) int32.

        Raises:
            MemoryBudgetError: keys and values do not fit beside the model.
            TensorReleased: the model was unloaded.
            TensorCommonsError: the scores are NaN, or a row needs a padding token outside the vocabulary.
        """
        if self.finished.any():
            self._check_padding()
        values = await self._values()
        chosen = values[:, 0] if self._choice.is_token else self._sampler.choose(values, self.tokens)
        if self.options.output_logprobs:
            logprobs = self._sampler.logprobs(values, self.tokens, chosen)
            self.logprobs.append(np.where(self.finished, np.float32(np.nan), logprobs))
        if self.finished.any():
            chosen = np.where(self.finished, self.options.padding, chosen)
        chosen = chosen.astype(np.int32)
        self.tokens = np.concatenate([self.tokens, chosen[:, None]], axis=1)
        self._lengths = self._lengths + ~self.finished
        if self._drafted and chosen[0] != self._drafted.popleft():
            self._drafted.clear()
            self._chosen.clear()
            self._texts[0].filled = int(self._lengths[0]) - 1  # the others are those of other tokens
        self.finished |= np.isin(chosen, self.options.eos_token_id)
        if self.options.stop_strings and self._decode is not None:
            for row in np.flatnonzero(~self.finished):
                text = self._decode(self.tokens[row, self._prompt :].tolist())
                self.finished[row] = any(stop in text for stop in self.options.stop_strings)
        return chosen

    async def prefill(self) -> None:
        """Compute the keys and values of the prompts, which later texts that begin with them find.

        Raises the errors of :meth:`step`.
        """

        async def work() -> None:
            while True:
                try:
                    await self._begin()
                    (await self._process()).release()
                except PagesLost:
                    continue
                return

        await self._model.manager.finishing([self._model], work)

    @property
    def _steps(self) -> DecodePrograms:
        return self._batch.steps

    @property
    def _slots(self) -> Sequence[int]:
        """The number of each row's adapter; empty if there is one for all rows, or none."""
        return self._adapters.slots if self._adapters else ()

    def _current(self) -> Batch:
        """Return the generations of the model with the adapters on its current device."""
        return self._model.batch(self._adapters.adapters if self._adapters else None)

    def _of_rows(self, rows: Sequence[int]) -> Arrays:
        """Return the arguments that select the adapters of these rows."""
        return self._steps.adapters.arrays([self._slots[row] for row in rows]) if self._slots else {}

    def _inputs(self, choice: Choice, width: int) -> Arrays:
        """Return the arguments of a step of all rows, beside the tokens and the pages."""
        return {**self._sampler.inputs(choice, width), **self._of_rows(range(len(self._slots)))}

    @property
    def _account(self) -> GenerationAccount:
        return self._model.manager.account.generation

    def result(self) -> Any:
        """Return all tokens, and with ``output_logprobs`` the log-probabilities of new ones (batch, new), too."""
        return (self.tokens, np.stack(self.logprobs, axis=1)) if self.options.output_logprobs else self.tokens

    def check_streaming(self) -> None:
        """Raise TensorCommonsError if the tokens of a step may change later: not here."""

    async def _values(self) -> Ids:
        """Return the scores (batch, vocabulary) or the tokens (batch, 1) of the next step; raises as :meth:`step`."""
        manager, account = self._model.manager, self._account
        with account.writing():
            values, fallback = await manager.finishing([self._model], self._next)
        account.tokens += int((~self.finished).sum())
        if self._steps.last is not None:
            manager.ran(self._model, *self._steps.last, fallback)
        self._check_numbers(values)
        return values

    def _check_padding(self) -> None:
        padding, size = self.options.padding, self._decoder.vocab_size
        if not 0 <= padding < size:
            raise TensorCommonsError(
                f"pad_token_id {quoted(padding)} is outside the vocabulary of {size}, "
                "and rows that end before others need padding: pass another pad_token_id"
            )

    def _check_numbers(self, values: Ids) -> None:
        """Raise TensorCommonsError if the scores of an unfinished row are NaN.

        ``values`` are scores, or tokens chosen on the device, where ``NOT_A_NUMBER`` stands for NaN, and if tokens are
        sampled, for infinity.
        """
        if self._choice.is_token:
            wrong = values[:, 0] == NOT_A_NUMBER
        elif self.options.remove_invalid_values:
            return
        else:
            wrong = np.isnan(values).any(axis=1)
        if (wrong & ~self.finished).any():
            raise TensorCommonsError(
                "the model's scores are NaN or infinite, so no token can be chosen: "
                "its weights are damaged, or a value overflowed"
            )

    @property
    def _choice(self) -> Choice:
        choice = self._sampler.choice(samples=self._steps.samples)
        return LOGITS if self._looks_up and choice != LIKELIEST else choice

    async def _next(self) -> Ids:
        """Process the tokens that have no keys and values yet. Returns the scores or the tokens after the last one.

        If tokens are chosen on the device, the next step starts before this one's are read, so that the device does not
        wait for the host. One step too many runs at the end of a text.
        """
        while True:
            try:
                await self._begin()
                if self._chosen:
                    return self._chosen.popleft()
                if self._looks_up and (drafted := self._candidates()).size:
                    return await self._look_up(drafted)
                if self._is_shared and self._ahead is None and max(self._missing()) == 1:
                    return await self._step_together()
                return await self._read(*(self._ahead or [await self._process()] * 2))
            except PagesLost:
                continue

    @property
    def _is_shared(self) -> bool:
        """True if other generations are under way, whose steps can be one batch with those of this one."""
        return self._batch.is_shared and not self._source

    async def _step_together(self) -> Ids:
        """Process each text's last token in one run with other generations. Returns the scores or tokens after them."""
        width, choice = self.tokens.shape[1], self._choice
        request = Request(
            self._texts,
            self.tokens[:, -1],
            self._missing(),
            choice,
            lambda ahead: self._inputs(choice, width + ahead),
            self.longest - width,
        )
        values = self._take(await self._batch.step(request))
        account = self._account
        account.together = max(account.together, request.together)
        if request.together > 1:
            account.batched += (len(self._chosen) + 1) * sum(request.counts)
        return values

    async def _read(self, last: Tensor, chosen: Tensor) -> Ids:
        """Read the results of one step or several, whose ``last`` is given, while the next ones run."""
        self._ahead = None
        count = chosen.shape[0] if chosen.ndim == 3 else 1
        left = self.longest - self.tokens.shape[1] - count
        if not (self._steps.runs_ahead and self._choice.is_token and left > 0) or self._is_shared or self._looks_up:
            return self._take(await chosen.read())
        reading = asyncio.ensure_future(chosen.read())
        reading.add_done_callback(retrieve)
        try:
            await asyncio.sleep(0)  # so that the copy for the read precedes the next step in the device's queue
            self._ahead = await self._begin_steps(last, count, min(left, self._at_once))
        finally:
            values = await reading
        self._adapt(count)
        return self._take(values)

    def _candidates(self) -> Ids:
        """Return tokens that may follow the last one, if that is all that has no keys and values."""
        o = self.options
        most = min(o.prompt_lookup_num_tokens or 0, self.longest - self.tokens.shape[1] - 1)
        most = most if self._missing() == [1] else 0
        return candidates(self._text(0), most, o.eos_token_id, o.max_matching_ngram_size)

    async def _look_up(self, drafted: Ids) -> Ids:
        """Process the last token, and those that may follow. Returns the scores or tokens after the last one."""
        count = 1 + len(drafted)
        ids = _padded(np.concatenate([self.tokens[0, -1:], drafted])[None], _width(count))
        answer = await self._extend(ids, self._texts, [count], {}, replace(self._choice, every=True))
        first, *later = np.split((await answer.read())[:count], count)
        self._drafted.extend(drafted.tolist())
        self._chosen.extend(later)
        return first

    def _take(self, values: Ids) -> Ids:
        """Return the first tokens or scores (batch, ...) of ``values``, and keep those of later steps."""
        if values.ndim < 3:
            return values
        first, *later = values
        self._chosen.extend(later)
        return np.asarray(first)

    def _adapt(self, count: int) -> None:
        """Choose how many steps to begin at once: their tokens are read together, at least every 30 ms."""
        now = time.monotonic()
        pace, self._read_at = (now - self._read_at) / count, now
        self._at_once = min(2 * self._at_once, max(int(READ_EVERY / max(pace, 1e-6)), 1), MOST_STEPS)

    # --- keys and values ---

    def _text(self, row: int) -> Ids:
        """Return the tokens of a row, without padding."""
        start = self._start[row]
        return self.tokens[row, start : start + self._lengths[row]]

    async def _begin(self) -> None:
        """Begin the texts, again if the model moved, its weights changed, or keys and values were lost."""
        batch = self._current()
        if self._texts and (batch, batch.pool, batch.pool.check()) == (self._batch, self._pool, self._texts[0].losses):
            return
        self.close()
        self._batch, self._pool = batch, batch.pool
        rows = range(len(self.tokens))
        copies = self.options.copies
        sources = [b"".join(array[row // copies].tobytes() for array in self._source.values()) for row in rows]
        sources = [b"adapter %d" % slot for slot in self._slots] or sources
        self._texts = [Text(source, self._expected) for source in sources]
        if self._source:
            self._fixed = await self._steps.begin(self._source, copies)
        batch.join(self)
        for row in rows:
            self._find(row)
        await self._share(rows)
        if 1 < copies < len(rows):
            for first in rows[::copies]:
                await self._share(rows[first : first + copies])

    def _find(self, row: int) -> None:
        """Give a text the pages that are known for its first tokens."""
        text = self._texts[row]
        self._pool.begin(text, self._text(row))
        self._account.reused += text.filled

    @property
    def _expected(self) -> int:
        """Number of tokens that a text has room for at first: the whole prompt, and some new ones."""
        return int(min(self.longest, self._prompt + FEW_PAGES * PAGE // 2))

    async def _share(self, rows: range) -> None:
        """Compute the keys and values of tokens that the texts of ``rows`` begin with in the first of them alone."""
        tokens, pool = self._text(rows[0]), self._pool
        is_alike = len(rows) > 1 and not self._source and len({self._texts[row].source for row in rows}) == 1
        common = self._common(rows) if is_alike else 0
        first = self._texts[rows[0]]
        if common <= max(self._texts[row].filled for row in rows):
            return
        while first.filled < common:
            ids = tokens[None, first.filled : min(first.filled + self._steps.longest, common)]
            inputs = self._of_rows(rows[:1] if self._slots else ())
            await self._extend(_padded(ids, _width(ids.shape[1])), [first], [ids.shape[1]], inputs, LOGITS)
        pool.know(first, tokens)
        for row in rows[1:]:
            self._find(row)

    def _common(self, rows: range) -> int:
        """Return the number of tokens, of full pages, that the texts of ``rows`` begin with; each has more."""
        texts = [self._text(row) for row in rows]
        count = min(map(len, texts)) - 1
        differs = np.flatnonzero((np.stack([text[:count] for text in texts]) != texts[0][:count]).any(axis=0))
        return int(differs[0] if differs.size else count) // PAGE * PAGE

    async def _process(self) -> Tensor:
        """Process all tokens that have no keys and values. Returns the scores or tokens after the last ones.

        The last piece has the last token of every text that has not ended.
        """
        while True:
            missing = self._missing()
            counts = _piece(missing, self._steps.longest)
            ids = np.zeros((len(counts), _width(max(counts))), np.int32)
            for row, (text, count) in enumerate(zip(self._texts, counts, strict=True)):
                ids[row, :count] = self._text(row)[text.filled : text.filled + count]
            inputs = self._inputs(self._choice, self.tokens.shape[1])
            answer = await self._extend(ids, self._texts, counts, inputs, self._choice)
            for row, text in enumerate(self._texts):
                self._pool.know(text, self._text(row))
            if counts == missing:
                return answer

    def _missing(self) -> list[int]:
        """Return the number of tokens of each text that have no keys and values; none of those that have ended."""
        lengths = np.where(self.finished, 0, self._lengths).tolist()
        return [max(length - text.filled, 0) for length, text in zip(lengths, self._texts, strict=True)]

    async def _begin_steps(self, token: Tensor, done: int, count: int) -> tuple[Tensor, Tensor]:
        """Begin up to ``count`` steps after ``token``, the last of ``done`` that the host does not have yet.

        Returns the last token, and the tokens of all steps; of a single step, both are its token.
        """
        choice, counts = self._choice, [int(not ended) for ended in self.finished]
        inputs = [self._inputs(choice, self.tokens.shape[1] + done + i) for i in range(count)]
        if count > 1 and self._steps.runs_several:
            try:
                return await self._pool.extend_by(self._steps, token, self._texts, counts, inputs, self._fixed, choice)
            except (MemoryBudgetError, RunsInParts):
                self._at_once = 1
        answer = await self._extend(token, self._texts, counts, inputs[0], choice)
        return answer, answer

    async def _extend(
        self, ids: Ids | Tensor, texts: Sequence[Text], counts: Sequence[int], inputs: Arrays, choice: Choice
    ) -> Tensor:
        """Process the first ``counts`` columns of ``ids``. Returns the scores or tokens after them."""
        return await self._pool.extend(self._steps, ids, texts, counts, inputs, self._fixed, choice)

    async def compile(self, progress_callback: Callable[[int, int], None]) -> None:
        """Compile every program that the generation may need, if it finds no keys and values of earlier texts."""
        steps, rows, choice = self._steps, len(self.tokens), self._choice
        grown: dict[tuple[int, int], None] = {}
        extended: dict[tuple[Shape, int, int, Choice, bool], None] = {}
        drafted = range(2, (self.options.prompt_lookup_num_tokens or 0) + 2) if self._looks_up else ()
        filled, room, capacity = 0, 0, self._pool.capacity
        while filled < max(self.longest - 1, 1):
            count, old = min(max(self._prompt - filled, 1), steps.longest), capacity
            pages = pages_of(filled + count)
            room = room_of(pages, room, self._expected)
            if rows * pages > old:
                capacity = self._pool.capacity_for(steps, rows * pages)
            if old not in (0, capacity):
                grown[old, capacity] = None
            is_stored = steps.runs_ahead and choice.is_token and filled >= self._prompt and not self._looks_up
            width = width_of(steps, room, capacity)
            extended[(rows, _width(count)), capacity, width, choice, is_stored] = None
            for more in drafted if filled >= self._prompt else ():
                extended[(rows, _width(more)), capacity, width, replace(choice, every=True), False] = None
                if capacity < (pages := pages_of(filled + more)):
                    grown[capacity, self._pool.capacity_for(steps, pages)] = None
            filled += count
        done, total = 0, len(grown) + len(extended) + bool(self._source)
        progress_callback(done, total)
        fixed: Specs = {}
        if self._source:
            _, fixed = await steps.compile_begin(self._source["input_ids"].shape, self.options.copies)
            progress_callback(done := done + 1, total)
        for old, new in grown:
            await steps.compile_grow(old, new)
            progress_callback(done := done + 1, total)
        for shape, pages, width, each, is_stored in extended:
            await steps.compile_extend(shape, pages, width, fixed, each, is_stored=is_stored)
            progress_callback(done := done + 1, total)

    def close(self) -> None:
        """Give the pages back, and free what steps read. Safe to call twice."""
        self._batch.leave(self)
        for tensor in (*self._fixed.values(), *(self._ahead or ())):
            tensor.release()
        for row, text in enumerate(self._texts):
            self._pool.know(text, self._text(row))
            self._pool.close(text)
        self._chosen.clear()
        self._drafted.clear()
        self._texts, self._fixed, self._ahead = [], {}, None


async def complete(session: GenerationSession, on_token: Callable[[Any], None] | None = None) -> Any:
    """Generate to the end. Returns all tokens, and with ``output_logprobs`` the log-probabilities of new ones, too.

    ``on_token`` gets what :func:`stream` yields.
    """
    try:
        while not session.is_done:
            chosen = await session.step()
            if on_token is not None:
                on_token(_of_step(session, chosen))
        return session.result()
    finally:
        session.close()


async def stream(session: GenerationSession) -> AsyncGenerator[Any, None]:
    """Yield the tokens of each step, (batch,); with ``output_logprobs`` pairs of them and their log-probabilities.

    Closing the iterator, or cancelling the task, frees the memory.
    """
    try:
        while not session.is_done:
            yield _of_step(session, await session.step())
    finally:
        session.close()


def _of_step(session: GenerationSession, chosen: Ids) -> Any:
    return (chosen, session.logprobs[-1]) if session.options.output_logprobs else chosen


def _max_length(options: Options, prompt: int) -> int:
    """Return the width of the tokens at which a generation ends.

    Raises:
        ShapeMismatch: ``max_length`` leaves no room after the prompt.
    """
    if options.max_new_tokens is None and options.max_length is not None:
        if options.max_length <= prompt:
            raise ShapeMismatch(
                f"max_length={options.max_length} includes the prompt, which has {prompt} tokens: "
                "raise it, or pass max_new_tokens"
            )
        return options.max_length
    return prompt + (DEFAULT_NEW_TOKENS if options.max_new_tokens is None else options.max_new_tokens)


def _first_tokens(tokens: Sequence[int], rows: int, vocab_size: int) -> Ids:
    """Return the start tokens (rows, 1), from one token for all rows or one for each row."""
    if len(tokens) not in (1, rows):
        raise ShapeMismatch(
            f"decoder_start_token_id must be one token, or one for each of the {rows} rows, not {len(tokens)} tokens"
        )
    if outside := [token for token in tokens if not 0 <= token < vocab_size]:
        raise TensorCommonsError(
            f"decoder_start_token_id {quoted(outside[0])} is outside the vocabulary of {vocab_size}"
        )
    return np.broadcast_to(np.array(tokens, np.int32)[:, None], (rows, 1)).copy()


def _prompts(ids: Any, attention_mask: Any, vocab_size: int) -> tuple[Ids, Ids]:
    """Check the prompts and their mask, and convert both to int32 (batch, sequence)."""
    tokens = checked_ids(ids, vocab_size)
    mask = np.ones_like(tokens) if attention_mask is None else host_array(attention_mask)
    if mask.shape != tokens.shape or not np.isin(mask, (0, 1)).all() or not mask.any(axis=1).all():
        raise ShapeMismatch(
            f"attention_mask must be 0 and 1 in the shape of input_ids, {tokens.shape}, with a 1 in every row"
        )
    return tokens.astype(np.int32), mask.astype(np.int32)


def _width(count: int) -> int:
    """Return the number of columns of the step for ``count`` tokens."""
    return next((size for size in WIDTHS if size >= count), -(-count // WIDTHS[-1]) * WIDTHS[-1])


def _piece(missing: Sequence[int], longest: int) -> list[int]:
    """Return how many of the ``missing`` tokens of each text to process at once, ``longest`` at most.

    The last piece has a token of every text that misses any.
    """
    if max(missing) <= longest:
        return list(missing)
    return [min(max(count - 1, 0), longest) for count in missing]


def _padded(array: Ids, width: int | None = None) -> Ids:
    """Append zeros to the columns of ``array``, up to ``width`` or the width of a step."""
    columns = array.shape[1]
    return np.pad(array, ((0, 0), (0, (width or _width(columns)) - columns)))
