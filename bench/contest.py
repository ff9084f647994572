"""The contest: contestants do the same work alternately, in rounds, so that a drift of the machine affects all.

A contestant's result is compared before its time counts. One that fails keeps its place in the report, with its error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from bench.report import CEILING, PART, Figure, Row
from bench.workloads import Work

Array: TypeAlias = np.ndarray[Any, Any]
CLOSE = 0.9999  # least cosine of equal results
ADDITIONS = 1_000_000  # of the loop of Python beside each round


class Prepared(Protocol):
    """Work that is ready to run. ``extra`` is reported with the times, by name; a sample may change it."""

    extra: dict[str, Any]

    async def sample(self) -> float:
        """Do the work once and read the result; gives milliseconds."""
        ...

    def result(self) -> Array:
        """Return the value that the last sample read."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


class Contestant(Protocol):
    """Implementation that does the work."""

    name: str
    version: str
    device: str

    async def prepare(self, work: Work) -> Prepared:
        """Copy the weights and inputs to the device. Raises the error of the contestant if that fails."""
        ...

    def device_bytes(self) -> int:
        """Return the bytes of its current WebGPU buffers."""
        ...


class NotRunError(Exception):
    """A contestant was left out; the message says why."""


@dataclass(frozen=True)
class Rules:
    """Rules of a contest: a contestant runs ``rounds`` times, or fewer when its samples took ``cap_s`` seconds; at
    least twice.

    A first run that took ``patience_s`` is the only sample. A contestant whose last work of the same kind
    predicts such a run is skipped, with that reason. Before each sample it runs untimed for ``warm_ms``, because an
    idle GPU reduces its clock to a sixth, which would slow the contestant after a slow one.
    """

    rounds: int
    cap_s: float
    patience_s: float = 120.0
    warm_ms: float = 0.0


@dataclass
class _Entry:
    """State of a contestant in one piece of work."""

    row: Row
    prepared: Prepared

    def wants_more(self, rules: Rules) -> bool:
        done = self.row.samples_ms
        if self.row.error or len(done) >= rules.rounds:
            return False
        return len(done) < 2 or sum(done) < rules.cap_s * 1e3


async def measure(
    contestants: Sequence[Contestant],
    work: Work,
    rules: Rules,
    paces: dict[str, float],
    say: Callable[[str], None] = lambda line: None,
) -> Figure:
    """Measure all contestants on ``work``. ``paces`` has seconds per scale by name, from earlier works of the group."""
    rows: list[Row] = []
    entries: list[_Entry] = []
    if work.missing:
        error = f"not run: {work.missing}"
        rows = [Row(each.name, each.version, each.device, error=error) for each in contestants]
        return Figure(work.group, work.name, work.steps, work.unit, rows)
    expected = work.exact() if work.exact else None
    for contestant in contestants:
        row = Row(contestant.name, contestant.version, contestant.device, amount=work.amount)
        rows.append(row)
        foretold = paces.get(contestant.name, 0.0) * work.scale
        if foretold > rules.patience_s:
            row.error = f"not run: at the pace of the work before, one run would take {foretold:,.0f} s"
            continue
        started = time.perf_counter()
        before = contestant.device_bytes()
        try:
            prepared = await contestant.prepare(work)
            first = await prepared.sample()
            row.ready_ms = (time.perf_counter() - started) * 1e3
            row.device_bytes = contestant.device_bytes() - before
            entries.append(_Entry(row, prepared))
            if row.device == CEILING:
                row.amount = 2.0 * work.arrays["x"].nbytes * work.steps
            if row.device in (CEILING, PART):  # they compute something else
                continue
            expected = prepared.result() if expected is None else expected
            row.cosine = cosine(prepared.result(), expected)
            row.error = difference(prepared.result(), expected, equal=work.equal, leading=work.leading)
            if work.leading and not row.error:
                same = np.sum(prepared.result().ravel() == expected.ravel())
                row.extra["tokens equal"] = f"{same} of {expected.size}"
            if not row.error and first > rules.patience_s * 1e3:
                row.samples_ms.append(first)
                row.error = "only the first run, which also compiles: it took too long for more"
        except Exception as error:
            row.error = describe(error)
        say(f"  {row.name}: {row.error or f'ready in {row.ready_ms:,.0f} ms'}")
    loops = []
    for turn in range(rules.rounds):
        loops.append(_loop_ms())
        start = turn % max(1, len(entries))  # in a changing order
        for entry in entries[start:] + entries[:start]:
            if entry.wants_more(rules):
                try:
                    warmed = 0.0
                    while warmed < rules.warm_ms:
                        warmed += await entry.prepared.sample()
                    entry.row.samples_ms.append(await entry.prepared.sample())
                except Exception as error:
                    entry.row.error = describe(error)
    for entry in entries:
        if work.scale and entry.row.samples_ms:
            paces[entry.row.name] = entry.row.median / 1e3 / work.scale
        entry.row.extra |= entry.prepared.extra
        try:
            await entry.prepared.close()
        except Exception as error:
            entry.row.error = entry.row.error or f"closing: {describe(error)}"
    return Figure(work.group, work.name, work.steps, work.unit, rows, loops)


def _loop_ms() -> float:
    """Measure the ms of :data:`ADDITIONS` additions in Python."""
    started, total = time.perf_counter(), 0
    for number in range(ADDITIONS):
        total += number
    return (time.perf_counter() - started) * 1e3


def cosine(result: Array, expected: Array) -> float:
    """Compute the cosine of two results; NaN if they differ in size."""
    a, b = np.ravel(result).astype(np.float64), np.ravel(expected).astype(np.float64)
    if a.size != b.size:
        return float("nan")
    with np.errstate(all="ignore"):
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def difference(result: Array, expected: Array, *, equal: bool, leading: int = 0) -> str:
    """Describe the fault of a result; empty if there is none.

    ``equal`` requires exact equality, as for tokens, of the ``leading`` numbers if that is not 0.
    """
    if equal and result.size == expected.size:
        apart = np.flatnonzero((result.ravel() != expected.ravel())[: leading or None])
        return f"the result is not the expected one from number {apart[0]} of {result.size} on" if apart.size else ""
    close = cosine(result, expected)
    return "" if close >= CLOSE else f"the result is not the expected one: cosine {close:.6f}"  # including NaN


def describe(error: BaseException) -> str:
    """Format an error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = "not run" if isinstance(error, NotRunError) else type(error).__name__
    return f"{kind}: {' '.join(lines)}"[:400]
