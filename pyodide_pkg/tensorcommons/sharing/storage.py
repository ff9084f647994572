"""A storage: bytes on a device, known by their content, and where they are just now.

A weight's identity is the SHA-256 of its bytes with dtype and shape, so two models that carry the same weight under
any two names hold the same storage. Bytes that nobody can compare (activations) get an identity of their own.

::

    resident ──evict──► offloaded (a copy in host memory) or dropped (its origin can be read again)
       ▲                    │
       └─────restore────────┘          released: given back for good      lost: the device took it, nothing has it
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..backends.base import Spec
from ..backends.device import Category, Device
from ..backends.recovery import surviving
from ..bridge import byte_buffer
from ..bridge.byte_buffer import ByteBuffer, Data
from ..bridge.digest import identity_of
from ..dtypes import DType
from ..errors import (
    DeviceLost,
    DeviceMemoryError,
    DeviceUnavailable,
    InvalidWeights,
    TensorCommonsError,
    TensorReleased,
)

State: TypeAlias = Literal["resident", "offloaded", "dropped", "lost", "released"]

ANONYMOUS = "anonymous-"
_serial = itertools.count()
_renames = itertools.count(1)
_clock = itertools.count()
_checks: set[asyncio.Task[None]] = set()  # under way: an event loop keeps no task alive
_made: ContextVar[list[weakref.ref[Storage]] | None] = ContextVar("_made", default=None)  # in the scope under way


def _nobody() -> None:
    """Ignore the report."""


@dataclass(frozen=True)
class Origin:
    """Source of a storage's bytes: ``chunks`` gives them again, checked, as blocks that the caller frees.

    ``is_local``: without a network that may be gone.
    """

    chunks: Callable[[], AsyncGenerator[ByteBuffer]]
    is_local: bool

    @classmethod
    def of_bytes(cls, data: bytes) -> Origin:
        """Bytes that are small enough to be kept on the host as well."""

        async def chunks() -> AsyncGenerator[ByteBuffer]:
            for block in _blocks_of(memoryview(data)):
                yield block

        return cls(chunks, is_local=True)


def content_identity(data: Data, shape: Sequence[int], dtype: DType) -> str:
    """Compute the identity of a tensor: a hash over dtype, shape and bytes (``bridge/digest.py``)."""
    return identity_of(data, content_label(shape, dtype))


def content_label(shape: Sequence[int], dtype: DType) -> str:
    """Return the text that a tensor's identity covers beside its bytes."""
    return f"{dtype.name}{tuple(shape)}"


def anonymous_identity() -> str:
    """An identity that nothing else has, for bytes that nobody can compare."""
    return f"{ANONYMOUS}{next(_serial)}"


