"""The pages of the keys and values of a model: which are free, which belong to which texts, and what is in them.

A page that is full is known by its tokens and all tokens before them, so a text that begins like an earlier one finds
its first pages there. Pages that no text has any more stay until their room is needed, the least recently used go
first, and of one text the last: what is gone is computed again. Under memory pressure the pools are freed as a whole,
if no text is in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from ..backends.device import Device
from ..bridge.runtime import retrieve
from ..errors import MemoryBudgetError, TensorReleased
from ..ops.paging import BEFORE, NEW, PAGES
from ..tensor import Tensor
from .decode_programs import Array, Arrays, Choice, DecodePrograms, Tensors
from .decoder import PAGE

T = TypeVar("T")

FEW_PAGES = 4  # the smallest pools and tables
FREE_PAGES = 32  # the narrowest table where attention follows the lengths of texts, so that width costs nothing


@dataclass(eq=False)
class Text:
    """The pages of one text, a row of a batch.

    Its first ``filled`` tokens have keys and values in ``pages`` of ``pool``, which are valid while ``losses`` equals
    that of the pool; ``pool`` is None before it begins and after it is closed. ``keys`` are the hashes of its full
    pages. ``expected`` is the number of tokens to make room for at first. ``source`` is the input of the encoder, as
    bytes; empty without an encoder.
    """

    source: bytes = b""
    expected: int = 0
    room: int = 0  # pages of its row of a table
    pages: list[int] = field(default_factory=list)
    filled: int = 0
    keys: list[bytes] = field(default_factory=list)
    losses: int = 0
    pool: PagePool | None = None


class PagesLost(Exception):
    """The keys and values of a text are gone: it has to begin again."""


@dataclass
class _Page:
    """``uses`` is the number of texts that have the page, ``key`` its key if it is known, ``depth`` its place there."""

    uses: int = 0
    key: bytes | None = None
    depth: int = 0
    last_use: int = 0


class PagePool:
    """The pools of keys and values of all texts that models of one graph and the same weights write on a device.

    ``key`` stands for the graph and the weights. ``losses`` counts how often all pages were lost, with the device or by
    a run that failed: texts then begin again.
    """

    def __init__(self, device: Device, key: str) -> None:
        self.device, self.key = device, key
        self.losses = 0
        self._tensors: dict[str, Tensor] = {}
        self._pages: list[_Page] = []
        self._known: dict[bytes, int] = {}
        self._clock = 0
        self._lock = asyncio.Lock()
        self._runs: asyncio.Task[Any] | None = None  # that runs a program over the pools
        self._device_losses = device.losses
        device.caches.add(self)

    @classmethod
    def of(cls, device: Device, key: str) -> PagePool:
        """Return the pools of ``key`` on ``device``: those of another model, or new ones."""
        known = (cache for cache in device.caches if isinstance(cache, PagePool) and cache.key == key)
        return next(known, None) or cls(device, key)

    # --- memory ---

    @property
    def capacity(self) -> int:
        """Number of pages that there is memory for."""
        return len(self._pages)

    @property
    def pages_in_use(self) -> int:
        """Number of pages that texts have."""
        return sum(page.uses > 0 for page in self._pages)

    @property
    def nbytes(self) -> int:
        """Bytes of the pools on the device."""
        storages = {tensor.node.storage for tensor in self._tensors.values()}  # one for several while they are empty
        return sum(storage.nbytes for storage in storages if storage is not None)

    @property
    def idle_bytes(self) -> int:
        """Bytes that :meth:`free_idle` frees."""
        return 0 if self._lock.locked() or self.pages_in_use else self.nbytes

    def free_idle(self) -> bool:
        """Free the pools if no text has pages. Returns False if there is nothing to free."""
        if not self.idle_bytes:
            return False
        self._clear()
        return True

    def lose(self) -> None:
        """Invalidate all pages and free the pools: every text starts over."""
        self._clear()
        self.losses += 1

    def _clear(self) -> None:
        for tensor in self._tensors.values():
            tensor.release()
        self._tensors, self._pages, self._known = {}, [], {}

    def check(self) -> int:
        """Return ``losses``, after the device was lost one more."""
        if self._device_losses != self.device.losses:
            self._device_losses = self.device.losses
            self.lose()
        return self.losses

    # --- texts ---

    def begin(self, text: Text, tokens: Array) -> None:
        """Give ``text`` the pages that are known for its first ``tokens``, instead of those that it has.

        The last token is left out: the next one is computed from it.
        """
        self.close(text)
        text.losses, text.pool = self.check(), self
        for key in _keys(text.source, tokens[:-1]):
            if key not in self._known:
                break
            number = self._known[key]
            self._pages[number].uses += 1
            text.pages.append(number)
            text.keys.append(key)
        text.filled = len(text.pages) * PAGE

    def has(self, text: Text) -> bool:
        """Return whether the pages of ``text`` are in these pools and valid."""
        return text.pool is self and text.losses == self.losses

    def know(self, text: Text, tokens: Array) -> None:
        """Make the full pages of ``text`` known by its ``tokens``."""
        tokens = tokens[: text.filled]
        if not self.has(text) or len(tokens) // PAGE == len(text.keys):
            return
        for depth, key in enumerate(_keys(text.source, tokens)):
            if depth == len(text.keys):
                text.keys.append(key)
                page = self._pages[text.pages[depth]]
                if key not in self._known and page.key is None:
                    page.key, page.depth = key, depth
                    self._known[key] = text.pages[depth]

    def close(self, text: Text) -> None:
        """Release the pages of ``text``; those that are known stay until they are evicted."""
        self._clock += 1
        for number in text.pages if self.has(text) else ():
            page = self._pages[number]
            page.uses -= 1
            page.last_use = self._clock
        text.pages, text.filled, text.keys, text.pool = [], 0, [], None
        if not self.device.budget.idle_share:
            self.free_idle()

    async def reorder(self, steps: DecodePrograms, texts: Sequence[Text], parents: Sequence[int]) -> list[Text]:
        """Replace ``texts`` by copies of ``texts[parent]`` for each of ``parents``, and release the old ones.

        Copies share full pages; a page that is partly filled is copied for all but the first.

        Raises:
            MemoryBudgetError: the copies do not fit beside the model; ``texts`` are as they were.
            PagesLost: see there.
        """
        made = [replace(texts[parent], pages=[], keys=list(texts[parent].keys)) for parent in parents]
        try:
            await self._finished(self._reorder(steps, texts, parents, made), texts)
        except asyncio.CancelledError:
            for text in made:
                self.close(text)
            raise
        return made

    async def _reorder(
        self, steps: DecodePrograms, texts: Sequence[Text], parents: Sequence[int], made: Sequence[Text]
    ) -> None:
        again = [i for i, parent in enumerate(parents) if parent in parents[:i] and texts[parent].filled % PAGE]
        async with self._locked(texts):
            free = await self._free_pages(steps, len(again))
            pages = [texts[parent].pages[: pages_of(texts[parent].filled)] for parent in parents]
            sources = [pages[i][-1] for i in again]
            for i in again:
                pages[i][-1] = heapq.heappop(free)
            if again:
                with self._running():
                    losses = self.losses
                    copied = await steps.copy(self._tensors, _copies(sources), _copies([pages[i][-1] for i in again]))
                    self._replace(copied, losses)
            for text, own in zip(made, pages, strict=True):
                text.pages = own
                for number in own:
                    self._pages[number].uses += 1
            for text in texts:
                self.close(text)

    # --- steps ---

    @asynccontextmanager
    async def _locked(self, texts: Sequence[Text]) -> AsyncIterator[None]:
        """Hold the pools, in which ``texts`` have their pages."""
        async with self._lock:
            self.check()
            if not all(map(self.has, texts)):
                raise PagesLost
            yield

    async def _finished(self, work: Coroutine[Any, Any, T], texts: Sequence[Text]) -> T:
        """Await ``work`` on ``texts``. A cancellation waits for the end of its run if other texts have pages here.

        The pools are donated to a run, so all pages would be lost in the middle of one.
        """
        task = asyncio.ensure_future(work)
        task.add_done_callback(retrieve)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            own = {number for text in texts for number in text.pages}
            others = any(page.uses or page.key for i, page in enumerate(self._pages) if i not in own)
            if self._runs is not task or not others:
                task.cancel()
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            raise

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Invalidate the pools if a run fails after it consumed them, as they are donated.

        Raises PagesLost if they were lost meanwhile.
        """
        before, losses, self._runs = list(self._tensors.values()), self.losses, asyncio.current_task()
        try:
            yield
        except TensorReleased:
            if self.losses != losses:
                raise PagesLost from None
            raise
        except BaseException:
            if any(tensor.node.storage is None or not tensor.node.storage.is_resident for tensor in before):
                self.lose()
            raise
        finally:
            self._runs = None

    @asynccontextmanager
    async def _growing(
        self, steps: DecodePrograms, texts: Sequence[Text], counts: Sequence[int]
    ) -> AsyncIterator[None]:
        """Hold the pools, with room for ``counts`` more tokens of each of ``texts``."""
        async with self._locked(texts):
            wanted = [
                pages_of(text.filled + count) - len(text.pages) for text, count in zip(texts, counts, strict=True)
            ]
            free = await self._free_pages(steps, sum(max(each, 0) for each in wanted))
            if not all(map(self.has, texts)):  # one was closed while the pools grew
                raise PagesLost
            for text, count in zip(texts, wanted, strict=True):
                for _ in range(count):
                    text.pages.append(number := heapq.heappop(free))
                    self._pages[number].uses = 1
            with self._running():
                yield

    async def extend(
        self, steps: DecodePrograms, ids: Any, texts: Sequence[Text], counts: Sequence[int], inputs: Arrays,
        fixed: Tensors, choice: Choice,
    ) -> Tensor:  # fmt: skip
        """Process ``counts`` more tokens of each of ``texts``: the first columns of ``ids`` (rows, sequence).

        ``inputs`` are those of ``choice``. Returns the result of :meth:`DecodePrograms.extend`.

        Raises:
            MemoryBudgetError: the pages do not fit beside the model.
            PagesLost: see there.
        """
        return await self._finished(self._extend(steps, ids, texts, counts, inputs, fixed, choice), texts)

    async def _extend(
        self, steps: DecodePrograms, ids: Any, texts: Sequence[Text], counts: Sequence[int], inputs: Arrays,
        fixed: Tensors, choice: Choice,
    ) -> Tensor:  # fmt: skip
        async with self._growing(steps, texts, counts):
            given = {"table": table(texts, counts, self._width(steps, texts)), **inputs}
            losses = self.losses
            answer, tensors = await steps.extend(ids, given, self._tensors, fixed, choice)
            self._replace(tensors, losses)
            self._advance(texts, counts)
            return answer

    async def extend_by(
        self, steps: DecodePrograms, token: Any, texts: Sequence[Text], counts: Sequence[int], inputs: Sequence[Arrays],
        fixed: Tensors, choice: Choice,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Run a step of ``counts`` tokens, 0 or 1, of each text for each of ``inputs``, in one call.

        Returns the last token and the tokens of all steps, see :meth:`DecodePrograms.extend_by`. Raises as it does.
        """
        return await self._finished(self._extend_by(steps, token, texts, counts, inputs, fixed, choice), texts)

    async def _extend_by(
        self, steps: DecodePrograms, token: Any, texts: Sequence[Text], counts: Sequence[int], inputs: Sequence[Arrays],
        fixed: Tensors, choice: Choice,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        steps_of = [[count * (i + 1) for count in counts] for i in range(len(inputs))]
        async with self._growing(steps, texts, steps_of[-1]):
            width = self._width(steps, texts)
            given = [
                {"table": table(texts, counts, width, ahead=[count * i for count in counts]), **each}
                for i, each in enumerate(inputs)
            ]
            losses = self.losses
            last, every, tensors = await steps.extend_by(token, given, self._tensors, fixed, choice)
            self._replace(tensors, losses)
            self._advance(texts, steps_of[-1])
            return last, every

    def _width(self, steps: DecodePrograms, texts: Sequence[Text]) -> int:
        """Return the number of pages of a table for ``texts``, of few different ones."""
        for text in texts:
            text.room = room_of(len(text.pages), text.room, text.expected)
        return width_of(steps, max(text.room for text in texts), self.capacity)

    async def _free_pages(self, steps: DecodePrograms, count: int) -> list[int]:
        """Return a heap of at least ``count`` free pages: grow the pools, or evict pages that no text uses.

        Raises MemoryBudgetError if neither suffices.
        """
        grows = True
        while True:  # other texts find pages, and give theirs back, while the pools grow
            unused = [(number, page) for number, page in enumerate(self._pages) if not page.uses]
            free = [number for number, page in unused if page.key is None]
            idle = [(page.last_use, -page.depth, number) for number, page in unused if page.key is not None]
            if len(free) >= count or (not grows and len(unused) >= count):
                break
            grows = await self._grown(steps, self.pages_in_use + count)
        heapq.heapify(idle)
        while len(free) < count:
            number = heapq.heappop(idle)[2]
            key = self._pages[number].key
            assert key is not None
            del self._known[key]
            self._pages[number] = _Page()
            free.append(number)
        heapq.heapify(free)
        return free

    async def _grown(self, steps: DecodePrograms, pages: int) -> bool:
        """Grow the pools, in which texts shall have so many pages. Returns False if they are large enough.

        Raises MemoryBudgetError if they have to grow and cannot.
        """
        for capacity in (self.capacity_for(steps, pages), capacity_of(pages)):
            if capacity > self.capacity:
                try:
                    await self._grow(steps, capacity)
                except MemoryBudgetError:
                    if pages > self.capacity and capacity == capacity_of(pages):
                        raise
                else:
                    return True
        return False

    def capacity_for(self, steps: DecodePrograms, pages: int) -> int:
        """Return the capacity of pools in which texts have so many pages.

        There is room for as many pages of earlier texts, if they may take it and memory is free; not where a step
        copies its pools.
        """
        page = sum(spec.nbytes for spec in steps.pools(1).values())
        budget = self.device.budget
        twice = capacity_of(2 * pages)
        fits = (twice - pages) * page <= budget.idle_share * budget.usable and twice * page <= budget.free_bytes()
        return twice if fits and not self.device.backend.takes_graphs else capacity_of(pages)

    def _advance(self, texts: Sequence[Text], counts: Sequence[int]) -> None:
        """Count new tokens of the texts that were not closed during the run."""
        for text, count in zip(texts, counts, strict=True):
            if self.has(text):
                text.filled += count

    def _replace(self, tensors: Tensors, losses: int) -> None:
        """Replace the pools by the results of a run. Raises PagesLost if they were lost since there were ``losses``."""
        if losses != self.losses:
            for tensor in tensors.values():
                tensor.release()
            raise PagesLost
        self._tensors = tensors

    async def _grow(self, steps: DecodePrograms, pages: int) -> None:
        losses = self.losses
        if self._tensors:
            old, tensors = self._tensors, await steps.grow(self._tensors, self.capacity, pages)
            self._replace(tensors, losses)
            for tensor in old.values():
                tensor.release()
        else:
            self._replace(await steps.empty(pages), losses)
        self._pages += [_Page() for _ in range(pages - self.capacity)]


def table(texts: Sequence[Text], counts: Sequence[int], width: int, ahead: Sequence[int] | None = None) -> Array:
    """Return the table of :mod:`~..ops.paging` for ``counts`` new tokens of each text, after ``ahead`` more."""
    made = np.full((len(texts), PAGES + width), -1, np.int32)
    for row, (text, count) in enumerate(zip(texts, counts, strict=True)):
        made[row, BEFORE] = (text.filled + (ahead[row] if ahead else 0)) if count else 0
        made[row, NEW] = count
        made[row, PAGES : PAGES + len(text.pages)] = text.pages
    return made


def _copies(pages: Sequence[int]) -> Array:
    """Return a table of one full page a row, of few different numbers of rows."""
    made = np.full((copies_of(len(pages)), PAGES + 1), (0, 0, -1), np.int32)
    made[: len(pages), NEW] = PAGE
    made[: len(pages), PAGES] = pages
    return made


def copies_of(count: int) -> int:
    """Round ``count`` up to a power of two, so that few programs are compiled."""
    return 1 << (count - 1).bit_length()


def pages_of(tokens: int) -> int:
    """Return the number of pages of so many tokens."""
    return -(-tokens // PAGE)


def width_of(steps: DecodePrograms, room: int, capacity: int) -> int:
    """Return the width of a table in pages for texts with ``room``: at least FREE_PAGES where more cost nothing."""
    width = min(max(room, FREE_PAGES), capacity) if steps.follows_lengths else room
    return min(width, pages_of(steps.decoder.max_length))


def room_of(pages: int, present: int, expected: int) -> int:
    """Return the pages in a text's row of a table: ``present`` if they suffice; at first for ``expected`` tokens."""
    if pages <= present:
        return present
    if not present:
        pages = max(pages, pages_of(expected))
    return max(1 << (pages - 1).bit_length(), FEW_PAGES)


def capacity_of(pages: int) -> int:
    """Return the capacity of pools for so many pages: few different ones, so that few programs are compiled."""
    size = max(1 << (pages - 1).bit_length(), FEW_PAGES)
    return size * 3 // 4 if size >= 64 and size * 3 // 4 >= pages else size


def _keys(source: bytes, tokens: Array) -> Iterator[bytes]:
    """Yield the key of each full page of ``tokens``: a hash of the tokens up to its end, and of the ``source``."""
    key = hashlib.blake2b(source, digest_size=16).digest()
    data = np.ascontiguousarray(tokens, "<i4")
    for start in range(0, len(data) - PAGE + 1, PAGE):
        key = hashlib.blake2b(key + data[start : start + PAGE].tobytes(), digest_size=16).digest()
        yield key
