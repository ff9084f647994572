"""Ways of passing weights to WebNN graphs: the memory of the page's process, and the speed of each.

Each way and model has a separate page and browser, for separate memory; figures are medians, memory the
proportional set size of the renderer, where LiteRT lives, beyond the ready page (Linux only).
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error

from bench.memory import FLAGS, Tab
from scripts.console import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

WAYS = ("constants", "inputs", "constant tensors")
LENGTHS = (16, 128)
SPLADE_HEADS = [f"splade-tiny-{task}" for task in ("nli", "polarity", "relation-type", "relevance")]
MODELS = {
    "MiniLM, skill head": ("all-MiniLM-L6-v2", ["skill-head"]),
    "SPLADE, four heads": ("splade-tiny", SPLADE_HEADS),
}
MEASURE = "async (given) => (await import('/bench/peers/weights.mjs')).measure(given)"


def measure_weights(launch: Callable[..., Browser], url: str, rounds: int = 15) -> list[dict[str, Any]]:
    """Measure a row per model and way."""
    rows = []
    for model, (folder, heads) in MODELS.items():
        for way in WAYS:
            browser = launch(FLAGS)
            given = {"way": way, "folder": folder, "headFolders": heads, "lengths": LENGTHS, "rounds": rounds}
            row: dict[str, Any] = {"model": model, "way": way}
            try:
                tab = Tab(browser, url)
                tab.page.goto(url + "bench/empty")
                before = tab.processes()["renderer"]
                row |= tab.page.evaluate(MEASURE, given)
                row["renderer_mb"] = tab.processes()["renderer"] - before
            except Error as error:
                row["why"] = error.message.splitlines()[0]
            finally:
                browser.close()
            rows.append(row)
            say(f"{model}, {way}: {row.get('why') or round(row['renderer_mb'])}")
    return rows


def weights_table(rows: list[dict[str, Any]]) -> str:
    """Format the table."""
    lengths = " | ".join(f"ms, 1 × {length}" for length in LENGTHS)
    lines = [f"| | weights, MB | renderer, MB | build, ms | {lengths} |", "|---" * (4 + len(LENGTHS)) + "|"]
    for row in rows:
        name = f"{row['model']}: {row['way']}"
        if row.get("why"):
            lines.append(f"| {name} | {row['why']} |" + " |" * (2 + len(LENGTHS)))
            continue
        built = " + ".join(f"{size['built']:.0f}" for size in row["sizes"])
        times = " | ".join(
            f"{statistics.median(size['samples']):.1f} (least {min(size['samples']):.1f})" for size in row["sizes"]
        )
        lines.append(f"| {name} | {row['bytes'] / 1e6:.0f} | {row['renderer_mb']:+.0f} | {built} | {times} |")
    return "\n".join(lines)