class Storage:
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
        self.device = device
        self.nbytes = nbytes
        self.identity = identity or anonymous_identity()
        self.category = category
        self.origin = origin
        self.marks: Callable[[], None] = _nobody  # called when what a report says of it changed
        self.leaves: list[weakref.ref[Any]] = []  # the graph nodes that show these bytes
        self.is_cached = False  # kept for later runs
        self.again: Callable[[], Awaitable[memoryview]] | None = None  # computes lost bytes anew; only reads ask for it
        self.state: State = "resident"
        self._last_used = next(_clock)
        self.version = 0  # counts writes, so that a copy that was overtaken by one is not kept
        self._handle = handle
        self._host: list[ByteBuffer] | None = None
        self._restored: asyncio.Future[None] | None = None  # done when the restore under way has ended
        self._hearers: list[Callable[[], None]] = []
        self.rents = 0  # while its device lends it to another, it cannot use it itself
        self.bundles: list[weakref.ref[Bundle]] = []  # those that it is in
        self.users = 0  # beside those of its bundles
        self.writers = 0  # under way or waiting for their turn
        self.turns: list[asyncio.Future[None]] = []
        self.free_after_use = False
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
        """A new storage with ``data`` in it, the value of a ``spec`` where that is known.

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
        """A new storage, whose bytes come with :meth:`fill`. Raises MemoryBudgetError if it does not fit."""
        device.budget.make_room_now(nbytes)
        return cls(device, device.allocate(nbytes, category, spec), nbytes, identity, category, origin)

    def fill(self, offset: int, data: Data) -> None:
        """Write the next bytes of a new storage, in order from its first to its last.

        Does nothing if its device was lost since: they come from the origin then.
        """
        if self.state == "resident":
            self.device.backend.fill(self._handle, offset, data)

    def complete(self, identity: str, origin: Origin) -> None:
        """Note what the bytes are, all of which were written, and where they come from."""
        self.identity, self.origin = identity, origin
        self.regain(origin)

    def regain(self, origin: Origin) -> None:
        """Lost bytes can be read again from ``origin``: the next use brings them to the device."""
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
        """A new storage whose bytes come to the device with its first use: from ``copy``, or from the origin."""
        storage = cls(device, device.promise(spec.nbytes, category, spec), spec.nbytes, identity, category, origin)
        storage._host = copy
        storage.state = "dropped" if copy is None else "offloaded"
        return storage

    def _move(self, state: State) -> None:
        self.state = state
        if self.bundles:
            self.stir()
        self.marks()
        if state == "released":
            self._changed()

    def when_changed(self, call: Callable[[], None]) -> None:
        """Have ``call`` called once, when the bytes are others than now or are given back for good."""
        self._hearers.append(call)

    def _changed(self) -> None:
        hearers, self._hearers = self._hearers, []
        for call in hearers:
            call()

    def _alive(self) -> list[Bundle]:
        return [bundle for reference in self.bundles if (bundle := reference()) is not None]

    def stir(self) -> None:
        """Have every bundle look at the storage again before its next use."""
        for bundle in self._alive():
            bundle.is_settled = False

    def shown_by(self, leaf: Any) -> None:
        """Note a graph node that shows these bytes, as long as it is there."""
        self.leaves.append(weakref.ref(leaf, self.leaves.remove))

    @property
    def handle(self) -> int:
        """The device's name for the bytes; it stays the same when they leave and come back.

        Raises TensorReleased after :meth:`release`, and DeviceLost for bytes that went with a lost device.
        """
        if self.state == "released":
            raise TensorReleased("the tensor's bytes were released; compute or load it again before using it")
        if self.state == "lost":
            raise DeviceLost("the tensor's bytes went with the lost device, and nothing else holds them: make it again")
        return self._handle

    @property
    def is_known(self) -> bool:
        """True if :attr:`identity` says what the bytes are."""
        return not self.identity.startswith(ANONYMOUS)

    @property
    def is_kept(self) -> bool:
        """True if a manager keeps the bytes, for a weight's holders or for later runs: no tensor gives them back."""
        return self.category == "weights" or self.is_cached

    @property
    def is_resident(self) -> bool:
        """True if the bytes are on the device now."""
        return self.state == "resident"

    @property
    def condition(self) -> str:
        """The state as a report says it: "rented" while another device has the bytes."""
        return "rented" if self.rents and self.is_resident else self.state

    @property
    def is_released(self) -> bool:
        """True if the bytes were given back."""
        return self.state == "released"

    @property
    def in_use(self) -> bool:
        """True if a program, a read or a write under way needs the bytes where they are."""
        return self.users > 0 or any(bundle.users for bundle in self._alive())

    @property
    def last_used(self) -> int:
        """When it was used last, as a count of all uses."""
        return max([self._last_used, *(bundle.last_used for bundle in self._alive())])

    def rename(self, identity: str) -> None:
        """The bytes are others than before: everything that was known by the old identity has to be asked again."""
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
        self.origin = self.again = None  # what they would give again are the bytes before this write

    def recategorize(self, category: Category) -> None:
        """Count the bytes under another category from now on."""
        self.category = self.device.recategorize(self._handle, category, is_resident=self.is_resident)

    def leave_to_tensors(self) -> None:
        """No manager keeps the bytes any more: they are those of the tensors that show them."""
        self.marks = _nobody
        self.recategorize("activations")

    def touch(self) -> None:
        """Mark as used just now; the least recently used leaves first."""
        self._last_used = next(_clock)

    def expire(self) -> None:
        """Mark as not needed for long: it leaves before what was used earlier."""
        self._last_used = -1

    def release(self) -> None:
        """Give the bytes back for good, at the end of the use under way if there is one. Safe to call twice."""
        before = self.state
        self._move("released")
        self._drop_copy()
        if before == "resident" and self.in_use:
            self.free_after_use = True
        elif before == "resident":
            self.device.free(self._handle)
        elif before != "released" and not self.is_restoring:  # a restore gives back what it has taken
            self.device.forget(self._handle)

    def __del__(self) -> None:
        if getattr(self, "state", "released") != "released":
            self.release()

    def hand_over(self) -> Storage:
        """Another storage with these bytes; this one is released. For a run that wrote them: what they are is new."""
        self.free_after_use = False
        self._drop_copy()
        self._move("released")
        return Storage(self.device, self._handle, self.nbytes)

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
                return False  # released while it was read, which is what the read tripped over
        if self.state != "resident" or self.in_use or (version, used) != (self.version, self.last_used):
            _free(copy or ())
            return False
        self.device.evict(self._handle)
        self._host = copy
        self._move("offloaded" if copy is not None else "dropped")
        return True

    async def _copy(self) -> list[ByteBuffer]:
        """The bytes on the device. No generator: whoever cannot wait ends this in the middle (:func:`run_now`)."""
        copy: list[ByteBuffer] = []
        start = 0
        while start < self.nbytes:
            chunk = await self.device.read_chunk(self._handle, start, self.nbytes)
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
        """The bytes as blocks that the caller frees: from the device, from host memory, or from their origin.

        Raises InvalidWeights if the origin now has other bytes, and TensorReleased or DeviceLost if the bytes are gone.
        """
        if self.state == "resident":
            with suppress(DeviceUnavailable):  # then the bytes come from where else they are
                await self.device.recover()
        if self.state == "resident":
            async with using([self]):
                if self.state == "resident":
                    async for block in self.device.chunks(self._handle, self.nbytes):
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
        """The bytes, wherever they are: on the device, in host memory, at their origin, or where they are computed.

        Raises DeviceLost if they went with a lost device and nothing has them or can make them again.
        """
        return await surviving(self._content, lambda: [self.device] if self.is_resident else [], self._is_elsewhere)

    async def _is_elsewhere(self, device: Device) -> bool:
        """A device that was given up: :meth:`lose` left the bytes where else they are."""
        return not self.is_resident

    async def _content(self) -> memoryview:
        if self.state == "resident":
            async with using([self]):
                if self.state == "resident":
                    return await self.device.read(self._handle, 0, self.nbytes)
        if self.state == "lost" and self.again is not None:
            return await self.again()
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
        self.device.restore(self._handle)
        restored = self._restored = asyncio.get_running_loop().create_future()
        offset = 0
        try:
            async with aclosing(self.chunks()) as chunks:
                async for block in chunks:
                    with block:
                        if self._restored is not restored or self.state != away:
                            return False
                        self.device.backend.fill(self._handle, offset, block)
                        offset += block.nbytes
            if away == "offloaded":  # before the copy goes; what an origin has is checked together (Residency.ensure)
                await self.device.backend.check([self._handle])
            if self._restored is restored and self.state == away:
                self._drop_copy()
                self._move("resident")
            return self.is_resident
        finally:
            restored.set_result(None)
            if self._restored is restored:  # else the bytes went with a lost device
                self._restored = None
                if self.is_released:
                    self.device.free(self._handle)
                elif not self.is_resident:
                    self.device.evict(self._handle)
            self.device.budget.use_ended()

    async def drop_if_refused(self) -> None:
        """Leave the device again where it had no memory for what a restore brought; the origin has the bytes."""
        try:
            await self.device.backend.check([self._handle])
        except DeviceMemoryError:
            if self.state == "resident" and self.origin is not None:
                self.device.evict(self._handle)
                self._move("dropped")

    def restore_copy(self) -> bool:
        """:meth:`restore` from host memory, without a wait. False if no copy is there, or a restore is under way."""
        if self._host is None or self.state != "offloaded" or self.is_restoring:
            return False
        self.device.restore(self._handle)
        try:
            offset = 0
            for block in self._host:
                self.device.backend.fill(self._handle, offset, block)
                offset += block.nbytes
        except BaseException:
            self.device.evict(self._handle)
            raise
        copy, self._host = self._host, None
        self._move("resident")
        if self.device.facts.is_host or (loop := _running_loop()) is None:  # these say at once what they cannot take
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
            await self.device.backend.check([self._handle])
        except DeviceMemoryError:
            if self.state == "resident" and self.version == version:
                self.device.evict(self._handle)
                copy, self._host = [], copy
                self._move("offloaded")
        except TensorCommonsError:
            pass  # the device was lost, which its users find out
        finally:
            _free(copy)

    def revive(self, data: memoryview) -> None:
        """Lost bytes are there again, on the host: the next use brings them to the device."""
        assert self.state == "lost" and data.nbytes == self.nbytes
        self._host, self.origin = list(_blocks_of(data)), None
        self._move("offloaded")

    def lose(self) -> None:
        """The device is gone: what has a copy or an origin waits to be restored, the rest is lost."""
        if self.state == "resident":
            self.device.write_off(self._handle)
            kept = self.origin is not None
            self._move("dropped" if kept else "lost")
            if not kept and not self.nbytes:  # nothing was there to lose
                self.revive(memoryview(b""))
        elif self.is_restoring:
            self._restored = None
            self.device.write_off(self._handle)
            if self.state == "released":
                self.device.forget(self._handle)
        elif self.free_after_use:
            self.free_after_use = False
            self.device.write_off(self._handle)
            self.device.forget(self._handle)


