"""The rows of a profile, and their table: each kind of dispatch with its cost, beside what its device can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..backends.base import Command, Timing, Work
from ..backends.device import Device, Speed
from ..shapes import Shape
from .elementwise_fusion import CHAIN, operations_of

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

    >>> async with tc.profile() as profile:
    ...     values = await tc.sum(tc.asarray(np.ones((64, 64), np.float32)), axis=1).read()
    >>> row = profile.rows[-1]
    >>> row.device, row.op, row.shapes, row.result, row.flops
    ('cpu', 'sum', ((64, 64),), (64,), 4096)
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


def row_of(number: int, command: Command, device: Device, timing: Timing | None) -> ProfileRow:
    """Return the row of dispatch ``number`` of a run, for no model yet."""
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


def table_of(rows: Sequence[ProfileRow], limits: Mapping[str, Speed], notes: Sequence[str]) -> str:
    """Return ``rows`` as text, with the measured ``limits`` by kind of device, and ``notes``."""
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
