"""A storage: bytes on a device, known by their content, and where they are now.

::

    resident ──evict──► offloaded (a copy in host memory) or dropped (its origin can be read again)
       ▲                    │
       └─────restore────────┘          released: freed for good      lost: the device took it, nothing has it
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from ..backends.base import Spec
from ..backends.budget import Category
from ..backends.device import Device
from ..backends.recovery import surviving
from ..bridge.byte_buffer import ByteBuffer, Data
from ..errors import (
    DeviceMemoryError,
    DeviceUnavailable,
    InvalidWeights,
    TensorCommonsError,
)
from .lock import Lockable, State, using
from .provenance import ANONYMOUS, Origin, anonymous_identity, blocks_of

_renames = itertools.count(1)
_checks: set[asyncio.Task[None]] = set()  # under way: an event loop keeps no task alive
_made: ContextVar[list[weakref.ref[Storage]] | None] = ContextVar("_made", default=None)  # in the scope under way


def _ignore() -> None:
    """Take no report of a change."""


class Storage(Lockable):
    """``nbytes`` bytes under ``handle`` on ``device``. Freed by :meth:`release`, or when nothing refers to it.

    A storage with a local ``origin`` can be dropped without a copy; with any origin it survives a lost device.
    ``renames`` counts the storages that were written under a known identity: what was derived from one is out of date.
    """

    renames = 0

    def __init__(
        self,
        device: Device,
        handle: int,
        nbytes: int,
        identity: str | None = None,
        category: Category = "activations",
        origin: Origin | None = None,
    ) -> None:
        super().__init__(device, handle)
        self.nbytes = nbytes
        self.identity = identity or anonymous_identity()
        self.category = category
        self.origin = origin
        self.version = 0  # counts writes, so that a copy that was overtaken by one is not kept
        self.is_cached = False  # kept for later runs: the activation cache sets it
        self.leaves: list[weakref.ref[Any]] = []  # the graph nodes that show these bytes
        self.notify: Callable[[], None] = _ignore  # reports a change of what a memory report says of the storage
        self._again: Callable[[], Awaitable[memoryview]] | None = None  # computes lost bytes; only reads call it
        self._host: list[ByteBuffer] | None = None
        self._restored: asyncio.Future[None] | None = None  # done when the restore under way has ended
        self._callbacks: list[Callable[[], None]] = []
        self._rents = 0  # while its device lends it to another, it cannot use it itself
        device.watch(self)
        made = _made.get()
        if made is not None:
            made.append(weakref.ref(self))

    @classmethod
    def upload(
        cls,
        device: Device,
        data: Data,
        category: Category,
        identity: str | None = None,
        origin: Origin | None = None,
        spec: Spec | None = None,
    ) -> Storage:
        """Make a storage with ``data`` in it, the value of a ``spec`` where that is known.

        Raises MemoryBudgetError if it does not fit; nothing changed then."""
        storage = cls.reserve(device, data.nbytes, category, spec, identity, origin)
        try:
            storage.fill(0, data)
        except BaseException:
            storage.release()
            raise
        return storage

    @classmethod
    def reserve(
        cls,
        device: Device,
        nbytes: int,
        category: Category,
        spec: Spec | None = None,
        identity: str | None = None,
        origin: Origin | None = None,
    ) -> Storage:
        """Make a storage whose bytes come with :meth:`fill`. Raises MemoryBudgetError if it does not fit."""
        device.budget.make_room_now(nbytes)
        return cls(device, device.allocate(nbytes, category, spec), nbytes, identity, category, origin)

    def fill(self, offset: int, data: Data) -> None:
        """Write the next bytes of a new storage, in order from its first to its last.

        Does nothing if its device was lost since: they come from the origin then.
        """
        if self.state == "resident":
            self.device.backend.fill(self.number, offset, data)

    def complete(self, identity: str, origin: Origin) -> None:
        """Note identity and origin of the bytes, all of which were written."""
        self.identity, self.origin = identity, origin
        self.regain(origin)

    def regain(self, origin: Origin) -> None:
        """Let the next use of lost bytes read them again from ``origin``."""
        if self.state == "lost":
            self.origin = origin
            self._move("dropped")

    @classmethod
    def away(
        cls,
        device: Device,
        spec: Spec,
        category: Category,
        identity: str,
        origin: Origin,
        copy: list[ByteBuffer] | None,
    ) -> Storage:
        """Make a storage whose first use brings its bytes to the device: from ``copy``, or from the origin."""
        storage = cls(device, device.promise(spec.nbytes, category, spec), spec.nbytes, identity, category, origin)
        storage._host = copy
        storage.state = "dropped" if copy is None else "offloaded"
        return storage

    def _move(self, state: State) -> None:
        self.state = state
        if self._bundles:
            self.unsettle()
        self.notify()
        if state == "released":
            self._changed()

    def when_changed(self, call: Callable[[], None]) -> None:
        """Call ``call`` once, when the bytes change or are released."""
        self._callbacks.append(call)

    def _changed(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for call in callbacks:
            call()

    def shown_by(self, leaf: Any) -> None:
        """Note a graph node that shows these bytes, as long as it is there."""
        self.leaves.append(weakref.ref(leaf, self.leaves.remove))

    @property
    def is_known(self) -> bool:
        """True if :attr:`identity` says what the bytes are."""
        return not self.identity.startswith(ANONYMOUS)

    @property
    def is_kept(self) -> bool:
        """True if a manager keeps the bytes, for a weight's holders or for later runs; they outlive their tensors."""
        return self.category == "weights" or self.is_cached

    @property
    def is_resident(self) -> bool:
        """True if the bytes are on the device now."""
        return self.state == "resident"

    @property
    def condition(self) -> str:
        """The state as a report says it: "rented" while another device has the bytes."""
        return "rented" if self._rents and self.is_resident else self.state

    def rename(self, identity: str) -> None:
        """Note that the bytes changed: what was derived from the old identity is out of date."""
        self.identity = identity
        Storage.renames = next(_renames)
        self._changed()

    async def ensure(self) -> None:
        """Bring the bytes back to the device if they left, making room for them."""
        await self.device.budget.ensure([self])

    async def write(self, offset: int, data: memoryview) -> None:
        """Write bytes ``offset`` to ``offset + len(data)``, wherever a device's words begin. Call within ``using``.

        Where the device writes whole words, what lies beside ``data`` in its first and last word is read first.
        """
        await self.ensure()
        word = self.device.facts.granularity
        start, stop = offset // word * word, min(-(-(offset + data.nbytes) // word) * word, self.nbytes)
        if (start, stop) != (offset, offset + data.nbytes):
            words = bytearray(await self.device.read(self.handle, start, stop - start))
            words[offset - start : offset - start + data.nbytes] = data
            offset, data = start, memoryview(words)
        self.device.backend.write(self.handle, offset, data)
        self.version += 1
        self.origin = self._again = None  # what they would give again are the bytes before this write

    def recategorize(self, category: Category) -> None:
        """Count the bytes under another category from now on."""
        self.category = self.device.recategorize(self.number, category, is_resident=self.is_resident)

    def leave_to_tensors(self) -> None:
        """End a manager's keeping of the bytes: they stay as long as a tensor shows them."""
        self.notify = _ignore
        self.recategorize("activations")

    def notify_by(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when what a memory report says of the storage changes, and now."""
        self.notify = call
        call()

    def recompute_by(self, again: Callable[[], Awaitable[memoryview]]) -> None:
        """Have reads compute lost bytes by ``again``, unless they are known by content or have another way."""
        if self._again is None and not self.is_known:
            self._again = again

    @contextmanager
    def rented(self) -> Iterator[None]:
        """Mark the storage as lent to another device within the block."""
        self._rents += 1
        try:
            yield
        finally:
            self._rents -= 1

    def release(self) -> None:
        """Free the bytes for good, at the end of the use under way if there is one. Safe to call twice."""
        before = self.state
        self._move("released")
        self._drop_copy()
        if before == "resident" and self.in_use:
            self.free_after_use = True
        elif before == "resident":
            self.device.free(self.number)
        elif before != "released" and not self.is_restoring:  # a restore frees what it has allocated
            self.device.forget(self.number)

    def __del__(self) -> None:
        if getattr(self, "state", "released") != "released":
            self.release()

    def hand_over(self) -> Storage:
        """Release the storage and return another one with its bytes, which a run has changed."""
        self.free_after_use = False
        self._drop_copy()
        self._move("released")
        return Storage(self.device, self.number, self.nbytes)

    async def evict(self) -> bool:
        """Take the bytes off the device, keeping a copy in host memory unless a local origin has them.

        False if they were used or written while the copy was made, and are still there.
        """
        version, used = self.version, self.last_used
        copy = None
        if self.origin is None or not self.origin.is_local:
            try:
                copy = await self._copy()
            except Exception:
                if self.state == "resident":
                    raise
                return False  # released while it was read, which made the read fail
        if self.state != "resident" or self.in_use or (version, used) != (self.version, self.last_used):
            _free(copy or ())
            return False
        self.device.evict(self.number)
        self._host = copy
        self._move("offloaded" if copy is not None else "dropped")
        return True

    async def _copy(self) -> list[ByteBuffer]:
        """Copy the bytes from the device. Not a generator: :func:`run_now` may end it in the middle."""
        copy: list[ByteBuffer] = []
        start = 0
        while start < self.nbytes:
            chunk = await self.device.read_chunk(self.number, start, self.nbytes)
            start += chunk.nbytes
            copy += chunk.packed()
        return copy

    def _drop_copy(self) -> None:
        """Free the copy in host memory."""
        _free(self._host or ())
        self._host = None

    @property
    def host_copy(self) -> Sequence[ByteBuffer] | None:
        """The bytes of a storage that left its device, where they are in host memory."""
        return self._host if self.state == "offloaded" else None

    async def chunks(self) -> AsyncGenerator[ByteBuffer]:
        """Yield the bytes as blocks that the caller frees: from the device, from host memory, or from their origin.

        Raises InvalidWeights if the origin now has other bytes, and TensorReleased or DeviceLost if the bytes are gone.
        """
        if self.state == "resident":
            with suppress(DeviceUnavailable):  # then the bytes come from their copy or origin
                await self.device.recover()
        if self.state == "resident":
            async with using([self]):
                if self.state == "resident":
                    async for block in self.device.chunks(self.number, self.nbytes):
                        yield block
                    return
        if self._host is not None:
            for kept in self._host:
                _ = self.handle  # released meanwhile
                yield kept.copy()
            return
        _ = self.handle
        assert self.origin is not None
        received = 0
        async with aclosing(self.origin.chunks()) as chunks:
            async for block in chunks:
                received += block.nbytes
                yield block
        if received != self.nbytes:
            raise InvalidWeights("origin", f"{received:,} bytes came back where {self.nbytes:,} were read")

    async def content(self) -> memoryview:
        """Read the bytes from the device, host memory or their origin, or compute them again.

        Raises DeviceLost if they were lost with their device and have no copy, no origin and no way to be computed.
        """
        return await surviving(self._content, lambda: [self.device] if self.is_resident else [], self._is_elsewhere)

    async def _is_elsewhere(self, device: Device) -> bool:
        """Continue without a device that was given up: :meth:`lose` left the bytes to their copy or origin."""
        return not self.is_resident

    async def _content(self) -> memoryview:
        if self.state == "resident":
            async with using([self]):
                if self.state == "resident":
                    return await self.device.read(self.number, 0, self.nbytes)
        if self.state == "lost" and self._again is not None:
            return await self._again()
        result, filled = bytearray(self.nbytes), 0
        async for block in self.chunks():
            with block:
                for start, piece in block.pieces():
                    result[filled + start : filled + start + piece.nbytes] = piece
                filled += block.nbytes
        return memoryview(result)

    @property
    def is_restoring(self) -> bool:
        """True if the bytes are on their way back to the device, which has room for them."""
        return self._restored is not None

    async def wait_for_restore(self) -> None:
        """Return when no restore is under way."""
        while self._restored is not None:
            await asyncio.shield(self._restored)

    async def restore(self) -> bool:
        """Bring the bytes back, bit for bit; the caller has made room, and no restore is under way.

        False if they are there already, or were given back or lost meanwhile. Raises MemoryBudgetError if they do not
        fit or (DeviceMemoryError) the device has no memory for them, and InvalidWeights if the origin now has other
        bytes; they are where they were then.
        """
        away = self.state
        if away not in ("dropped", "offloaded"):
            return False
        self.device.restore(self.number)
        restored = self._restored = asyncio.get_running_loop().create_future()
        offset = 0
        try:
            async with aclosing(self.chunks()) as chunks:
                async for block in chunks:
                    with block:
                        await self.device.backend.caught_up()
                        if self._restored is not restored or self.state != away:
                            return False
                        self.device.backend.fill(self.number, offset, block)
                        offset += block.nbytes
            if away == "offloaded":  # before the copy goes; what an origin has is checked together (Residency.ensure)
                await self.device.backend.check([self.number])
            if self._restored is restored and self.state == away:
                self._drop_copy()
                self._move("resident")
            return self.is_resident
        finally:
            restored.set_result(None)
            if self._restored is restored:  # else the device was lost meanwhile
                self._restored = None
                if self.state == "released":
                    self.device.free(self.number)
                elif not self.is_resident:
                    self.device.evict(self.number)
            self.device.budget.use_ended()

    async def drop_if_refused(self) -> None:
        """Leave the device again where it had no memory for what a restore brought; the origin has the bytes."""
        try:
            await self.device.backend.check([self.number])
        except DeviceMemoryError:
            if self.state == "resident" and self.origin is not None:
                self.device.evict(self.number)
                self._move("dropped")

    def restore_copy(self) -> bool:
        """:meth:`restore` from host memory, without a wait. False if no copy is there, or a restore is under way."""
        if self._host is None or self.state != "offloaded" or self.is_restoring:
            return False
        self.device.restore(self.number)
        try:
            offset = 0
            for block in self._host:
                self.device.backend.fill(self.number, offset, block)
                offset += block.nbytes
        except BaseException:
            self.device.evict(self.number)
            raise
        copy, self._host = self._host, None
        self._move("resident")
        if self.device.facts.is_host or (loop := _running_loop()) is None:  # these raise at once
            _free(copy)
        else:
            check = loop.create_task(self._keep_until_checked(copy))
            _checks.add(check)
            check.add_done_callback(_checks.discard)
        return True

    async def _keep_until_checked(self, copy: list[ByteBuffer]) -> None:
        """Free the ``copy`` once the device has the bytes; where it had no memory for them, they are there again."""
        version = self.version
        try:
            await self.device.backend.check([self.number])
        except DeviceMemoryError:
            if self.state == "resident" and self.version == version:
                self.device.evict(self.number)
                copy, self._host = [], copy
                self._move("offloaded")
        except TensorCommonsError:
            pass  # the device was lost, which its next use reports
        finally:
            _free(copy)

    def revive(self, data: memoryview) -> None:
        """Give lost bytes again, on the host: the next use brings them to the device."""
        assert self.state == "lost" and data.nbytes == self.nbytes
        self._host, self.origin = list(blocks_of(data)), None
        self._move("offloaded")

    def lose(self) -> None:
        """Note the loss of the device: bytes with a copy or an origin can be restored, others are lost."""
        if self.state == "resident":
            self.device.write_off(self.number)
            kept = self.origin is not None
            self._move("dropped" if kept else "lost")
            if not kept and not self.nbytes:  # nothing was there to lose
                self.revive(memoryview(b""))
        elif self.is_restoring:
            self._restored = None
            self.device.write_off(self.number)
            if self.state == "released":
                self.device.forget(self.number)
        elif self.free_after_use:
            self.free_after_use = False
            self.device.write_off(self.number)
            self.device.forget(self.number)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _free(blocks: Iterable[ByteBuffer]) -> None:
    for block in blocks:
        block.free()


@contextmanager
def made_inside() -> Iterator[list[weakref.ref[Storage]]]:
    """List the storages that are made within the block and by what it awaits."""
    outer = _made.set([])
    made = _made.get()
    assert made is not None
    try:
        yield made
    finally:
        _made.reset(outer)
        around = _made.get()
        if around is not None:
            around.extend(made)