class Bundle:
    """Storages of ``device`` that a program reads together, run after run, as one: ``None`` where each run brings one.

    A model has a hundred weights: to look at each would take most of a replayed run's time. They are looked at one by
    one only where something about one of them changed since (:meth:`Storage.stir`); else the bundle ``is_settled``.
    """

    def __init__(self, device: Device, leaves: Sequence[Storage | None]) -> None:
        self.device = device
        self.storages = tuple(dict.fromkeys(leaf for leaf in leaves if leaf is not None))
        self._handles = [0 if leaf is None else leaf._handle for leaf in leaves]
        self._open = [place for place, leaf in enumerate(leaves) if leaf is None]
        self.users = 0
        self.last_used = next(_clock)
        self.is_settled = False
        for storage in self.storages:
            storage.bundles = [reference for reference in storage.bundles if reference() is not None]
            storage.bundles.append(weakref.ref(self))

    def settle(self) -> None:
        """Look at every storage: from now on all are known to be there, and nobody waits to write one."""
        self.is_settled = all(
            storage.state == "resident" and not storage.writers and not storage.turns for storage in self.storages
        )

    def touch(self) -> None:
        """Mark all as used just now."""
        self.last_used = next(_clock)

    def brought(self, leaves: Sequence[Storage]) -> list[Storage]:
        """Return the ``leaves`` of a run that are not in the bundle."""
        return [leaves[place] for place in self._open]

    def handles(self, leaves: Sequence[Storage]) -> list[int]:
        """The handle of each of a run's ``leaves``, in use.

        Raises TensorReleased or DeviceLost for one whose bytes are gone: it had left its device when it was given back,
        so that its use did not keep them.
        """
        if not self.is_settled:
            for storage in self.storages:
                if storage.state != "resident" and not storage.free_after_use:
                    _ = storage.handle
        handles = self._handles.copy()
        for place in self._open:
            handles[place] = leaves[place].handle
        return handles


