"""Texts of several generations of one model, written in one batch: they join and leave between steps.

A generation that is alone runs ahead of its reads (generation.py). As soon as several are under way, each asks here for
the results of its next step, and those that ask at the same time take part in one run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..bridge.runtime import retrieve
from ..errors import MemoryBudgetError
from ..graph.bound import RunsInParts
from ..sharing.storage import Storage
from ..tensor import Tensor
from .decode_programs import Array, Arrays, Choice, DecodePrograms
from .page_pool import PagePool, PagesLost, Text

READ_EVERY = 0.03  # seconds
MOST_STEPS = 16  # in one call
MOST_ROWS = 64  # of a batch
TURNS = 8  # of the event loop, for which a run waits for others


@dataclass(eq=False)
class Request:
    """The next step of one generation.

    ``tokens`` (rows,) are the last tokens of ``texts``, ``counts`` 1 for each that goes on and 0 for each that has
    ended. ``inputs(ahead)`` returns the inputs of ``choice`` for the step ``ahead`` steps later. ``left`` is the number
    of steps before the generation ends. ``answer`` gets the results of one step (rows, ...), or of several (steps,
    rows, ...).
    """

    texts: Sequence[Text]
    tokens: Array  # (rows,)
    counts: Sequence[int]
    choice: Choice
    inputs: Callable[[int], Arrays]
    left: int
    together: int = 1  # generations in the run that answers it
    answer: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batch:
    """The generations of one model on its device, with its programs ``steps``."""

    def __init__(self, steps: DecodePrograms) -> None:
        self.steps = steps
        self._pool: tuple[int, PagePool] | None = None
        self._members: set[Any] = set()
        self._waiting: list[Request] = []
        self._leads = asyncio.Lock()
        self._at_once = 1
        self._ended = 0.0

    def join(self, member: object) -> None:
        """Count a generation."""
        self._members.add(member)

    def leave(self, member: object) -> None:
        """Count a generation no more. Safe to call twice."""
        self._members.discard(member)

    @property
    def pool(self) -> PagePool:
        """The keys and values of texts, which models of the same graph and weights on the device have in common."""
        if self._pool is None or self._pool[0] != Storage.renames:
            self._pool = Storage.renames, PagePool.of(self.steps.device, self.steps.identity())
        return self._pool[1]

    @property
    def is_shared(self) -> bool:
        """True if several generations are under way."""
        return len(self._members) > 1

    async def step(self, request: Request) -> Array:
        """Return the results of the step of ``request``, and of later ones if tokens are chosen on the device."""
        self._waiting.append(request)
        request.answer.add_done_callback(retrieve)
        try:
            while not request.answer.done():
                async with self._leads:  # one run at a time; it takes all requests that there are when it begins
                    if not request.answer.done():
                        await self._others()
                        await self._run([each for each in self._waiting if _goes_with(each, request)])
        finally:
            self._waiting.remove(request)
        return np.asarray(request.answer.result())

    async def _others(self) -> None:
        """Wait for generations that were answered by the last run and ask again at once."""
        for _ in range(TURNS):
            if len(self._waiting) >= len(self._members):
                return
            await asyncio.sleep(0)

    async def _run(self, requests: Sequence[Request]) -> None:
        """Answer ``requests``, which are of one kind, as many as fit into a batch."""
        taken, rows = list[Request](), 0
        for request in requests:
            if not all(map(self.pool.has, request.texts)):
                request.answer.set_exception(PagesLost())
            elif not taken or rows + len(request.texts) <= MOST_ROWS:
                taken.append(request)
                rows += len(request.texts)
        if not taken:
            return
        try:
            results = await self._results(taken)
        except MemoryBudgetError as error:
            if len(taken) == 1:
                taken[0].answer.set_exception(error)
            else:
                await self._run(taken[:1])  # the others ask again
            return
        first = 0
        for request in taken:
            request.together = len(taken)
            last = first + len(request.texts)
            if not request.answer.done():
                request.answer.set_result(results[..., first:last, :])
            first = last

    async def _results(self, requests: Sequence[Request]) -> Array:
        choice = requests[0].choice
        texts = [text for request in requests for text in request.texts]
        counts = [count for request in requests for count in request.counts]
        tokens = np.concatenate([request.tokens for request in requests])[:, None]
        filled, pool, padding = [text.filled for text in texts], self.pool, rows_of(len(texts)) - len(texts)
        texts += [Text(losses=pool.losses, pool=pool) for _ in range(padding)]
        counts += [0] * padding
        ids = np.pad(tokens, ((0, padding), (0, 0))).astype(np.int32)

        def inputs(ahead: int) -> Arrays:
            given = [request.inputs(ahead) for request in requests]
            joined = {name: np.concatenate([each[name] for each in given]) for name in given[0]}
            return {name: np.pad(array, ((0, padding), *[(0, 0)] * (array.ndim - 1))) for name, array in joined.items()}

        try:
            answer = await pool.extend(self.steps, ids, texts, counts, inputs(0), {}, choice)
            ahead = min(self._at_once, *(request.left for request in requests)) - 1 if choice.is_token else 0
            read, chosen = 1, [answer]
            if ahead > 0 and self.steps.runs_several:
                later = [inputs(i) for i in range(1, ahead + 1)]
                try:
                    _, every = await pool.extend_by(self.steps, answer, texts, counts, later, {}, choice)
                except (MemoryBudgetError, RunsInParts):
                    self._at_once = 1
                else:
                    read, chosen = ahead + 1, [answer, every]
            values = await _read(chosen)
        except BaseException:  # nobody gets these tokens: the next step writes the same ones again
            for text, count in zip(texts, filled, strict=False):
                if pool.has(text):
                    text.filled = count
            raise
        now = time.monotonic()
        pace, self._ended = (now - self._ended) / read, now
        self._at_once = min(2 * self._at_once, max(int(READ_EVERY / max(pace, 1e-6)), 1), MOST_STEPS)
        return values


async def _read(results: Sequence[Tensor]) -> Array:
    """Read the result of a step (rows, ...), and those of later ones (steps, rows, ...) as one array with it."""
    first, *later = [np.asarray(await result.read()) for result in results]
    return np.concatenate([first[None], *later]) if later else first


def _goes_with(one: Request, other: Request) -> bool:
    return not one.answer.done() and one.choice == other.choice


def rows_of(count: int) -> int:
    """Round ``count`` up to a power of two or three quarters of one, so that few programs are compiled."""
    size = 1 << (count - 1).bit_length()
    return size * 3 // 4 if size >= 4 and size * 3 // 4 >= count else size
