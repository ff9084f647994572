"""A device as users see it: its facts, its scratch arena, its losses, and the devices that it works with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias
from weakref import WeakSet, ref

from ..dtypes import float32
from ..errors import DeviceUnavailable, MemoryBudgetError
from .backend import Backend
from .base import BlockSpec, Spec
from .program_cache import ProgramCache
from .staging import Readable
from .timeouts import in_time

Way: TypeAlias = Literal["rented", "host"]  # how bytes come from another device


_made: WeakSet[Any] = WeakSet()


def known_devices() -> list[Device]:
    """List the devices that something refers to, closed ones, too."""
    return sorted(_made, key=lambda device: str(device.kind))


@dataclass(frozen=True)
class Speed:
    """Measured throughput of a device."""

    bytes_per_second: float
    flops_per_second: float


class IdleCache(Protocol):
    """Values kept for later calls. They are freed together, before any weight, while none of them is in use."""

    @property
    def idle_bytes(self) -> int:
        """Bytes that :meth:`free_idle` frees."""

    def free_idle(self) -> bool:
        """Free them. Returns False if there is nothing to free."""


NOT_TRIED = "it was not tried"  # to lend a tensor to another device
LOST_AGAIN = "it was lost again each time it was opened"


class Device(Readable, ProgramCache):
    """An opened device, and the bytes on it.

    ``kind`` is "webgpu", "webnn" or "cpu"; ``name`` is the adapter's own description; ``is_software`` is true if the
    adapter runs on the CPU; ``limits`` are its limits by WebGPU's names, in bytes or counts.

    >>> devices = await tc.open_devices()
    >>> device = devices.cpu
    >>> kept = tc.zeros(256, device=device)
    >>> await kept.realize() is kept
    True
    >>> device.kind, device.memory()["total"]
    ('cpu', 1280)
    >>> device.close()
    """

    def __init__(self, backend: Backend[Any]) -> None:
        super().__init__(backend)
        ProgramCache.__init__(self)
        self.name = backend.name
        self.is_software = backend.is_software
        self.facts = backend.facts
        self.limits = backend.limits
        self.fallbacks: tuple[Device, ...] = ()  # run what this one does not take: the first that is not gone
        self.crossings: dict[Way, int] = {"rented": 0, "host": 0}  # bytes that came from other devices
        self.not_lent = NOT_TRIED  # why no tensor is lent to another device; empty where that works
        self._borrower: Device | None = None
        self._lender: Device | None = None
        self._recovering = asyncio.Lock()
        self.losses = 0  # how often the device was lost and came back
        self.loss = ""  # the browser's reason for the last loss
        self.gone = ""  # why it did not come back then
        self.lock = asyncio.Lock()  # one program at a time: all of them share the arena
        self._arena: tuple[int, int] | None = None
        self._running = 0  # bytes of the program that is running, beside the arena
        self.speed: Speed | None = None  # once a profile measured it
        self._storages: WeakSet[Any] = WeakSet()
        self.caches: WeakSet[IdleCache] = WeakSet()  # values that models keep for later calls, see IdleCache
        device = ref(self)
        backend.count_constants = lambda nbytes: bool((known := device()) and known._count_constants(nbytes))
        _made.add(self)

    def __repr__(self) -> str:
        return f"<Device {self.kind}: {self.name}{' (software)' if self.is_software else ''}>"

    @property
    def is_gone(self) -> bool:
        """True if it was lost and could not be opened again; ``gone`` says why."""
        return bool(self.gone) and self.backend.is_lost

    @property
    def fallback(self) -> Device | None:
        """The device that runs what this one does not take."""
        return next((device for device in self.fallbacks if not device.is_gone), None)

    def fall_back_to(self, devices: Iterable[Device]) -> None:
        """Have ``devices`` run what this one does not take, the best one first."""
        self.fallbacks = tuple(sorted(devices, key=lambda device: device.facts.fallback_rank))

    async def try_lending(self, borrower: Device) -> None:
        """Find out whether tensors can be lent to ``borrower``; :attr:`not_lent` says why if they cannot."""
        self.not_lent = await self.backend.lending(borrower.backend)
        self._borrower, borrower._lender = borrower, self

    def lends_to(self, other: Device) -> bool:
        """Return whether bytes cross between this device and ``other`` by renting."""
        return other is self._borrower and not self.not_lent

    def count_crossing(self, way: Way, nbytes: int) -> None:
        """Count ``nbytes`` that came from another device."""
        self.crossings[way] += nbytes

    def note_speed(self, speed: Speed) -> Speed:
        """Keep ``speed``, as it was measured now, and return it."""
        self.speed = speed
        return speed

    def stop_lending(self, reason: str) -> None:
        """Note that lending failed: from now on bytes go through the host."""
        self.not_lent = reason

    def stored_as(self, spec: Spec) -> Spec:
        """Return the spec that a weight of ``spec`` has on this device: float32 for blocks that it does not store."""
        if isinstance(spec, BlockSpec) and spec.format not in self.backend.block_formats:
            return Spec(spec.weight_shape, float32)
        return spec

    def refusal(self, tensors: Mapping[str, Spec]) -> str:
        """Return why the device cannot hold or run a model of these ``tensors``, by name, even alone; empty if it can.

        Under a limit that is smaller than the weights they come and go.
        """
        tensors = {name: self.stored_as(spec) for name, spec in tensors.items()}
        total, memory = sum(spec.nbytes for spec in tensors.values()), self.backend.memory
        if min(total, self.budget.usable) > memory:
            return f"its weights take {total:,} bytes, and all values there together at most {memory:,}"
        return self.backend.refusal(tensors)

    @property
    def idle_scratch_bytes(self) -> int:
        """Bytes that :meth:`free_scratch` gives back now: spares, the arena if no program runs, staging if no read."""
        arena = self._arena[1] if self._arena and not self._running else 0
        return arena + self.idle_staging_bytes + self.output_pool.nbytes

    @property
    def busy_bytes(self) -> int:
        """Bytes that may leave when what is under way ends: arena and staging, a program's own, a graph's constants."""
        busy = self._running + (self._arena[1] if self._arena else 0) if self._running else 0
        return busy + self.busy_staging_bytes + self._bytes["constants"] - self.backend.constant_bytes

    def _count_constants(self, nbytes: int) -> bool:
        """See :attr:`Backend.count_constants`: nothing leaves for constants, and as many bytes more stay free."""
        if nbytes > 0:
            if 2 * nbytes > self.budget.free_bytes():
                return False
            try:
                self.charge(nbytes, "constants")
            except (MemoryBudgetError, DeviceUnavailable):
                return False
        else:
            self.refund(-nbytes, "constants")
            self.budget.use_ended()
        return True

    def begin_run(self, nbytes: int) -> None:
        """Begin a run of a program with ``nbytes`` of its own, under ``lock``; :meth:`end_run` ends it."""
        self._running = max(nbytes, 1)

    def end_run(self) -> None:
        """End the run."""
        self._running = 0

    def drop_programs(self) -> None:
        """Drop all programs and free the arena if the device holds no tensor any more and runs nothing."""
        if not self._closed and not self.lock.locked() and len(self._handles) == bool(self._arena):
            for program in self.programs.values():
                program.discard()
            self.programs.clear()
            self.free_scratch()

    def arena(self, nbytes: int) -> int:
        """Return the scratch arena, at least ``nbytes`` large. All programs of the device share it. Under ``lock``."""
        if self._arena is None or self._arena[1] < nbytes:
            self._free_arena()
            self._arena = (self.allocate(nbytes, "scratch"), nbytes)
        return self._arena[0]

    def arena_growth(self, nbytes: int) -> int:
        """Return the bytes by which the arena has to grow for a program that needs ``nbytes``."""
        return max(nbytes - (self._arena[1] if self._arena else 0), 0)

    def free_scratch(self) -> None:
        """Free what is idle of arena, spares and staging; the next run and the next read allocate their own."""
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
        """Call ``storage.lose()`` when the device is lost."""
        self._storages.add(storage)

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
            for lender, borrower in ((self, self._borrower), (self._lender, self)):  # was found for the old one
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
        while self.backend.constant_bytes:
            self.backend.drop_constants()
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
        self.programs.clear()
        super().close()