class using:  # noqa: N801 - a context manager, as contextlib's
    """Keep the bytes of ``storages`` where they are through the block; what is released meanwhile goes at its end.

    Uses stand side by side, and a write (of those in ``written``) stands alone: it waits for the uses under way, and
    later ones wait for it, so nobody sees half of it. All storages, and those of ``bundle``, are taken in one step, so
    no two uses wait for each other.

    Raises TensorReleased or DeviceLost for one that is gone already.
    """

    def __init__(
        self, storages: Sequence[Storage], written: Collection[Storage] = (), bundle: Bundle | None = None
    ) -> None:
        self._storages = storages
        self._written = written
        self._bundle = bundle

    def _stirred(self) -> Sequence[Storage]:
        """The storages that have to be looked at one by one."""
        if self._bundle is None or self._bundle.is_settled:
            return self._storages
        return [*self._storages, *self._bundle.storages]

    async def __aenter__(self) -> None:
        for storage in self._written:
            storage.writers += 1
            storage.stir()
        try:
            while (busy := _first_busy(self._stirred(), self._written)) is not None:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                busy.turns.append(turn)
                busy.stir()
                await turn
        except BaseException:
            self._end()
            raise
        for storage in self._storages:
            storage.users += 1
        if self._bundle is not None:
            self._bundle.users += 1

    async def __aexit__(self, *error: object) -> None:
        for storage in self._storages:
            storage.users -= 1
        if self._bundle is not None:
            self._bundle.users -= 1
        for storage in self._stirred():
            if storage.free_after_use and not storage.in_use:
                storage.free_after_use = False
                storage.device.free(storage._handle)
        self._end()

    def _end(self) -> None:
        """Have everybody who waits look again."""
        for storage in self._written:
            storage.writers -= 1
        for storage in self._stirred():
            if storage.turns:
                turns, storage.turns = storage.turns, []
                for turn in turns:
                    if not turn.done():
                        turn.set_result(None)
        for budget in {storage.device.budget for storage in self._storages}:
            budget.use_ended()
        if self._bundle is not None:
            self._bundle.device.budget.use_ended()


