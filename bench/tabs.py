"""Tabs with one runtime (docs/javascript.md): the memory of one and of five, and the first embedding of the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench.memory import pss

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, CDPSession

TABS = 5
DEVICES = (["cpu"], ["webgpu", "cpu"])
STABLE = 2.0  # MB between two samples, a second apart
EMBED = """async (devices) => {
  const { connect } = await import("/tensorcommons.mjs");
  const began = performance.now();
  globalThis.tc = await connect({ shared: true, devices });
  if (!tc.shared) throw new Error(tc.reason);
  const embed = await tc.pipeline("feature-extraction", "/models/all-MiniLM-L6-v2");
  await embed("It rains.", { pooling: "mean" });
  return performance.now() - began;
}"""


def measure_tabs(launch: Callable[..., Browser], url: str) -> list[dict[str, Any]]:
    """Measure a row for each device: MB of all processes with empty tabs, with one of them connected, and with all."""
    rows = []
    for devices in DEVICES:
        browser = launch()
        asked, context = browser.new_browser_cdp_session(), browser.new_context()
        pages = [context.new_page() for _ in range(TABS)]
        for page in pages:
            page.goto(f"{url}bench/empty")
        empty = _settled(asked)
        first = pages[0].evaluate(EMBED, devices)
        one = _settled(asked)
        others = [page.evaluate(EMBED, devices) for page in pages[1:]]
        rows.append(
            {"device": devices[0], "empty": empty, "one": one, "all": _settled(asked), "first": first, "others": others}
        )
        browser.close()
    return rows


def _settled(asked: CDPSession) -> float:
    """Return the MB of all processes of the browser, once they are stable."""
    last = 0.0
    while True:
        now = sum(pss(int(each["id"])) for each in asked.send("SystemInfo.getProcessInfo")["processInfo"])
        if abs(now - last) < STABLE:
            return now
        last = now
        time.sleep(1)


def tabs_table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    lines = [
        f"| runtime on | {TABS} empty tabs, MB | one connected | all | × one | first embedding, ms | of another tab |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = (row["all"] - row["empty"]) / (row["one"] - row["empty"])
        numbers = [f"{row[key]:,.0f}" for key in ("empty", "one", "all")] + [f"{ratio:.2f}", f"{row['first']:,.0f}"]
        others = f"{min(row['others']):.0f} to {max(row['others']):.0f}"
        lines.append(f"| {row['device']} | {' | '.join(numbers)} | {others} |")
    return "\n".join(lines)
