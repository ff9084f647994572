"""Writing token by token: prompts are read in pieces, then every step reads one token a row and chooses the next.

Keys and values stay on the device, in a cache with room for a number of tokens that grows in steps, so that a token
costs one call into JavaScript and one read. All its bytes count under the budget, and they go when the writing ends: by
itself, by an error, by a cancel, or when the iterator is closed. Where a device was lost or the model moved, the tokens
are read again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..dtypes import host_array
from ..errors import DeviceLost, ShapeMismatch, TensorCommonsError
from ..sharing.manager import Movable, TensorSharingManager
from .decoder import Decoder
from .sampling import Ids, Options, Sampler
from .steps import Steps, Tensors

Decode: TypeAlias = "Callable[[Sequence[int]], str]"
PIECES = (1, 8, 16, 32, 64, 128, 256)  # tokens read at once; a longer prompt is read in pieces
CAPACITIES = (64, 128, 256, 512, 1024, 2048, 4096)  # slots of a cache; doubled above
ATTEMPTS = 3  # a step may find its device lost


class Writing(Movable, Protocol):
    """What a writer needs of a model."""

    manager: TensorSharingManager

    def steps(self) -> Steps:
        """Its programs, on the device where it is now."""
        ...


class Writer:
    """One generation. ``tokens`` are all tokens so far (batch, sequence): prompts and what was written.

    ``finished`` says which rows have ended. A row that has ended goes on as padding.
    """

    def __init__(
        self,
        model: Writing,
        decoder: Decoder,
        ids: Any,
        attention_mask: Any,
        options: Options,
        decode: Decode | None = None,
    ) -> None:
        if options.stop_strings and decode is None:
            raise TensorCommonsError("stop_strings need a tokenizer: this model has none here")
        self.options = options
        self._model = model
        self._decoder = decoder
        self._steps = model.steps()
        self._losses = self._steps.device.losses
        self._decode = decode
        prompts, mask = _prompts(ids, attention_mask)
        if prompts.min() < 0 or prompts.max() >= decoder.vocab_size:
            raise TensorCommonsError(
                f"input_ids from {prompts.min()} to {prompts.max()} leave the vocabulary of the model"
            )
        rows = len(prompts)
        self._source: dict[str, Ids] = {}
        self._start = mask.argmax(axis=1).astype(np.int32)
        if decoder.start_token is not None:
            self._source = {"input_ids": _padded(prompts), "attention_mask": _padded(mask)}
            prompts = np.full((rows, 1), decoder.start_token, np.int32)
            self._start = np.zeros(rows, np.int32)
        elif not (np.diff(mask, axis=1) >= 0).all():
            raise ShapeMismatch("prompts of different lengths are padded on the left: every row must end in a token")
        if prompts.shape[1] >= decoder.max_length:
            raise ShapeMismatch(f"{prompts.shape[1]} tokens leave no room in the {decoder.max_length} of the model")
        self.tokens = prompts
        self.finished = np.zeros(rows, bool)
        self._prompt = prompts.shape[1]
        self._sampler = Sampler(options, rows)
        self._filled = 0
        self._capacity = 0
        self._cache: Tensors = {}
        self._fixed: Tensors = {}

    @property
    def is_done(self) -> bool:
        """Whether every row has ended, or the longest that was asked for, or that the model can write, is reached."""
        longest = min(self._prompt + self.options.max_new_tokens, self._decoder.max_length)
        return bool(self.finished.all()) or self.tokens.shape[1] >= longest

    async def step(self) -> Ids:
        """Choose and give the next token of each row: (batch,) int32.

        Raises:
            MemoryBudgetError: the cache does not fit beside the model.
            TensorReleased: the model was unloaded.
        """
        logits, _ = await self._model.manager.finishing([self._model], self._logits)
        chosen = np.where(self.finished, self.options.padding, self._sampler.choose(logits, self.tokens)).astype(
            np.int32
        )
        self.tokens = np.concatenate([self.tokens, chosen[:, None]], axis=1)
        self.finished |= np.isin(chosen, self.options.eos_token_id)
        if self.options.stop_strings and self._decode is not None:
            for row in np.flatnonzero(~self.finished):
                text = self._decode(self.tokens[row, self._prompt :].tolist())
                self.finished[row] = any(stop in text for stop in self.options.stop_strings)
        return chosen

    async def _logits(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._read()
            except DeviceLost:
                pass  # it is opened again below
        return await self._read()

    async def _read(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Read the tokens that are not in the cache yet. Gives the logits after the last one."""
        steps = self._model.steps()
        if steps.device.backend.is_lost:
            await steps.device.recover()
        if (steps, steps.device.losses) != (self._steps, self._losses):  # the model moved, or its device was lost
            self.close()
            self._steps, self._losses = steps, steps.device.losses
        if self._source and not self._fixed:
            self._fixed = await self._steps.begin(self._source)
        while True:
            piece = self.tokens[:, self._filled : self._filled + PIECES[-1]]
            count = piece.shape[1]
            await self._make_room(min(size for size in PIECES if size >= count))
            inputs = {
                "input_ids": _padded(piece, min(self._capacity - self._filled, min(s for s in PIECES if s >= count))),
                "start": self._start,
                "filled": np.array(self._filled, np.int32),
                "count": np.array([count], np.int32),
            }
            logits, self._cache = await self._steps.extend(inputs, self._cache, self._fixed)
            self._filled += count
            if self._filled == self.tokens.shape[1]:
                values: np.ndarray[Any, np.dtype[np.float32]] = await logits.read()
                return values

    async def _make_room(self, count: int) -> None:
        """A cache with ``count`` slots free, unless the model has no more."""
        rows, most = len(self.tokens), self._decoder.max_length
        needed = min(self._filled + count, most)
        if needed <= self._capacity:
            return
        if not self._cache:  # room for the whole prompt, and some of the answer
            needed = max(needed, min(self.tokens.shape[1] + min(self.options.max_new_tokens, CAPACITIES[0] // 2), most))
        capacity = min(next((size for size in CAPACITIES if size >= needed), 2 ** int(needed - 1).bit_length()), most)
        if self._cache:
            self._cache = await self._steps.grow(self._cache, rows, capacity)
        else:
            self._cache = await self._steps.empty(rows, capacity)
        self._capacity = capacity

    def close(self) -> None:
        """Give the cache back. Safe to call twice."""
        for tensor in (*self._cache.values(), *self._fixed.values()):
            tensor.release()
        self._cache, self._fixed, self._filled, self._capacity = {}, {}, 0, 0


async def write(writer: Writer, on_token: Callable[[Ids], None] | None = None) -> Ids:
    """Write to the end; gives all tokens. ``on_token`` gets each step's tokens."""
    async for chosen in stream(writer):
        if on_token is not None:
            on_token(chosen)
    return writer.tokens


async def stream(writer: Writer) -> AsyncIterator[Ids]:
    """The tokens of each step, (batch,). Closing the iterator, or cancelling who awaits it, gives everything back."""
    try:
        while not writer.is_done:
            yield await writer.step()
    finally:
        writer.close()


def _prompts(ids: Any, attention_mask: Any) -> tuple[Ids, Ids]:
    """Both as int32 (batch, sequence)."""
    tokens = host_array(ids)
    mask = np.ones_like(tokens) if attention_mask is None else host_array(attention_mask)
    if tokens.ndim != 2 or 0 in tokens.shape or not np.issubdtype(tokens.dtype, np.integer):
        raise ShapeMismatch(f"input_ids must be whole numbers (batch, sequence), not {tokens.dtype} {tokens.shape}")
    if mask.shape != tokens.shape or not np.isin(mask, (0, 1)).all() or not mask.any(axis=1).all():
        raise ShapeMismatch("attention_mask must be 0 and 1 in the shape of input_ids, with a 1 in every row")
    return tokens.astype(np.int32), mask.astype(np.int32)


def _padded(array: Ids, width: int | None = None) -> Ids:
    """``array`` with zeros behind its columns, up to ``width`` or the next size of :data:`PIECES`."""
    columns = array.shape[1]
    width = width or next((size for size in PIECES if size >= columns), -(-columns // PIECES[-1]) * PIECES[-1])
    return np.pad(array, ((0, 0), (0, width - columns)))
