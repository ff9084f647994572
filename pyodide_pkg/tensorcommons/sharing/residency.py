"""The budget of managers: what is evicted under memory pressure, in which order, and how it comes back.

Order of eviction: weights that graphs have once more as constants; activations kept for later runs; keys and values of
texts that are not being written; the scratch arena of an idle device; then entries without a holder; then held ones,
the least recently used first; then compiled programs, which cost most to make again. Pinned entries and whatever a
running program uses never leave. An eviction keeps a copy in host memory, or none where a local origin can be read
again; the next use restores. All of this is checked *before* the first byte leaves, so a request that cannot fit
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from weakref import WeakSet, finalize

from ..backends.budget import STAGING_RESERVE, Budget, Category
from ..backends.device import Device
from ..bridge.runtime import Slices, WouldWaitError, can_suspend, in_slices, run_now, suspend
from ..errors import DeviceLost, DeviceMemoryError, DeviceUnavailable, MemoryBudgetError, TensorCommonsError, quoted
from ..graph.needs import Need
from .activation_cache import ActivationCache
from .lock import Bundle, touch
from .registry import Entry, Registry
from .storage import Storage


@dataclass(eq=False)
class Share:
    """One manager's part of a budget: what it holds, its limit in bytes, and what happened since it was made.

    ``goal`` is below the limit while bytes leave for a lower one.
    """

    registry: Registry
    activations: ActivationCache
    limit: int
    goal: int = 0
    peak: int = 0
    evictions: int = 0
    evicted_bytes: int = 0
    restores: int = 0
    restored_bytes: int = 0

    def __post_init__(self) -> None:
        self.goal = self.limit


class Residency(Budget):
    """The budget of the devices of a tab. Managers on the same devices share it, and the smallest limit holds."""

    def __init__(self, devices: Sequence[Device]) -> None:
        super().__init__()
        self.devices = devices
        self._needs_staging = not all(device.facts.is_host for device in devices)
        self._shares: WeakSet[Share] = WeakSet()
        self._waiting: list[tuple[Collection[Storage], asyncio.Future[None]]] = []
        self._arriving = 0  # bytes of tensors that were taken, and are not all there yet
        self._changing = asyncio.Lock()
        self._evicting = asyncio.Lock()

    @classmethod
    def of(cls, devices: Sequence[Device], share: Share) -> Residency:
        """Return the budget of ``devices``, new or that of another manager, with ``share`` in it.

        Raises:
            TensorCommonsError: only some of the devices are under another manager's budget.
            MemoryBudgetError: what is on the devices does not fit under the limit, and cannot leave at once.
        """
        found = {device.budget for device in devices if isinstance(device.budget, Residency)}
        if any(set(budget.devices) != set(devices) for budget in found):
            raise TensorCommonsError(
                "another manager uses some of these devices and not the others: pass the same devices to both managers"
            )
        budget = found.pop() if found else cls(devices)
        assert isinstance(budget, Residency)
        budget._shares.add(share)
        budget._sum_up()
        try:
            budget.make_room_now(0)
        except MemoryBudgetError:
            budget._shares.discard(share)
            budget._sum_up()
            raise
        finalize(share, budget._sum_up).atexit = False
        for device in devices:
            device.put_under(budget)
        return budget

    def leave(self, share: Share) -> None:
        """End the part of ``share`` in the budget: its limit counts no more. Does nothing the second time."""
        self._shares.discard(share)
        self._sum_up()
        self.use_ended()  # what did not fit may fit now

    def _sum_up(self) -> None:
        """Combine the managers' limits after one of them changed; each allocation is checked against the result.

        ``limit`` is the smallest of all, in bytes; ``usable`` the part of it that anything but reads may take.
        """
        self.limit = min((share.limit for share in self._shares), default=2**62)
        self._goal = min((share.goal for share in self._shares), default=2**62)
        reserved = min(STAGING_RESERVE, self._goal // 16 * 4) if self._needs_staging else 0
        self.usable = self._goal - reserved
        self._least_peak = min((share.peak for share in self._shares), default=0)
        self.pins_changed()

    def pins_changed(self) -> None:
        """See :class:`Budget`."""
        self.revision += 1

    @property
    def _entries(self) -> Iterator[Entry]:
        return (entry for share in list(self._shares) for entry in share.registry)

    @property
    def used(self) -> int:
        """Device bytes now, of everything."""
        return sum([device.total for device in self.devices])

    @property
    def cached_bytes(self) -> int:
        """Bytes of activations that are kept for later runs and not in use now."""
        kept = sum(share.activations.idle_bytes for share in self._shares)
        return kept + sum(cache.idle_bytes for device in self.devices for cache in device.caches)

    @property
    def idle_share(self) -> float:
        """See :class:`Budget`."""
        return min((share.activations.share for share in self._shares), default=0.0)

    @property
    def _constant_bytes(self) -> int:
        return sum(device.backend.constant_bytes for device in self.devices)

    def free_bytes(self) -> int:
        """Bytes left under the limit."""
        return self.limit - self.used

    def reserve(self, nbytes: int, category: Category) -> None:
        """See :class:`Budget`: called before every allocation."""
        total = self.used + nbytes
        if total > (self.limit if category == "staging" else self.usable):
            raise self.refusal(nbytes)
        if total > self._least_peak:
            self._least_peak = total
            for share in self._shares:
                share.peak = max(share.peak, total)

    def refusal(self, nbytes: int, pinned: Sequence[Entry] = ()) -> MemoryBudgetError:
        """Make the error for ``nbytes`` more bytes, with the holders. ``pinned`` entries are known to be in the way."""
        held: dict[str, int] = {}
        for entry in self._entries:
            if entry.storage.state == "resident":
                for who in entry.names or [f"registered tensor {quoted(entry.name)}"]:
                    held[who] = held.get(who, 0) + entry.storage.nbytes
        for device in self.devices:
            for kind, size in device.memory().items():
                if size and kind not in ("weights", "total", "peak"):
                    held[f"{kind} on {device.kind}"] = size
        return MemoryBudgetError(nbytes, self._goal, list(held.items()), self._remedy(nbytes, pinned))

    def _remedy(self, nbytes: int, pinned: Sequence[Entry]) -> str:
        """Name remedies: what is not pinned leaves by itself, so unpin, raise the limit, or end a use."""
        raised = f"raise max_memory_mb by {-(-nbytes // 2**20)} or more"
        if nbytes > self.usable:
            return raised
        if pinned:
            return f"unpin {', '.join(entry.name for entry in pinned)}, or {raised}"
        movable = self.cached_bytes + self._constant_bytes
        movable += sum(entry.storage.nbytes for entry in self.candidates())
        shortage = self.used - movable + nbytes - self.usable
        unpinned: list[str] = []
        for entry in sorted(self._entries, key=lambda entry: -entry.storage.nbytes):
            if shortage > 0 and entry.pins and entry.storage.state == "resident":
                unpinned.append(entry.name)
                shortage -= entry.storage.nbytes
        if unpinned and shortage <= 0:
            return f"unpin {', '.join(unpinned)}, or {raised}"
        return f"unload a model, release tensors that are in use, or {raised}"

    def candidates(self, keep: Collection[Storage] = ()) -> list[Entry]:
        """Yield what may leave, first to leave first."""
        movable = [
            entry
            for entry in self._entries
            if entry.storage.state == "resident"
            and not entry.pins
            and entry.storage not in keep
            and not entry.storage.in_use
        ]
        return sorted(movable, key=lambda entry: (bool(entry.names), entry.storage.last_used))

    async def make_room(self, nbytes: int, keep: Collection[Storage] = ()) -> None:
        """Evict until ``nbytes`` fit. Storages in ``keep`` stay.

        What reads, writes and runs under way need cannot leave before they end; they are waited for. Raises
        MemoryBudgetError if it cannot be done even then; then nothing left.
        """
        while self.used + nbytes > self.usable and not await self._made_room(nbytes, keep):
            await self._some_use_ends(nbytes, keep)

    async def _made_room(self, nbytes: int, keep: Collection[Storage]) -> bool:
        """Evict until ``nbytes`` fit. False if that takes bytes that are in use now."""
        async with self._evicting:
            while self.used + nbytes > self.usable:
                movable = self.candidates(keep)
                idle = self.cached_bytes + self._constant_bytes
                idle += sum(d.idle_scratch_bytes + d.idle_program_bytes for d in self.devices)
                missing = self.used - idle - sum(e.storage.nbytes for e in movable) + nbytes - self.usable
                if missing > 0:
                    if missing > self._bytes_in_use(keep):
                        raise self.refusal(nbytes)
                    return False
                await self._evict_one(movable)
        return True

    def _bytes_in_use(self, keep: Collection[Storage]) -> int:
        """Bytes that may leave when a use or run under way ends, or a tensor has arrived: of what does not itself wait
        for room."""
        waited_for = {id(storage) for kept, _ in self._waiting for storage in kept} | {id(s) for s in keep}
        return (
            self._arriving
            + sum(device.busy_bytes for device in self.devices)
            + sum(
                entry.storage.nbytes
                for entry in self._entries
                if (entry.storage.is_restoring or (entry.storage.is_resident and entry.storage.in_use))
                and not entry.pins
                and id(entry.storage) not in waited_for
            )
        )

    async def _some_use_ends(self, nbytes: int, keep: Collection[Storage]) -> None:
        try:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        except RuntimeError:  # nothing goes on beside a caller without a loop
            raise self.refusal(nbytes) from None
        self.use_ended()  # others that wait may have counted on what this one uses
        self._waiting.append((keep, turn))
        try:
            await turn
        finally:
            self._waiting.remove((keep, turn))

    @contextmanager
    def arriving(self, nbytes: int) -> Iterator[None]:
        """Count ``nbytes`` of a new tensor as not evictable within the block, which must not ask for more room."""
        self._arriving += nbytes
        try:
            yield
        finally:
            self._arriving -= nbytes
            self.use_ended()

    def use_ended(self) -> None:
        """Wake up everything that waits for room."""
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    def room(self, storages: Collection[Storage] = ()) -> int:
        """The most bytes that a run over ``storages`` may have at once: others that are pinned stay beside it."""
        pinned = sum(entry.storage.nbytes for entry in self._entries if entry.pins and entry.storage not in storages)
        return self.usable - pinned

    def held(self, storages: Collection[Storage] = ()) -> int:
        """See :class:`Budget`: activations that no manager keeps."""
        own = [each for each in set(storages) if each.category == "activations" and each.is_resident]
        held = sum(device.memory()["activations"] for device in self.devices) - self.cached_bytes
        return max(held - sum(storage.nbytes for storage in own if not storage.is_cached), 0)

    def check_together(self, nbytes: int, keep: Collection[Storage] = ()) -> None:
        """Raise MemoryBudgetError if ``nbytes`` cannot be resident together, whatever else leaves.

        Those of ``keep`` are among ``nbytes``; pinned entries stay in any case.
        """
        if nbytes > self.room(keep):
            raise self.refusal(nbytes, [entry for entry in self._entries if entry.pins and entry.storage not in keep])

    async def check_streams(self, nbytes: int, keep: Collection[Storage], least: Callable[[], Slices[Need]]) -> bool:
        """Return whether weights of ``nbytes`` cannot be resident together, so that each run streams them.

        Raises MemoryBudgetError if a run cannot do that either: it takes ``least`` at a time.
        """
        room = self.room(keep)
        if nbytes <= room:
            return False
        need = await in_slices(least())
        if need.nbytes > room:
            error = self.refusal(need.nbytes)
            more = -(-(need.nbytes - room) // 2**20)
            raise MemoryBudgetError(
                need.nbytes,
                self._goal,
                error.holders,
                f"raise max_memory_mb by {more} or more. All weights are {nbytes:,} bytes and would come and go, but "
                f"the part of a run that needs most has {need.weights:,} bytes of them, {need.largest} alone "
                f"{need.largest_bytes:,}",
            )
        return True

    def make_room_now(self, nbytes: int) -> None:
        """:meth:`make_room` for callers that cannot ``await``: works where nothing has to be read back from a GPU.

        Raises MemoryBudgetError where it cannot; ``await make_room(nbytes)`` beforehand can do more.
        """
        if self.used + nbytes <= self.usable:
            return
        try:
            run_now(self.make_room(nbytes))
        except WouldWaitError:
            if not can_suspend():
                raise self.refusal(nbytes) from None
            suspend(self.make_room(nbytes))

    async def _evict_one(self, movable: Sequence[Entry]) -> None:
        """Evict what comes first in the order.

        A graph's constants, an activation, an idle arena, the first of ``movable``, a compiled program.
        """
        for device in self.devices:
            if device.backend.constant_bytes:
                device.backend.drop_constants()
                return
        if any(share.activations.drop_oldest() for share in self._shares):
            return
        if any(cache.free_idle() for device in self.devices for cache in list(device.caches)):
            return
        for device in self.devices:
            if device.idle_scratch_bytes:
                device.free_scratch()
                return
        if movable:
            storage = movable[0].storage
            try:
                left = await storage.evict()
            except DeviceLost:  # nothing there takes room any more
                left = False
                with suppress(DeviceUnavailable):  # in either case its bytes no longer count
                    await storage.device.recover()
            if left:
                for share in self._shares:
                    share.evictions += 1
                    share.evicted_bytes += storage.nbytes
            return
        for device in self.devices:
            if device.idle_program_bytes:
                device.discard_idle_program()
                return

    async def ensure(self, storages: Sequence[Storage], extra: int = 0, bundle: Bundle | None = None) -> int:
        """Bring all of ``storages`` to their devices, with room for ``extra`` bytes more. Mostly they are there.

        Return the bytes that were brought back. Raises MemoryBudgetError if they do not fit together.
        """
        devices = {storage.device for storage in storages}
        if bundle is not None:
            devices.add(bundle.device)
        for device in devices:
            if device.backend.is_lost:
                await device.recover()
        touch(storages)
        if bundle is not None:
            bundle.touch()
            fits = self.used + extra <= self.usable
            if bundle.is_settled and fits and not [each for each in storages if each.state != "resident"]:
                return 0
            storages = [*storages, *bundle.storages]
        brought = 0
        while True:
            away = [storage for storage in storages if storage.state == "offloaded" or storage.state == "dropped"]
            missing = sum(storage.nbytes for storage in away if not storage.is_restoring)
            await self.make_room(missing + extra, storages)
            if not away:
                if bundle is not None:
                    bundle.settle()
                return brought
            restored = []
            for storage in away:
                await storage.wait_for_restore()  # that another caller began
                if storage.state not in ("offloaded", "dropped"):
                    continue
                await self.make_room(storage.nbytes, storages)  # what was made above may be gone by now
                if not storage.is_restoring and await storage.restore():
                    self._restored(storage)
                    brought += storage.nbytes
                    restored.append(storage)
            await self._check(restored)

    async def _check(self, storages: Sequence[Storage]) -> None:
        """Raise DeviceMemoryError where a device had no memory for one of ``storages``, which leaves it again."""
        try:
            for device in {storage.device for storage in storages}:
                handles = [each.handle for each in storages if each.device is device and each.is_resident]
                await device.backend.check(handles)
        except DeviceMemoryError:
            for storage in storages:
                await storage.drop_if_refused()
            raise

    def _restored(self, storage: Storage) -> None:
        for share in self._shares:
            share.restores += 1
            share.restored_bytes += storage.nbytes

    def restore_now(self, storage: Storage) -> None:
        """:meth:`ensure` for callers that cannot ``await``: does nothing where it would have to wait."""
        if storage.host_copy is None or storage.device.backend.is_lost:
            return
        try:
            self.make_room_now(storage.nbytes)
        except MemoryBudgetError:
            return
        if storage.restore_copy():
            self._restored(storage)

    async def set_limit(self, share: Share, limit: int) -> None:
        """Change the limit of ``share`` and evict down to it.

        Raises MemoryBudgetError if too much cannot leave; nothing changed. Reads of what leaves still have the room
        under the limit before; nothing else may grow above the new one.
        """
        async with self._changing:
            share.goal = limit
            self._sum_up()
            try:
                await self.make_room(0)
                share.limit = limit
            finally:
                share.goal = share.limit
                self._sum_up()
