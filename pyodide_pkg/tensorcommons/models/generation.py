"""Text generation: the prompts are processed in pieces, then each step processes one token of each row.

Keys and values stay on the device, in a cache whose capacity grows in steps. Hardware runs several steps in one call,
each with the token that the one before chose; their tokens are read together, at least every 30 ms. The bytes of the
cache count towards the memory limit. They are freed when the generation ends, by an error or a cancellation too, and
when its iterator is closed. If the device was lost or the model moved, all tokens are processed again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
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
from ..tensor import Tensor
from .decode_programs import Choice, DecodePrograms, Specs, Tensors
from .decoder import Decoder
from .generation_options import DEFAULT_NEW_TOKENS, Options
from .logits_process import Ids, Prompt
from .sampling import Sampler
from .text import checked_ids

Decode: TypeAlias = "Callable[[Sequence[int]], str]"
WIDTHS = (1, 8, 16, 32, 64, 128, 256)  # numbers of tokens in a step, and multiples of the last
READ_EVERY = 0.03  # seconds
MOST_STEPS = 16  # in one call
CAPACITIES = (64, 128, 256, 512, 1024, 2048, 4096)  # slots of a cache; powers of two above


class Generator(Movable, Protocol):
    """The part of a model that a generation uses."""

    manager: TensorSharingManager

    def steps(self) -> DecodePrograms:
        """Return the model's programs on its current device."""


