"""Reports of samples: medians and spreads, the ratio to the best peer, a table for people and JSON for programs.

A figure is the median of its samples; its spread is the smallest, the 90th percentile and the largest. A failed
contestant keeps its row, with its error.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

OURS, ON_WEBNN, ON_CPU = "tensorcommons", " on WebNN", " on CPU"
OURS_WEBNN = OURS + ON_WEBNN
OURS_EVERYWHERE = (OURS, OURS_WEBNN, OURS + ON_CPU)
PART, CEILING = "part", "ceiling"


@dataclass
class Row:
    """Samples of one contestant for one piece of work, in milliseconds per sample.

    ``device`` is webgpu, webnn, cpu (one thread) or wasm (several); "ceiling" is the limit of the device, "part"
    another variant of ours.
    ``ready_ms`` is the time from the weights in memory to the first result, ``cosine`` compares that with the
    correct one, and ``device_bytes`` are its WebGPU buffers after it. ``amount`` is the work that a sample computes or
    moves, in the unit of the figure.
    """

    name: str
    version: str
    device: str
    amount: float = 0.0
    samples_ms: list[float] = field(default_factory=list)
    error: str = ""
    ready_ms: float = 0.0
    cosine: float = 0.0
    device_bytes: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Return the median in milliseconds per sample."""
        return statistics.median(self.samples_ms)

    @property
    def percentile_90(self) -> float:
        """Return the 90th percentile in milliseconds per sample, interpolated between two samples."""
        return float(np.percentile(self.samples_ms, 90))


@dataclass
class Figure:
    """One piece of work in ``steps`` steps per sample. ``unit`` is "FLOP", "byte", "token" or "image", or "ms" if
    it has no amount. ``loop_ms`` are the times of 1,000,000 additions in Python at the beginning of each round, which
    show a processor that is shared with other work. ``floors`` are the least ms per sample by device, for its probed
    rates.
    """

    group: str
    name: str
    steps: int
    unit: str
    rows: list[Row]
    loop_ms: list[float] = field(default_factory=list)
    floors: dict[str, float] = field(default_factory=dict)

    def pairs(self) -> list[tuple[Row, Row]]:
        """Pair our row with that of the best peer: on each device, then our best with the best peer of all."""
        ours = [row for row in self.rows if row.name in OURS_EVERYWHERE and row.samples_ms]
        peers = [row for row in self.rows if row.name not in OURS_EVERYWHERE and row.samples_ms]
        found: list[tuple[Row, Row]] = []
        for devices in (("webgpu",), ("webnn",), ("cpu",), ("webgpu", "webnn", "cpu", "wasm")):
            own = min((row for row in ours if row.device in devices), key=lambda row: row.median, default=None)
            best = min((row for row in peers if row.device in devices), key=lambda row: row.median, default=None)
            if own is not None and best is not None and all(best is not row for _, row in found):
                found.append((own, best))
        return found

    def ratios(self) -> list[tuple[float, Row]]:
        """Compute our speed relative to the peer of each pair."""
        return [(peer.median / own.median, peer) for own, peer in self.pairs()]

    def parts(self) -> list[tuple[float, Row]]:
        """Compute our time relative to our other variants on the same device."""
        ours = {_place(row): row for row in self.rows if row.name in OURS_EVERYWHERE and row.samples_ms}
        parts = [(_place(row), row) for row in self.rows if row.device == PART and row.samples_ms]
        return [(ours[place].median / part.median, part) for place, part in parts if place in ours]

    def above_floors(self) -> list[tuple[float, Row]]:
        """Compute our time relative to the floor of each device."""
        ours = [row for row in self.rows if row.name in OURS_EVERYWHERE and row.samples_ms]
        return [(row.median / self.floors[row.device], row) for row in ours if row.device in self.floors]

    def rate(self, row: Row) -> str:
        """Format the rate of a contestant."""
        a_second = row.amount / row.median * 1e3
        if self.unit == "FLOP":
            return f"{a_second / 1e12:,.1f} TFLOP/s" if a_second > 1e12 else f"{a_second / 1e9:,.1f} GFLOP/s"
        if self.unit in ("token", "image"):
            return f"{a_second:,.1f} {self.unit}s/s"
        return f"{a_second / 1e9:,.1f} GB/s" if self.unit == "byte" else ""

    def share_of_ceiling(self, row: Row) -> float | None:
        """Compute the share of the device's limit that a contestant reaches, if that was measured."""
        top = next((other for other in self.rows if other.device == CEILING and other.samples_ms), None)
        if top is None or top is row:
            return None
        return row.amount / row.median / (top.amount / top.median)


def _place(row: Row) -> str:
    """Return the device that the name of our row ends with; empty for WebGPU."""
    return next((place for place in (ON_WEBNN, ON_CPU) if row.name.endswith(place)), "")


def compare(figure: Figure, earlier: Figure) -> None:
    """Report how much slower each contestant is than in ``earlier`` work, one step compared with one of that."""
    before = {row.name: row for row in earlier.rows if row.samples_ms}
    for row in figure.rows:
        if row.samples_ms and row.name in before and row.amount and before[row.name].amount:
            other = before[row.name]
            ratio = row.median / row.amount / (other.median / other.amount)
            row.extra[f"time of a {figure.unit} against that of {earlier.name}"] = f"{ratio:.2f} ×"


