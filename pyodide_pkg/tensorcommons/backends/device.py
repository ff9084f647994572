"""A device as users see it, and the one place that counts its bytes.

Every byte on a device (weights, activations, scratch, staging) is taken through :meth:`Device.allocate` or
:meth:`Device.charged`, so the account is complete by construction. A budget that is set on the device is asked
before, never after.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from weakref import WeakSet, ref

from ..bridge import byte_buffer
from ..bridge.byte_buffer import ByteBuffer
from ..errors import DeviceMemoryError, DeviceUnavailable, InternalError
from .base import Backend, Range, Spec
from .output_pool import OutputPool
from .timeouts import in_time

Way: TypeAlias = Literal["rented", "host"]  # how bytes come from another device
Category: TypeAlias = Literal["weights", "activations", "scratch", "staging"]
STAGING_RESERVE = 64 * 1024  # bytes of a budget (or a quarter of it) that only reads take, so bytes can always leave
STAGING = 4096, 64 * 2**20  # bytes that are kept for reads, at least and at most
PROGRAMS = 256  # compiled programs that a device remembers
CATEGORIES: tuple[Category, ...] = ("weights", "activations", "scratch", "staging")


def _words(offset: int, nbytes: int) -> int:
    """Bytes of the whole words of 4 bytes that a range touches: what a device copies to read it."""
    return -(-(offset + nbytes) // 4) * 4 - offset // 4 * 4


_made: WeakSet[Any] = WeakSet()


def known_devices() -> list[Device]:
    """List the devices that something refers to, closed ones, too."""
    return sorted(_made, key=lambda device: str(device.kind))


class Budget:
    """Bound of a device's bytes. This one bounds nothing; a manager's stands on every device that it was given.

    ``usable`` are the bytes that anything but reads may take.
    """

    usable = 2**62
    revision = 0  # another number where :meth:`room` may give another answer

    def __init__(self) -> None:
        self.reading = asyncio.Lock()  # one read at a time has the reserve, whatever device it is of

    def reserve(self, nbytes: int, category: Category) -> None:
        """The veto, asked before ``nbytes`` are taken. Raises MemoryBudgetError."""

    def free_bytes(self) -> int:
        """Bytes that the budget leaves."""
        return 2**62

    def room(self, storages: Collection[Any] = ()) -> int:
        """The most bytes that a run over ``storages`` may have at once, whatever else leaves."""
        return self.usable

    def held(self, storages: Collection[Any] = ()) -> int:
        """Bytes of values beside ``storages`` that nothing but their owners can free."""
        return 0

    def pins_changed(self) -> None:
        """Other entries than before must stay."""

    @contextmanager
    def arriving(self, nbytes: int) -> Iterator[None]:
        """``nbytes`` that were taken for a tensor cannot leave in the block, which must not ask for more room."""
        yield

    async def ensure(self, storages: Sequence[Any], extra: int = 0, bundle: Any = None) -> int:
        """Bring ``storages`` and those of ``bundle`` back to their devices, and make room for ``extra`` bytes more.

        Gives the bytes that were brought back."""
        if bundle is not None:
            bundle.settle()
        return 0

    def make_room_now(self, nbytes: int) -> None:
        """Make room without waiting, where that is possible."""

    def use_ended(self) -> None:
        """Something may leave again."""


@dataclass(frozen=True)
class Speed:
    """Measured throughput of a device."""

    bytes_per_second: float
    flops_per_second: float


NOT_TRIED = "it was not tried"  # to lend a tensor to another device
LOST_AGAIN = "it was lost again each time it was opened"


class Device:
    """One opened device: what it is, and what it holds.

    ``kind`` is "webgpu", "webnn" or "cpu"; ``name`` the adapter's own description; ``is_software`` true when the
    adapter runs on the CPU; ``limits`` its limits by WebGPU's names, in bytes or counts.
    """

    def __init__(self, backend: Backend[Any]) -> None:
        self.backend = backend
        self.kind = backend.kind
        self.name = backend.name
        self.is_software = backend.is_software
        self.facts = backend.facts
        self.limits = backend.limits
        self.budget = Budget()
        self.fallbacks: tuple[Device, ...] = ()  # who runs what this one does not take, the first that is there
        self.crossings: dict[Way, int] = {"rented": 0, "host": 0}  # bytes that came from other devices
        self.not_lent = NOT_TRIED  # why no tensor is lent to another device; empty where that works
        self._borrower: Device | None = None
        self._lender: Device | None = None
        self._recovering = asyncio.Lock()
        self.losses = 0  # how often the device was lost and came back
        self.loss = ""  # what the browser said when it was lost last
        self.gone = ""  # why it did not come back then
        self.lock = asyncio.Lock()  # one program at a time: all of them share the arena
        self.programs: dict[str, Any] = {}  # by structure, the least recently used first
        self._bytes: dict[Category, int] = dict.fromkeys(CATEGORIES, 0)
        self.total = 0  # bytes that the device holds now
        self._handles: dict[int, tuple[int, Category]] = {}
        self._specs: dict[int, Spec] = {}  # what lies under a handle, for devices whose memory is typed
        self._next_handle = 1
        self._peak = 0
        self._arena: tuple[int, int] | None = None
        self._staging = 0  # bytes that are kept for reads
        self._running = 0  # bytes of the program that is running, beside the arena
        self.speed: Speed | None = None  # once a profile measured it
        self.output_pool = OutputPool(self)
        self._storages: WeakSet[Any] = WeakSet()
        self._closed = False
        _made.add(self)
        device = ref(self)
        backend.make_way = lambda hidden, reserved: d.bound_programs(hidden, reserved) if (d := device()) else None

    def __repr__(self) -> str:
        return f"<Device {self.kind}: {self.name}{' (software)' if self.is_software else ''}>"

    @property
    def is_closed(self) -> bool:
        """True after :meth:`close`: the device can hold nothing any more."""
        return self._closed

    @property
    def is_gone(self) -> bool:
        """True if it was lost and could not be opened again; ``gone`` says why."""
        return bool(self.gone) and self.backend.is_lost

    @property
    def fallback(self) -> Device | None:
        """The device that runs what this one does not take."""
        return next((device for device in self.fallbacks if not device.is_gone), None)

    async def try_lending(self, borrower: Device) -> None:
        """Find out whether tensors can be lent to ``borrower``; :attr:`not_lent` says why if they cannot."""
        self.not_lent = await self.backend.lending(borrower.backend)
        self._borrower, borrower._lender = borrower, self

    def lends_to(self, other: Device) -> bool:
        """Return whether bytes cross between this device and ``other`` by renting."""
        return other is self._borrower and not self.not_lent

    def stop_lending(self, reason: str) -> None:
        """It failed: from now on bytes go through the host."""
        self.not_lent = reason

    def refusal(self, tensors: Mapping[str, Spec]) -> str:
        """Return why the device cannot hold or run a model of these ``tensors``, by name, even alone; empty if it can.

        Under a limit that is smaller than the weights they come and go.
        """
        total, memory = sum(spec.nbytes for spec in tensors.values()), self.backend.memory
        if min(total, self.budget.usable) > memory:
            return f"its weights take {total:,} bytes, and all values there together at most {memory:,}"
        return self.backend.refusal(tensors)

    def memory(self) -> dict[str, int]:
        """Bytes now by category, with "total" and "peak" (the largest total since the device was opened)."""
        return {**{str(kind): size for kind, size in self._bytes.items()}, "total": self.total, "peak": self._peak}

    def new_handle(self) -> int:
        """A handle that was never used before."""
        self._next_handle += 1
        return self._next_handle - 1

    def charge(self, nbytes: int, category: Category) -> None:
        """Count ``nbytes`` that are about to be taken. Raises MemoryBudgetError if they would pass the budget."""
        if self._closed:
            raise DeviceUnavailable(self.kind, "it was closed; open it again with open_devices()")
        self.budget.reserve(nbytes, category)
        self._bytes[category] += nbytes
        self.total += nbytes
        self._peak = max(self._peak, self.total)

    def refund(self, nbytes: int, category: Category) -> None:
        """Undo :meth:`charge`."""
        if not self._closed:
            self._bytes[category] -= nbytes
            self.total -= nbytes

    @contextmanager
    def charged(self, nbytes: int, category: Category) -> Iterator[None]:
        """Count bytes that the device itself creates and drops within the block."""
        self.charge(nbytes, category)
        try:
            yield
        finally:
            self.refund(nbytes, category)

    def allocate(self, nbytes: int, category: Category, spec: Spec | None = None) -> int:
        """A handle to ``nbytes`` bytes of any content, for a value of ``spec`` where that is known.

        Raises:
            MemoryBudgetError: it would pass the budget; nothing was allocated.
        """
        handle = self.promise(nbytes, category, spec)
        try:
            self.restore(handle)
        except BaseException:
            self._drop(handle)
            raise
        return handle

    def promise(self, nbytes: int, category: Category, spec: Spec | None = None) -> int:
        """A handle for bytes that :meth:`restore` brings."""
        handle = self.new_handle()
        self._handles[handle] = (nbytes, category)
        if spec is not None:
            self._specs[handle] = spec
        return handle

    def _drop(self, handle: int) -> None:
        self._handles.pop(handle, None)
        self._specs.pop(handle, None)
        self.output_pool.forget(handle)

    def adopt(self, spec: Spec, category: Category) -> int:
        """A handle for a value that a run is about to create; counted from now on."""
        handle = self.new_handle()
        self.charge(spec.nbytes, category)
        self._handles[handle], self._specs[handle] = (spec.nbytes, category), spec
        return handle

    def disown(self, handle: int) -> None:
        """Undo :meth:`adopt` for a run that did not create its output. Does nothing after :meth:`close`."""
        if not self._closed:
            self.refund(*self._handles[handle])
            self._drop(handle)

    def free(self, handle: int) -> None:
        """Give the bytes of ``handle`` back. Does nothing after :meth:`close`."""
        if self._closed:
            return
        nbytes, category = self._handles[handle]
        self.refund(nbytes, category)
        if not self.output_pool.take(handle, nbytes):
            self.backend.free(handle)
        self._drop(handle)
        self.drop_programs()

    def evict(self, handle: int) -> None:
        """Take the bytes of ``handle`` off the device; the handle stays. Does nothing after :meth:`close`."""
        if self._closed:
            return
        self.refund(*self._handles[handle])
        self.output_pool.forget(handle)
        self.backend.free(handle)

    def restore(self, handle: int) -> None:
        """Bytes of any content under a new or evicted ``handle``. Raises MemoryBudgetError if they do not fit."""
        nbytes, category = self._handles[handle]
        self.charge(nbytes, category)
        try:
            self.backend.allocate(handle, nbytes, self._specs.get(handle))
        except BaseException:
            self.refund(nbytes, category)
            raise

    def recategorize(self, handle: int, category: Category, *, is_resident: bool) -> Category:
        """Count the bytes of ``handle`` under another category from now on, also when they come back."""
        nbytes, before = self._handles[handle]
        self._handles[handle] = (nbytes, category)
        if is_resident:
            self._bytes[before] -= nbytes
            self._bytes[category] += nbytes
        return category

    def forget(self, handle: int) -> None:
        """Give an evicted handle up for good."""
        self._drop(handle)
        self.drop_programs()

    @property
    def idle_scratch_bytes(self) -> int:
        """Bytes that :meth:`free_scratch` gives back now: spares, the arena if no program runs, staging if no read."""
        arena = self._arena[1] if self._arena and not self._running else 0
        return arena + self.idle_staging_bytes + self.output_pool.nbytes

    @property
    def idle_staging_bytes(self) -> int:
        """Bytes that are kept for reads if nobody reads, else 0."""
        return 0 if self.budget.reading.locked() else self._staging

    @property
    def busy_bytes(self) -> int:
        """Bytes that may leave when the program or read under way ends: arena and staging, and the program's own."""
        busy = self._running + (self._arena[1] if self._arena else 0) if self._running else 0
        return busy + self._staging - self.idle_staging_bytes

    def begin_run(self, nbytes: int) -> None:
        """A program with ``nbytes`` of its own runs until :meth:`end_run`: the arena is not idle. Under ``lock``."""
        self._running = max(nbytes, 1)

    def end_run(self) -> None:
        """It does not run any more."""
        self._running = 0

    @property
    def idle_program_bytes(self) -> int:
        """Bytes that compiled programs keep which are not running."""
        return sum(program.idle_bytes for program in self.programs.values())

    def discard_idle_program(self) -> None:
        """Take the least recently used of the programs that keep bytes and are not running off the device."""
        next(program for program in self.programs.values() if program.idle_bytes).discard()

    def keep_program(self, program: Any) -> None:
        """Remember ``program`` as the one used last; of more than :data:`PROGRAMS` the one used first is forgotten."""
        replaced = self.programs.pop(program.structure, program)
        if replaced is not program:
            replaced.discard()
        self.programs[program.structure] = program
        if len(self.programs) > PROGRAMS:
            self._forget_oldest_program()

    def _forget_oldest_program(self) -> None:
        self.programs.pop(next(iter(self.programs))).discard()

    def bound_programs(self, hidden: int, reserved: int) -> None:
        """Forget the least recently used programs until what the others keep uncounted, and a new one, is in bounds."""
        backend, kept = self.backend, list(self.programs.values())
        for program in kept:
            hidden, reserved = hidden + program.uncounted[0], reserved + program.uncounted[1]
        for program in kept:
            if hidden <= backend.most_hidden and reserved <= backend.most_reserved:
                break
            hidden, reserved = hidden - program.uncounted[0], reserved - program.uncounted[1]
            self._forget_oldest_program()

    def drop_programs(self) -> None:
        """Forget all programs, and give the arena back, if the device holds no tensor any more and runs nothing."""
        if not self._closed and not self.lock.locked() and len(self._handles) == bool(self._arena):
            for program in self.programs.values():
                program.discard()
            self.programs.clear()
            self.free_scratch()

    async def read(self, handle: int, offset: int, nbytes: int) -> memoryview:
        """Bytes of ``handle``."""
        return (await self.read_together([(handle, offset, nbytes)]))[0]

    async def read_together(self, ranges: Sequence[Range]) -> list[memoryview]:
        """The bytes of every (handle, offset, nbytes), in one read where there is memory for it.

        The staging copy is counted while it lives, kept for the next read, and made in pieces where memory is short.

        Raises DeviceError or DeviceMemoryError where what computed the bytes, or the read itself, failed on the device,
        and InternalError for a range outside its value.
        """
        for handle, offset, size in ranges:
            nbytes, _ = self._handles.get(handle, (0, None))
            if not 0 <= offset <= offset + size <= nbytes and not self._closed:
                raise InternalError(f"bytes {offset} to {offset + size} of a value of {nbytes} bytes on {self.kind}")
        try:
            return await self._read_together(ranges)
        except DeviceMemoryError:  # the arena may be what could not be made: the next run takes another
            self.free_scratch()
            raise

    async def _read_together(self, ranges: Sequence[Range]) -> list[memoryview]:
        if self.facts.is_host:
            return await self.backend.read(ranges)
        async with self.budget.reading:
            total = sum([_words(offset, size) for _, offset, size in ranges])
            if total > self._staging:
                self._free_staging()
            if total <= self.backend.buffer_bytes and (total <= self._staging or total <= self.budget.free_bytes()):
                with self._staged(total):
                    return await self.backend.read(ranges)
            return [await self._read_in_pieces(*each) for each in ranges]

    @contextmanager
    def _staged(self, nbytes: int) -> Iterator[None]:
        """``nbytes`` for a read in the block; where the device keeps them, a power of two that serves later ones."""
        least, most = STAGING
        if not self.backend.keeps_staging or nbytes > most:
            with self.charged(nbytes, "staging"):
                yield
            return
        if nbytes > self._staging:
            ample = max(1 << (nbytes - 1).bit_length(), least)
            size = ample if ample <= self.budget.free_bytes() else nbytes
            self.charge(size, "staging")
            self._staging = size
            self.backend.stage(size)
        try:
            yield
        except BaseException:  # its buffer may be mapped, or gone with the device
            self._free_staging()
            raise

    def _free_staging(self) -> None:
        if self._staging:
            self.refund(self._staging, "staging")
            self._staging = 0
            self.backend.stage(0)

    async def read_chunk(self, handle: int, start: int, stop: int) -> ByteBuffer:
        """Bytes from ``start`` on as a block: at most CHUNK of them where it reads parts, less if memory is short.

        ``start`` is a multiple of 4, and so is the end if it is not ``stop``. Raises as :meth:`read`.
        """
        size = stop - start if self.backend.reads_whole else min(stop - start, byte_buffer.CHUNK)
        if self.facts.is_host:
            return await self.backend.read_block(handle, start, size)
        async with self.budget.reading:
            if _words(start, size) > self._staging:
                self._free_staging()
                size = min(size, max(self.budget.free_bytes() // 4, 1) * 4)
            with self._staged(_words(start, size)):
                return await self.backend.read_block(handle, start, size)

    async def chunks(self, handle: int, nbytes: int) -> AsyncGenerator[ByteBuffer]:
        """All ``nbytes`` of ``handle`` as blocks, which the caller frees. Raises as :meth:`read`."""
        start = 0
        while start < nbytes:
            block = await self.read_chunk(handle, start, nbytes)
            start += block.nbytes
            yield block

    async def _read_in_pieces(self, handle: int, offset: int, nbytes: int) -> memoryview:
        result = bytearray(nbytes)
        done = 0
        while done < nbytes:
            start = offset + done
            most = min(max(self.budget.free_bytes() // 4, 1) * 4, self.backend.buffer_bytes)
            size = min(nbytes - done, most - start % 4)
            with self.charged(_words(start, size), "staging"):
                (piece,) = await self.backend.read([(handle, start, size)])
            result[done : done + size] = piece
            done += size
        return memoryview(result)

    def arena(self, nbytes: int) -> int:
        """The scratch arena, at least ``nbytes`` large. All programs of the device share it; call under ``lock``."""
        if self._arena is None or self._arena[1] < nbytes:
            self._free_arena()
            self._arena = (self.allocate(nbytes, "scratch"), nbytes)
        return self._arena[0]

    def arena_growth(self, nbytes: int) -> int:
        """Bytes by which the arena has to grow for a program that needs ``nbytes``."""
        return max(nbytes - (self._arena[1] if self._arena else 0), 0)

    def free_scratch(self) -> None:
        """Give back what is idle of arena, spares and staging; the next run and the next read take their own."""
        self.output_pool.drop_all()
        if not self._running:
            self._free_arena()
        if not self.budget.reading.locked():
            self._free_staging()

    def _free_arena(self) -> None:
        if self._arena is not None:
            (handle, _), self._arena = self._arena, None
            self.free(handle)

    def watch(self, storage: Any) -> None:
        """Have ``storage.lose()`` called when the device is lost."""
        self._storages.add(storage)

    def write_off(self, handle: int) -> None:
        """Stop counting the bytes of ``handle``: they went with the lost device. The handle stays."""
        self.refund(*self._handles[handle])

    async def recover(self) -> None:
        """Open the device again, empty, if it was lost: what has a copy or an origin is restored by its next use.

        Raises DeviceUnavailable if the device does not come back.
        """
        async with self._recovering:
            if not self.backend.is_lost:
                return
            self._write_off_all()
            try:
                await in_time(self.kind, self.backend.reopen())
            except DeviceUnavailable as error:
                self.gone = error.reason
                raise
            self.gone = ""
            self.losses += 1
            for lender, borrower in ((self, self._borrower), (self._lender, self)):  # what was found of others is over
                if lender is not None and borrower is not None and not lender.backend.is_lost:
                    await lender.try_lending(borrower)

    def give_up(self) -> None:
        """Mark a lost device as gone, as if it had not come back. The next use may still open it again."""
        if self.backend.is_lost:
            self._write_off_all()
            self.gone = self.gone or LOST_AGAIN

    def _write_off_all(self) -> None:
        """Stop counting what the lost device held. A loss is a mass eviction; programs are compiled again."""
        self.loss = self.backend.loss or self.loss
        for program in self.programs.values():
            program.abandon()
        for storage in list(self._storages):
            storage.lose()
        if self._arena is not None:
            self.write_off(self._arena[0])
            self._drop(self._arena[0])
            self._arena = None
        self._free_staging()

    def close(self) -> None:
        """Free everything on the device. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self.programs.clear()
            self._handles.clear()
            self._specs.clear()
            self._bytes = dict.fromkeys(CATEGORIES, 0)
            self.total = self._staging = 0
            self.output_pool = OutputPool(self)
            self.backend.close()
