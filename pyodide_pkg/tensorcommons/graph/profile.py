"""``profile``: every dispatch of the runs in a block, with its cost, and its time beside what the device can do.

A run is recorded by the program that ran it, and does nothing else where no profile is open. The first run of a program
in a profile is followed by one more over other outputs, in which a dispatch of each kind is repeated until it takes 5
ms: the outputs of the real run stay as they are. The device is the program's meanwhile, so no other run is in the way.

A timing is compared with what its device reached in two probes, which run before the first timings of each profile:
bytes copied, and floating-point operations in multiply-adds, a second. A GPU that was idle runs at a fraction of its
clock, so its probes are repeated until they get no faster, and the timings that follow are those of a busy GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from ..backends.base import Command, Executable, Probe, Timing, Work
from ..backends.device import Device, Speed
from ..bridge.runtime import breathe
from ..errors import MemoryBudgetError, TensorCommonsError
from ..shapes import Shape
from .elementwise_fusion import CHAIN, operations_of
from .plan import Planned

HARDWARE, SOFTWARE, LEAST = 128 * 2**20, 32 * 2**20, 2**20  # bytes that the probe of copying takes, and takes at least
PROBED = 3  # times that a probe is timed at least; the shortest counts
SETTLED = 0.25  # seconds without a faster time after which a GPU has reached its clock
FASTER = 0.98  # of the shortest time: what counts as faster
SHOWN = 72  # characters of a column of the table


@dataclass(frozen=True)
class ProfileRow:
    """One dispatch of one run; on WebNN a graph with its ``nodes``, on the CPU device a step.

    ``models`` are those that ran, empty for operations on tensors. ``step`` numbers the dispatches of a run, as
    :func:`explain_plan` does. ``shapes`` are those of the operands, and ``result`` that of the result. ``nbytes`` and
    ``flops`` are what the operation has to move and to compute; where it takes several dispatches they are divided
    evenly among them. ``milliseconds`` is the dispatch's time by the host's clock, ``on_device`` by the device's, where
    it has one; None where it was not timed. ``share`` is the part of the device's limit (of its bandwidth or its
    multiply-adds, whichever takes longer) that it reaches. ``source`` is the shader's text, if there is one.
    """

    models: tuple[str, ...]
    device: str
    step: int
    op: str
    shapes: tuple[Shape, ...]
    result: Shape
    dtype: str
    kernel: str
    nbytes: int
    flops: int
    milliseconds: float | None
    on_device: float | None
    share: float | None
    nodes: tuple[str, ...]
    source: str = field(repr=False)


@dataclass(eq=False)
class _Run:
    """A run under way: its models, and how many of its dispatches are recorded."""

    models: tuple[str, ...]
    count: int = 0


class _Open:
    """The profile that is open, if one is."""

    profile: Profile | None = None


_run: ContextVar[_Run | None] = ContextVar("_run", default=None)
_NOTHING: AbstractContextManager[None] = nullcontext()


def run_of(*models: str) -> AbstractContextManager[None]:
    """Name what runs in the block as one run of ``models``, where a profile is open."""
    return _NOTHING if _Open.profile is None else _named(models)


@contextmanager
def _named(models: tuple[str, ...]) -> Iterator[None]:
    token = _run.set(_Run(models))
    try:
        yield
    finally:
        _run.reset(token)


def open_profile() -> Profile | None:
    """Return the profile that records runs now."""
    return _Open.profile


def profile() -> Profile:
    """Record all runs in a block, on every device: models, pipelines, generation, operations on tensors.

    ::

        async with tc.profile() as profile:
            await model(input_ids=ids)
        print(profile.table())

    Runs give the values that they give without a profile. The first run of a program takes longer: each kind of
    dispatch of it is then repeated for 5 ms.

    Raises TensorCommonsError on entry if another profile is open: profiles do not nest.
    """
    return Profile()


class Profile:
    """The dispatches of the runs in a block; see :func:`profile`. ``notes`` lists what was not timed, and why."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._runs: list[tuple[ProfileRow, ...]] = []
        self._limits: dict[str, Speed] = {}  # by device
        self._known: dict[
            int, tuple[Any, tuple[ProfileRow, ...]]
        ] = {}  # by plan, which is kept so that its number stays its own
        self._timings: dict[tuple[int, str], Timing] = {}  # by device and command

    async def __aenter__(self) -> Profile:
        if _Open.profile is not None:
            raise TensorCommonsError("a profile is open already, and profiles do not nest: leave its block first")
        _Open.profile = self
        return self

    async def __aexit__(self, *error: object) -> None:
        _Open.profile = None
        self._known.clear()
        self._timings.clear()

    @property
    def rows(self) -> tuple[ProfileRow, ...]:
        """One row for each dispatch, in the order of the runs."""
        return tuple(row for run in self._runs for row in run)

    def table(self) -> str:
        """The rows as text: equal ones together with their count, those that take longest first, then the total."""
        return _table(self.rows, self._limits, self.notes)

    async def ran(
        self,
        device: Device,
        planned: Planned[Any],
        executable: Executable,
        arena: int,
        host: memoryview,
        leaves: Sequence[tuple[int, int]],
    ) -> None:
        """Record a run of ``planned``, which just ended. ``leaves`` are handles and bytes. Call it under the lock."""
        run = _run.get() or _Run(())
        if id(planned) not in self._known:
            rows = await self._examined(device, planned, executable, arena, host, leaves)
            self._known[id(planned)] = planned, rows
        rows = self._known[id(planned)][1]
        self._runs.append(tuple(replace(row, models=run.models, step=run.count + row.step) for row in rows))
        run.count += len(rows)

    async def _examined(
        self,
        device: Device,
        planned: Planned[Any],
        executable: Executable,
        arena: int,
        host: memoryview,
        leaves: Sequence[tuple[int, int]],
    ) -> tuple[ProfileRow, ...]:
        """The rows of a program, each kind of command timed once."""
        commands: list[Command] = []
        for command in device.backend.commands(planned.plan):
            commands.append(command)
            await breathe()
        kinds = {key: number for number, key in enumerate(dict.fromkeys(command.key for command in commands))}
        new = [(id(device), command.key) not in self._timings for command in commands]
        classes = [kinds[command.key] if is_new else -1 for command, is_new in zip(commands, new, strict=True)]
        try:
            if device.kind not in self._limits:
                self._limits[device.kind] = device.speed = await measure(device)
            if any(new):
                timed = await _timed(device, planned, executable, arena, host, leaves, classes)
                names = list(kinds)
                self._timings |= {(id(device), names[number]): timing for number, timing in timed.items()}
        except TensorCommonsError as error:  # the run itself went well
            self.notes.append(f"a run of {len(commands)} dispatches on {device.kind} was not timed: {error}")
        return tuple(
            _row(number, command, device, self._timings.get((id(device), command.key)))
            for number, command in enumerate(commands)
        )


