"""The lock of a storage: reads and runs use it side by side, a write has it alone; and when it was used last.

All storages of a use are taken in one step, so no two uses wait for each other.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from ..backends.device import Device
from ..errors import DeviceLost, TensorReleased

State: TypeAlias = Literal["resident", "offloaded", "dropped", "lost", "released"]
S = TypeVar("S", bound="Lockable")
_clock = itertools.count()


class Lockable:
    """Bytes of ``device`` with the count of their uses; ``free_after_use`` if they were released during one.

    ``number`` is the device's name for the bytes, also while they are away.
    """

    def __init__(self, device: Device, number: int) -> None:
        self.device = device
        self.number = number
        self.state: State = "resident"
        self.free_after_use = False
        self._last_used = next(_clock)
        self._users = 0  # beside those of its bundles
        self._writers = 0  # under way or waiting for their turn
        self._waiting: list[asyncio.Future[None]] = []
        self._bundles: list[weakref.ref[Bundle]] = []

    @property
    def handle(self) -> int:
        """The device's name for the bytes; it stays the same when they leave and come back.

        Raises TensorReleased for bytes that were released, and DeviceLost for bytes that went with a lost device.
        """
        if self.state == "released":
            raise TensorReleased("the tensor's bytes were released; compute or load it again before using it")
        if self.state == "lost":
            raise DeviceLost("the tensor's bytes were lost with their device: compute or load it again")
        return self.number

    @property
    def in_use(self) -> bool:
        """True if a program, a read or a write under way needs the bytes where they are."""
        return self._users > 0 or any(bundle._users for bundle in self._alive())

    @property
    def is_written(self) -> bool:
        """True if a write is under way, or waits for its turn."""
        return self._writers > 0

    @property
    def last_used(self) -> int:
        """Time of the last use, as a count of all uses."""
        return max([self._last_used, *(bundle.last_used for bundle in self._alive())])

    def touch(self) -> None:
        """Mark as used now; the least recently used leaves first."""
        self._last_used = next(_clock)

    def expire(self) -> None:
        """Mark as not needed for long: it leaves before what was used earlier."""
        self._last_used = -1

    def unsettle(self) -> None:
        """Have every bundle look at the storage again before its next use."""
        for bundle in self._alive():
            bundle.is_settled = False

    def _alive(self) -> list[Bundle]:
        return [bundle for reference in self._bundles if (bundle := reference()) is not None]


class Bundle:
    """The storages that a program on ``device`` reads in every run, used as one.

    A model has a hundred weights; to look at each of them would take most of a replayed run's time. They are looked at
    one by one only where something about one of them changed since; else the bundle ``is_settled``. ``leaves`` are
    those of the program: ``None`` where each run brings one.
    """

    def __init__(self, device: Device, leaves: Sequence[Lockable | None]) -> None:
        self.device = device
        self.storages: tuple[Any, ...] = tuple(dict.fromkeys(leaf for leaf in leaves if leaf is not None))
        self.last_used = next(_clock)
        self.is_settled = False
        self._users = 0
        self._handles = [0 if leaf is None else leaf.number for leaf in leaves]
        self._open = [place for place, leaf in enumerate(leaves) if leaf is None]
        for storage in self.storages:
            storage._bundles = [reference for reference in storage._bundles if reference() is not None]
            storage._bundles.append(weakref.ref(self))

    def settle(self) -> None:
        """Check every storage: settled means that all are resident, and that no write is under way or waiting."""
        self.is_settled = all(
            storage.state == "resident" and not storage._writers and not storage._waiting for storage in self.storages
        )

    def touch(self) -> None:
        """Mark all as used now."""
        self.last_used = next(_clock)

    def brought(self, leaves: Sequence[S]) -> list[S]:
        """Return the ``leaves`` of a run that are not in the bundle."""
        return [leaves[place] for place in self._open]

    def handles(self, leaves: Sequence[Lockable]) -> list[int]:
        """Return the handle of each of a run's ``leaves``, in use.

        Raises TensorReleased or DeviceLost for one whose bytes are gone: one that had left its device when it was
        released was not kept by its use.
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
    """Keep the bytes of ``storages`` where they are through the block; those released meanwhile are freed at its end.

    A write, of the storages in ``written``, waits for the uses under way, and later ones wait for it, so no use sees
    half of it. The storages of ``bundle`` are used as well.

    Raises TensorReleased or DeviceLost for a storage whose bytes are gone.
    """

    def __init__(
        self,
        storages: Sequence[Lockable],
        written: Collection[Lockable] = (),
        bundle: Bundle | None = None,
    ) -> None:
        self._storages = storages
        self._written = written
        self._bundle = bundle

    def _unsettled(self) -> Sequence[Lockable]:
        """The storages that have to be looked at one by one."""
        if self._bundle is None or self._bundle.is_settled:
            return self._storages
        return [*self._storages, *self._bundle.storages]

    async def __aenter__(self) -> None:
        for storage in self._written:
            storage._writers += 1
            storage.unsettle()
        try:
            while (busy := _first_busy(self._unsettled(), self._written)) is not None:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                busy._waiting.append(turn)
                busy.unsettle()
                await turn
        except BaseException:
            self._end(self._unsettled())
            raise
        for storage in self._storages:
            storage._users += 1
        if self._bundle is not None:
            self._bundle._users += 1

    async def __aexit__(self, *error: object) -> None:
        for storage in self._storages:
            storage._users -= 1
        if self._bundle is not None:
            self._bundle._users -= 1
        unsettled = self._unsettled()
        for storage in unsettled:
            if storage.free_after_use and not storage.in_use:
                storage.free_after_use = False
                storage.device.free(storage.number)
        self._end(unsettled)

    def _end(self, unsettled: Sequence[Lockable]) -> None:
        """Wake up every use that waits for one of the storages, all of which were ``unsettled`` when it began to."""
        for storage in self._written:
            storage._writers -= 1
        for storage in unsettled:
            if storage._waiting:
                turns, storage._waiting = storage._waiting, []
                for turn in turns:
                    if not turn.done():
                        turn.set_result(None)
        for budget in {storage.device.budget for storage in self._storages}:
            budget.use_ended()
        if self._bundle is not None:
            self._bundle.device.budget.use_ended()


def handles_of(storages: Sequence[Lockable]) -> list[int]:
    """Return the handle of each. Raises TensorReleased or DeviceLost for one whose bytes are gone."""
    return [storage.number if storage.state == "resident" else storage.handle for storage in storages]


def touch(storages: Sequence[Lockable]) -> None:
    """Mark as used now, together."""
    now = next(_clock)
    for storage in storages:
        storage._last_used = now


def _first_busy(storages: Sequence[Lockable], written: Collection[Lockable]) -> Lockable | None:
    """Find the first storage that a use has to wait for. A run looks at its weights here: no call is spent on one.

    Raises TensorReleased or DeviceLost for a storage whose bytes are gone.
    """
    for storage in storages:
        if storage.state == "released" or storage.state == "lost":
            _ = storage.handle
        if storage.in_use if storage in written else storage._writers:
            return storage
    return None
