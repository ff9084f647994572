"""Reports of samples: medians and spreads, the ratio to the best peer, a table for people and JSON for programs.

A figure is the median of its samples; its spread is the smallest, the 90th percentile and the largest. A failed
contestant keeps its row, with its error.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    it has no amount. ``loop_ms`` are the times of a loop of Python at the beginning of each round, which show a
    processor that is shared with other work.
    """

    group: str
    name: str
    steps: int
    unit: str
    rows: list[Row]
    loop_ms: list[float] = field(default_factory=list)

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
        ours = {row.name == OURS_WEBNN: row for row in self.rows if row.name in (OURS, OURS_WEBNN) and row.samples_ms}
        parts = [(row.name.endswith(ON_WEBNN), row) for row in self.rows if row.device == PART and row.samples_ms]
        return [(ours[there].median / part.median, part) for there, part in parts if there in ours]

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
        if figure.loop_ms:
            loops = figure.loop_ms
            spread = f"{number(statistics.median(loops))} ({number(min(loops))} to {number(max(loops))})"
            lines.append(f"  the processor: {spread} for a loop of Python")
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