class GenerationSession:
    """One generation. ``tokens`` are all tokens so far (batch, sequence): the prompts and the new tokens.

    With ``num_return_sequences`` n, each prompt has n consecutive rows. ``finished`` marks the rows that have ended,
    which are continued with padding tokens. A padding token outside the vocabulary is an error when a row needs it, or
    at once with ``checks_padding``.
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
        checks_padding: bool = False,
    ) -> None:
        if options.stop_strings and decode is None:
            raise TensorCommonsError("stop_strings need a tokenizer, and this model was loaded without one")
        self.options = options
        self._model = model
        self._decoder = decoder
        self._steps = model.steps()
        self._losses = self._steps.device.losses
        self._decode = decode
        prompts, mask = _prompts(ids, attention_mask, decoder.vocab_size)
        prompts, mask = (np.repeat(array, options.num_return_sequences, 0) for array in (prompts, mask))
        rows = len(prompts)
        if checks_padding and rows > 1:
            self._check_padding()
        self._source: dict[str, Ids] = {}
        self._start = mask.argmax(axis=1).astype(np.int32)
        source, starts = prompts, self._start if self._start.any() else None
        if decoder.start_token is not None:
            self._source = {"input_ids": _padded(prompts), "attention_mask": _padded(mask)}
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
        self._filled = 0
        self._capacity = 0
        self._cache: Tensors = {}
        self._fixed: Tensors = {}
        self._ahead: tuple[Tensor, Tensor] | None = None  # last and all results of steps that started before a read
        self._chosen: deque[Ids] = deque()  # tokens of later steps that were read already
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
            MemoryBudgetError: the cache does not fit beside the model.
            TensorReleased: the model was unloaded.
            TensorCommonsError: the scores are NaN, or a row needs a padding token outside the vocabulary.
        """
        if self.finished.any():
            self._check_padding()
        manager = self._model.manager
        values, fallback = await manager.finishing([self._model], self._next)
        if self._steps.last is not None:
            manager.ran(self._model, *self._steps.last, fallback)
        self._check_numbers(values)
        chosen = values[:, 0] if self._choice.is_token else self._sampler.choose(values, self.tokens)
        if self.options.output_logprobs:
            logprobs = self._sampler.logprobs(values, self.tokens, chosen)
            self.logprobs.append(np.where(self.finished, np.float32(np.nan), logprobs))
        if self.finished.any():
            chosen = np.where(self.finished, self.options.padding, chosen)
        chosen = chosen.astype(np.int32)
        self.tokens = np.concatenate([self.tokens, chosen[:, None]], axis=1)
        self.finished |= np.isin(chosen, self.options.eos_token_id)
        if self.options.stop_strings and self._decode is not None:
            for row in np.flatnonzero(~self.finished):
                text = self._decode(self.tokens[row, self._prompt :].tolist())
                self.finished[row] = any(stop in text for stop in self.options.stop_strings)
        return chosen

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
        return self._sampler.choice(samples=self._steps.samples)

    def _inputs(self, count: int = 1, ahead: int = 0) -> dict[str, Ids]:
        """Return the inputs of a step over ``count`` tokens, after ``ahead`` more than the cache has."""
        filled = self._filled + ahead
        return {
            "start": self._start,
            "filled": np.array(filled, np.int32),
            "count": np.array([count], np.int32),
            **self._sampler.inputs(self._choice, filled + count),
        }

    async def _next(self) -> Ids:
        """Process the tokens that are not in the cache yet. Returns the scores or the tokens after the last one.

        If tokens are chosen on the device, the next step starts before this one's are read, so that the device does not
        wait for the host. One step too many runs at the end of a text.
        """
        steps = self._model.steps()
        if (steps, steps.device.losses) != (self._steps, self._losses):  # the model moved, or its device was lost
            self.close()
            self._steps, self._losses = steps, steps.device.losses
        if self._source and not self._fixed:
            self._fixed = await steps.begin(self._source)
        if self._chosen:
            return self._chosen.popleft()
        ahead, self._ahead = self._ahead, None
        answer, chosen = ahead or (None, None)
        while answer is None or self._filled < self.tokens.shape[1]:
            answer = chosen = await self._extend(self.tokens[:, self._filled : self._filled + steps.longest])
        assert chosen is not None
        count = chosen.shape[0] if chosen.ndim == 3 else 1
        left = self.longest - self.tokens.shape[1] - count
        if not (steps.runs_ahead and self._choice.is_token and left > 0):
            return self._take(await chosen.read())
        reading = asyncio.ensure_future(chosen.read())
        reading.add_done_callback(retrieve)
        try:
            await asyncio.sleep(0)  # so that the copy for the read precedes the next step in the device's queue
            self._ahead = await self._begin_steps(answer, min(left, self._at_once))
        finally:
            values = await reading
        self._adapt(count)
        return self._take(values)

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

    async def _begin_steps(self, token: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Begin up to ``count`` steps after ``token``. Return the last token, and the tokens of all steps.

        Of a single step, both are its token.
        """
        await self._make_room(1)
        count = min(count, self._capacity - self._filled)
        if count > 1 and self._steps.runs_several:
            inputs = [self._inputs(ahead=i) for i in range(count)]
            try:
                last, every, self._cache = await self._steps.extend_by(
                    token, inputs, self._cache, self._capacity, self._fixed, self._choice
                )
            except (MemoryBudgetError, RunsInParts):
                self._at_once = 1
            else:
                self._filled += count
                return last, every
        answer = await self._extend(token)
        return answer, answer

    async def _extend(self, tokens: Ids | Tensor) -> Tensor:
        """Append ``tokens`` (batch, at most a piece) to the cache. Returns the scores or tokens after them."""
        count = tokens.shape[1]
        width = _width(count)
        await self._make_room(width)
        if not isinstance(tokens, Tensor):
            tokens = _padded(tokens, min(self._capacity - self._filled, width))
        answer, self._cache = await self._steps.extend(
            tokens, self._inputs(count), self._cache, self._capacity, self._fixed, self._choice
        )
        self._filled += count
        return answer

    async def _make_room(self, count: int) -> None:
        """Make or grow the cache, so that ``count`` slots are free, up to the model's maximum."""
        rows, capacity = len(self.tokens), self._room(self._filled, count, self._capacity)
        if capacity == self._capacity:
            return
        if self._cache:
            self._cache = await self._steps.grow(self._cache, rows, self._capacity, capacity, self._choice)
        else:
            self._cache = await self._steps.empty(rows, capacity, self._choice)
        self._capacity = capacity

    def _room(self, filled: int, count: int, capacity: int) -> int:
        """Return the capacity of a cache for ``count`` tokens after ``filled``, given its present ``capacity``."""
        most = self._decoder.max_length
        needed = min(filled + count, most)
        if needed <= capacity:
            return capacity
        if not capacity:  # room for the whole prompt and some new tokens
            needed = max(needed, min(self.longest, self._prompt + CAPACITIES[0] // 2))
        return min(next((size for size in CAPACITIES if size >= needed), 2 ** int(needed - 1).bit_length()), most)

    async def compile(self, progress_callback: Callable[[int, int], None]) -> None:
        """Compile every program that the generation may need."""
        steps, rows, choice = self._steps, len(self.tokens), self._choice
        grown: dict[int, int] = {}
        extended: dict[tuple[Shape, int, bool], None] = {}
        filled = capacity = 0
        while filled < max(self.longest - 1, 1):
            count, old = min(max(self._prompt - filled, 1), steps.longest), capacity
            capacity = self._room(filled, _width(count), old)
            if old not in (0, capacity):
                grown[old] = capacity
            shape = (rows, min(_width(count), capacity - filled))
            extended[shape, capacity, steps.runs_ahead and choice.is_token and filled >= self._prompt] = None
            filled += count
        done, total = 0, len(grown) + len(extended) + bool(self._source)
        progress_callback(done, total)
        fixed: Specs = {}
        if self._source:
            _, fixed = await steps.compile_begin(self._source["input_ids"].shape)
            progress_callback(done := done + 1, total)
        for old, new in grown.items():
            await steps.compile_grow(rows, old, new, choice)
            progress_callback(done := done + 1, total)
        for size, room, is_stored in extended:
            await steps.compile_extend(size, room, fixed, choice, is_stored=is_stored)
            progress_callback(done := done + 1, total)

    def close(self) -> None:
        """Free the cache. Safe to call twice."""
        for tensor in (*self._cache.values(), *self._fixed.values(), *(self._ahead or ())):
            tensor.release()
        self._chosen.clear()
        self._cache, self._fixed, self._filled, self._capacity, self._ahead = {}, {}, 0, 0, None


async def complete(session: GenerationSession, on_token: Callable[[Any], None] | None = None) -> Any:
    """Generate to the end. Returns all tokens, and with ``output_logprobs`` the log-probabilities of new ones, too.

    ``on_token`` gets what :func:`stream` yields.
    """
    async with aclosing(stream(session)) as steps:
        async for chosen in steps:
            if on_token is not None:
                on_token(chosen)
    if not session.options.output_logprobs:
        return session.tokens
    return session.tokens, np.stack(session.logprobs, axis=1)


async def stream(session: GenerationSession) -> AsyncGenerator[Any, None]:
    """Yield the tokens of each step, (batch,); with ``output_logprobs`` pairs of them and their log-probabilities.

    Closing the iterator, or cancelling the task, frees the memory.
    """
    try:
        while not session.is_done:
            chosen = await session.step()
            yield (chosen, session.logprobs[-1]) if session.options.output_logprobs else chosen
    finally:
        session.close()


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


def _padded(array: Ids, width: int | None = None) -> Ids:
    """Append zeros to the columns of ``array``, up to ``width`` or the width of a step."""
    columns = array.shape[1]
    return np.pad(array, ((0, 0), (0, (width or _width(columns)) - columns)))