async def _timed(
    device: Device,
    planned: Planned[Any],
    executable: Executable,
    arena: int,
    host: memoryview,
    leaves: Sequence[tuple[int, int]],
    classes: Sequence[int],
) -> dict[int, Timing]:
    """Time the commands over copies of what the program writes. Raises MemoryBudgetError where these do not fit."""
    plan = planned.plan
    handles = [handle for handle, _ in leaves]
    made: list[int] = []
    device.begin_run(executable.nbytes)  # the arena stays
    try:
        device.budget.make_room_now(sum(plan.output_bytes) + sum(leaves[i][1] for i in plan.written))
        for i in plan.written:
            made.append(device.allocate(leaves[i][1], "scratch"))
            device.backend.copy(handles[i], 0, made[-1], 0, leaves[i][1])
            handles[i] = made[-1]
        outputs = [device.allocate(spec.nbytes, "scratch", spec) for spec in planned.specs[: len(plan.output_bytes)]]
        made += outputs
        await device.backend.check(made)
        return await device.backend.time(executable, classes, arena, host, handles, outputs)
    finally:
        device.end_run()
        for handle in made:
            device.free(handle)


async def measure(device: Device) -> Speed:
    """Probe ``device``. Raises MemoryBudgetError where not even :data:`LEAST` bytes are free, or as a run does."""
    nbytes = SOFTWARE if device.is_software else HARDWARE
    while True:
        try:
            copied, multiplied = [await _rate(device, probe) for probe in device.backend.probes(nbytes)]
            return Speed(copied, multiplied)
        except MemoryBudgetError:
            nbytes //= 2
            if nbytes < LEAST:
                raise