def merge(processes: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Merge the figures of several processes: a sample is the median of a process.

    An error says in how many processes it occurred; other texts that differ are all there.
    """
    found: dict[str, list[Figure]] = {}
    for figures in processes:
        for figure in figures:
            found.setdefault(figure.name, []).append(figure)
    return [_merged(figures) for figures in found.values()]


def _merged(figures: Sequence[Figure]) -> Figure:
    rows: dict[str, list[Row]] = {}
    for figure in figures:
        for row in figure.rows:
            rows.setdefault(row.name, []).append(row)
    loops = [loop for figure in figures for loop in figure.loop_ms]
    floors = {kind: statistics.median(figure.floors[kind] for figure in figures) for kind in figures[0].floors}
    return replace(figures[0], rows=[_merged_row(each) for each in rows.values()], loop_ms=loops, floors=floors)


def _merged_row(rows: Sequence[Row]) -> Row:
    timed = [row for row in rows if row.samples_ms]
    failed = [row.error for row in rows if row.error]
    times = f" ({len(failed)} of {len(rows)} processes)" if 0 < len(failed) < len(rows) else ""
    texts: dict[str, dict[str, None]] = {}
    for row in rows:
        for key, value in row.extra.items():
            texts.setdefault(key, {})[str(value)] = None
    return replace(
        (timed or rows)[0],
        samples_ms=[row.median for row in timed],
        error=failed[0] + times if failed else "",
        ready_ms=statistics.median(row.ready_ms for row in timed or rows),
        extra={key: "; ".join(values) for key, values in texts.items()},
    )


def table(figures: Sequence[Figure]) -> str:
    """Format the figures as text, with the ratio to the best peer first."""
    lines: list[str] = []
    for figure in figures:
        per = f"; ms of one in a chain of {figure.steps}" if figure.steps > 1 else "; ms"
        lines += ["", f"{figure.name}{per}"]
        for own, peer in figure.pairs():
            kinds = {"webgpu": "best WebGPU peer", "webnn": "best WebNN peer", "cpu": "best peer on one thread"}
            kind = kinds.get(peer.device, "best peer of any kind")
            tail = peer.percentile_90 / own.percentile_90
            lines.append(
                f"  {peer.median / own.median:.2f} × the {kind}, {peer.name} ({tail:.2f} × at the 90th percentile)"
            )
        for ratio, part in figure.parts():
            lines.append(f"  {ratio:.2f} × the time of {part.name}")
        for ratio, row in figure.above_floors():
            floor = number(figure.floors[row.device])
            lines.append(f"  {ratio:.2f} × the floor of {row.device}, {floor} at its probed rates")
        if figure.loop_ms:
            loops = figure.loop_ms
            spread = f"{number(statistics.median(loops))} ({number(min(loops))} to {number(max(loops))})"
            lines.append(f"  the processor: {spread} for 1,000,000 additions in Python")
        for row in figure.rows:
            title = f"{row.name} {row.version}".strip()
            if not row.samples_ms:
                lines.append(
                    f"    {title:<26} {row.error if row.error.startswith('not run') else f'failed: {row.error}'}"
                )
                continue
            times = (row.median, min(row.samples_ms), row.percentile_90, max(row.samples_ms))
            middle, low, slow, high = (number(time / figure.steps) for time in times)
            spread = f"({low} to {high}, 90 % to {slow}, n={len(row.samples_ms)})"
            line = f"    {title:<26}{middle:>10}  {spread:<44}{figure.rate(row):>16}"
            share = figure.share_of_ceiling(row)
            if share is not None:
                line += f"  {share:.0%} of the copy"
            if row.ready_ms:
                line += f"  ready in {number(row.ready_ms)}"
            if row.device_bytes:
                line += f", {row.device_bytes / 1e6:,.1f} MB"
            lines.append(line.rstrip())
            lines += [f"      {key}: {value}" for key, value in row.extra.items()]
            if row.error:
                lines.append(f"      {row.error}")
    return "\n".join(lines[1:])


def number(milliseconds: float) -> str:
    """Format a number with three significant digits."""
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2 if milliseconds >= 1 else 3
    return f"{milliseconds:,.{digits}f}"


def to_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Convert the figures for json.dump: all measurements, and the values derived from them."""
    return [
        {
            **asdict(figure),
            "ratios": [{"ratio": ratio, "peer": peer.name} for ratio, peer in figure.ratios()],
            "parts": [{"ratio": ratio, "of": part.name} for ratio, part in figure.parts()],
        }
        for figure in figures
    ]


def from_json(data: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Read the figures that :func:`to_json` wrote."""
    figures = []
    for entry in data:
        values = {key: value for key, value in entry.items() if key not in ("ratios", "parts", "rows")}
        figures.append(Figure(**values, rows=[Row(**row) for row in entry["rows"]]))
    return figures
