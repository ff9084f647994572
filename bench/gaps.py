"""How long the page's main thread does not answer: while models load, at a first run and at replayed ones, at a switch.

    make bench ARGS=gaps

A message sent to itself, again and again, records each gap between two turns of the main thread; the browser's own
"longtask" entries (over 50 ms) are counted beside it. Ours is the demo page with eight models on the default device:
Python runs in its worker. onnxruntime-web's WASM runs MiniLM in a page of its own, on the main thread as its users
have it.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from bench.memory import OrtTab, make_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page

RUNS = 5
RECORD = """() => {
  const { port1, port2 } = new MessageChannel();
  const turns = { gaps: [], long: [], last: performance.now() };
  port1.onmessage = () => {
    const now = performance.now();
    if (now - turns.last > 4) turns.gaps.push(now - turns.last);
    turns.last = now;
    setTimeout(() => port2.postMessage(0));
  };
  const note = (list) => { for (const { duration } of list.getEntries()) turns.long.push(duration); };
  new PerformanceObserver(note).observe({ type: "longtask" });
  globalThis.turns = turns;
  port2.postMessage(0);
}"""
TAKE = """() => {
  const { gaps, long } = globalThis.turns;
  Object.assign(globalThis.turns, { gaps: [], long: [], last: performance.now() });
  return { gaps, long };
}"""

WILL_RUN = """() => {
  const panel = document.getElementById("sentences");
  globalThis.ran = new Promise((done) => {
    const seen = new MutationObserver(() => { if (panel.dataset.state === "done") { seen.disconnect(); done(); } });
    seen.observe(panel, { attributeFilter: ["data-state"] });
  });
}"""


def measure_gaps(launch: Callable[..., Browser], url: str) -> list[dict[str, Any]]:
    """A row a phase: who, what, the longest gap in ms and the long tasks."""
    make_files()
    rows: list[dict[str, Any]] = []

    def phase(page: Page, who: str, what: str, work: Callable[[], object]) -> None:
        page.evaluate(TAKE)
        work()
        found = page.evaluate(TAKE)
        rows.append({"name": who, "phase": what, **found})

    browser = launch(())
    try:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(url + "?load=none")
        page.evaluate(RECORD)

        def loaded() -> None:
            page.locator("#load-all").click()
            expect(page.locator("#models")).to_have_attribute("data-loaded", "8", timeout=120_000)

        def idle() -> None:
            for panel in ("sentences", "pair"):
                page.wait_for_selector(f"#{panel}[data-state=done]")

        def typed(text: str) -> None:
            field = page.get_by_label("Sentence 1", exact=True)
            page.evaluate(WILL_RUN)  # a run can be over before Playwright looks again
            field.fill(text)
            page.evaluate("() => globalThis.ran")
            idle()

        def switched(kind: str) -> None:
            page.get_by_label("Run on").select_option(kind)
            expect(page.locator("#per-model tbody td:nth-child(2)")).to_have_text([kind] * 8, timeout=120_000)
            idle()

        ours = "tensorcommons"
        phase(page, ours, "start of Python", lambda: page.wait_for_selector("body[data-state=ready]"))
        phase(page, ours, "eight models load", loaded)
        phase(page, ours, "first runs end", idle)
        long = "Strong knowledge of Python and SQL is required. " * 12
        for run in range(RUNS):
            phase(page, ours, "a text of 128 tokens", partial(typed, f"{long} {run}"))
        phase(page, ours, "a switch to WebGPU", lambda: switched("webgpu"))
        phase(page, ours, "and back", lambda: switched("webnn"))
    finally:
        browser.close()
    browser = launch(())
    try:
        tab = OrtTab(browser, url, "ORT WASM")
        tab.page.evaluate(RECORD)
        phase(tab.page, "ORT WASM", "MiniLM loads and first runs", lambda: tab.load(0))
        for _ in range(RUNS):
            phase(tab.page, "ORT WASM", "a text of 128 tokens", lambda: tab.page.evaluate("() => again()"))
    finally:
        browser.close()
    return rows


def gaps_table(rows: list[dict[str, Any]]) -> str:
    """What people read: for each phase the longest gap, how many were over 50 ms, and the browser's long tasks."""
    phases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        phases.setdefault((row["name"], row["phase"]), []).append(row)
    lines = [
        "| main thread, ms | | longest gap | median of longest | gaps over 50 | long tasks |",
        "|---|---|---|---|---|---|",
    ]
    for (name, what), found in phases.items():
        longest = [max(row["gaps"], default=0.0) for row in found]
        over = sum(gap > 50 for row in found for gap in row["gaps"])
        tasks = [task for row in found for task in row["long"]]
        told = f"{len(tasks)}, at most {max(tasks):.0f}" if tasks else "none"
        lines.append(f"| {name} | {what} | {max(longest):.0f} | {statistics.median(longest):.0f} | {over} | {told} |")
    return "\n".join(lines)