async def _rate(device: Device, probe: Probe) -> float:
    """Measure what ``probe`` does a second on a device."""
    backend, made = device.backend, list[int]()
    executable = await backend.compile(probe.plan)
    try:
        with device.charged(executable.nbytes, "scratch"):
            device.budget.make_room_now(sum(spec.nbytes for spec in probe.leaves) + sum(probe.plan.output_bytes))
            for spec in probe.leaves:
                made.append(device.allocate(spec.nbytes, "scratch", spec))
                backend.write(made[-1], 0, memoryview(np.ones(spec.shape, spec.dtype.numpy)).cast("B"))
            outputs = [device.allocate(nbytes, "scratch", probe.leaves[0]) for nbytes in probe.plan.output_bytes]
            made += outputs
            await backend.check(made)
            leaves, settled = made[: len(probe.leaves)], 0.0 if device.is_software else SETTLED
            shortest, count, since = float("inf"), 0, perf_counter()
            while count < PROBED or perf_counter() - since < settled:
                timings = await backend.time(executable, [0], 0, memoryview(b""), leaves, outputs)
                count += 1
                if timings[0].milliseconds < FASTER * shortest:
                    since = perf_counter()
                shortest = min(shortest, timings[0].milliseconds)
            return probe.amount / max(shortest, 1e-6) * 1e3
    finally:
        for handle in made:
            device.free(handle)
        backend.discard(executable)


def _row(number: int, command: Command, device: Device, timing: Timing | None) -> ProfileRow:
    last = command.work[-1]
    nbytes, flops = (
        sum(amounts) // command.parts + (command.part < sum(amounts) % command.parts)
        for amounts in ([work.nbytes for work in command.work], [work.flops for work in command.work])
    )
    share = None
    if timing is not None and device.speed is not None and timing.milliseconds > 0:
        seconds = max(nbytes / device.speed.bytes_per_second, flops / device.speed.flops_per_second)
        share = seconds * 1e3 / timing.milliseconds
    return ProfileRow(
        (),
        device.kind,
        number,
        _op(command.work) + (f" {command.part + 1}/{command.parts}" if command.parts > 1 else ""),
        tuple(spec.shape for spec in last.inputs) if len(command.work) == 1 else (),
        last.output.shape,
        last.output.dtype.name,
        command.kernel,
        nbytes,
        flops,
        timing.milliseconds if timing is not None else None,
        timing.on_device if timing is not None else None,
        share,
        nodes_of(command.work),
        command.source,
    )


def _op(work: Sequence[Work]) -> str:
    return work[0].op.name if len(work) == 1 else f"graph of {len(work)} nodes"


def nodes_of(work: Sequence[Work]) -> tuple[str, ...]:
    """The operations of a command by name: of a chain those of its formula, inner ones first."""
    formulas = (operations_of(each.attrs["formula"]) if each.op is CHAIN else [each.op.name] for each in work)
    return tuple(name for names in formulas for name in names)


def _table(rows: Sequence[ProfileRow], limits: Mapping[str, Speed], notes: Sequence[str]) -> str:
    alike = Counter(replace(row, step=0, source="") for row in rows)
    order = sorted(alike, key=lambda row: -(row.milliseconds or 0) * alike[row])
    lines = [("ms", "share", "count", "ms each", "GB/s", "GFLOP/s", "MB", "MFLOP", "operation", "kernel", "model")]
    for row in order:
        count, ms = alike[row], row.milliseconds
        lines.append(
            (
                _number(ms and ms * count),
                f"{row.share:.0%}" if row.share is not None else "-",
                str(count),
                _number(ms),
                _number(ms and row.nbytes / ms / 1e6),
                _number(ms and row.flops / ms / 1e6),
                _number(row.nbytes * count / 1e6),
                _number(row.flops * count / 1e6),
                _short(_described(row)),
                f"{row.device} {row.kernel}",
                _short("+".join(row.models)),
            )
        )
    total = sum(row.milliseconds or 0 for row in rows)
    moved, computed = sum(row.nbytes for row in rows) / 1e6, sum(row.flops for row in rows) / 1e6
    lines.append((_number(total), "", str(len(rows)), "", "", "", _number(moved), _number(computed), "in all", "", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.rjust(width) if place < 8 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    for kind, speed in limits.items():
        text.append(
            f"{kind} copies {speed.bytes_per_second / 1e9:.3g} GB/s and does {speed.flops_per_second / 1e9:.3g} GFLOP/s"
        )
    return "\n".join([*text, *notes])


def _described(row: ProfileRow) -> str:
    name = "+".join(row.nodes) if row.op == "chain" else row.op
    given = "".join(" " + ("×".join(map(str, shape)) or "()") for shape in row.shapes[:3])
    return f"{name}{given} → {'×'.join(map(str, row.result)) or '()'} {row.dtype}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
