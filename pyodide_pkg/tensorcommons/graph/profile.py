"""``profile``: every dispatch of the runs in a block, with its cost, and its time beside what the device can do.

A run is recorded by the program that ran it, and does nothing else where no profile is open. The first run of a program
in a profile is followed by one more over other outputs, in which a dispatch of each kind is repeated until it takes 5
ms: the outputs of the real run stay as they are. The device is the program's meanwhile, so no other run is in the way.

The speed of each device (:mod:`~.speed`) is measured before its first timings, which are then those of a busy GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..backends.base import Executable, Timing
from ..backends.device import Device, Speed
from ..bridge.runtime import yield_to_loop
from ..errors import TensorCommonsError
from .plan import Planned
from .profile_table import ProfileRow, row_of, table_of
from .speed import measure


@dataclass(eq=False)
class _Models:
    """The models of a run under way, and how many of its dispatches are recorded."""

    names: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class ProgramRun:
    """A run of a program that just ended: what it took. ``leaves`` are handles and bytes."""

    device: Device
    planned: Planned[Any]
    executable: Executable
    arena: int
    host: memoryview
    leaves: Sequence[tuple[int, int]]


_running: ContextVar[_Models | None] = ContextVar("_running", default=None)
_NOTHING: AbstractContextManager[None] = nullcontext()


def run_of(*models: str) -> AbstractContextManager[None]:
    """Name what runs in the block as one run of ``models``, where a profile is open."""
    return _NOTHING if Profile.current is None else _named(models)


@contextmanager
def _named(models: tuple[str, ...]) -> Iterator[None]:
    token = _running.set(_Models(models))
    try:
        yield
    finally:
        _running.reset(token)


def profile() -> Profile:
    """Record all runs in a block, on every device: models, pipelines, generation, operations on tensors.

    Runs give the values that they give without a profile. The first run of a program takes longer: each kind of
    dispatch of it is then repeated for 5 ms.

    Raises TensorCommonsError on entry if another profile is open: profiles do not nest.

    >>> async with tc.profile() as profile:
    ...     values = await tc.sum(tc.ones((64, 64)), axis=1).read()
    >>> len(profile.rows) > 0
    True
    """
    return Profile()


class Profile:
    """The dispatches of the runs in a block; see :func:`profile`. ``notes`` lists what was not timed, and why.

    ``current`` is the profile that records runs now, if one is open.

    >>> async with tc.profile() as profile:
    ...     values = await tc.sum(tc.ones((64, 64)), axis=1).read()
    >>> profile.rows[-1].op
    'sum'
    >>> print(profile.table())
      ms  share  count  ms each...in all...
    """

    current: ClassVar[Profile | None] = None

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._runs: list[tuple[ProfileRow, ...]] = []
        self._limits: dict[str, Speed] = {}  # by device
        # By the number of a plan, which is kept so that its number stays its own.
        self._known: dict[int, tuple[Any, tuple[ProfileRow, ...]]] = {}
        self._timings: dict[tuple[Device, str], Timing] = {}  # by device and command

    async def __aenter__(self) -> Profile:
        if Profile.current is not None:
            raise TensorCommonsError("a profile is open already, and profiles do not nest: leave its block first")
        Profile.current = self
        return self

    async def __aexit__(self, *error: object) -> None:
        Profile.current = None
        self._known.clear()
        self._timings.clear()

    @property
    def rows(self) -> tuple[ProfileRow, ...]:
        """One row for each dispatch, in the order of the runs."""
        return tuple(row for run in self._runs for row in run)

    def table(self) -> str:
        """Return the rows as text: equal ones together with their count, the slowest first, then the total."""
        return table_of(self.rows, self._limits, self.notes)

    async def ran(self, run: ProgramRun) -> None:
        """Record a run. Call it under the device's lock."""
        models = _running.get() or _Models()
        if id(run.planned) not in self._known:
            self._known[id(run.planned)] = run.planned, await self._examined(run)
        rows = self._known[id(run.planned)][1]
        self._runs.append(tuple(replace(row, models=models.names, step=models.count + row.step) for row in rows))
        models.count += len(rows)

    async def _examined(self, run: ProgramRun) -> tuple[ProfileRow, ...]:
        """The rows of a program, each kind of command timed once."""
        device, commands = run.device, []
        for command in device.backend.commands(run.planned.plan):
            commands.append(command)
            await yield_to_loop()
        keys = dict.fromkeys(command.key for command in commands if (device, command.key) not in self._timings)
        numbers = {key: number for number, key in enumerate(keys)}
        try:
            if device.kind not in self._limits:
                self._limits[device.kind] = await measure(device)
            if numbers:
                timed = await _timed(run, [numbers.get(command.key, -1) for command in commands])
                self._timings |= {(device, key): timed[number] for key, number in numbers.items()}
        except TensorCommonsError as error:  # the run itself went well
            self.notes.append(f"a run of {len(commands)} dispatches on {device.kind} was not timed: {error}")
        return tuple(
            row_of(number, command, device, self._timings.get((device, command.key)))
            for number, command in enumerate(commands)
        )


async def _timed(run: ProgramRun, classes: Sequence[int]) -> dict[int, Timing]:
    """Time the commands over copies of what the program writes. Raises MemoryBudgetError where these do not fit."""
    device, plan, leaves = run.device, run.planned.plan, run.leaves
    handles = [handle for handle, _ in leaves]
    made: list[int] = []
    device.begin_run(run.executable.nbytes)  # the arena stays
    try:
        device.budget.make_room_now(sum(plan.output_bytes) + sum(leaves[i][1] for i in plan.written))
        for i in plan.written:
            made.append(device.allocate(leaves[i][1], "scratch"))
            device.backend.copy(handles[i], 0, made[-1], 0, leaves[i][1])
            handles[i] = made[-1]
        specs = run.planned.specs[: len(plan.output_bytes)]
        outputs = [device.allocate(spec.nbytes, "scratch", spec) for spec in specs]
        made += outputs
        await device.backend.check(made)
        return await device.backend.time(run.executable, classes, run.arena, run.host, handles, outputs)
    finally:
        device.end_run()
        for handle in made:
            device.free(handle)