def touch(storages: Sequence[Storage]) -> None:
    """Mark as used just now, together."""
    now = next(_clock)
    for storage in storages:
        storage._last_used = now


def handles_of(storages: Sequence[Storage]) -> list[int]:
    """The handle of each. Raises TensorReleased or DeviceLost for one that is gone."""
    return [storage._handle if storage.state == "resident" else storage.handle for storage in storages]


def _first_busy(storages: Sequence[Storage], written: Collection[Storage]) -> Storage | None:
    """The first storage that a use has to wait for. Every run looks at all its weights here: no call is spent on one.

    Raises TensorReleased or DeviceLost for one that is gone.
    """
    for storage in storages:
        if storage.state == "released" or storage.state == "lost":
            _ = storage.handle
        if storage.in_use if storage in written else storage.writers:
            return storage
    return None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _free(blocks: Iterable[ByteBuffer]) -> None:
    for block in blocks:
        block.free()


def _blocks_of(data: memoryview) -> Iterator[ByteBuffer]:
    """Copies of the parts of ``data``."""
    flat = data.cast("B")
    for start in range(0, flat.nbytes, byte_buffer.CHUNK):
        yield from ByteBuffer.of(flat[start : start + byte_buffer.CHUNK]).packed()


@contextmanager
def made_inside() -> Iterator[list[weakref.ref[Storage]]]:
    """The storages that are made within the block and by what it awaits."""
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
