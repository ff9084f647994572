"""Gaps in the responses of the page's main thread: during loads, first and replayed runs, and switches of devices.

    make bench ARGS=gaps

A timer of 5 ms records each gap between two of its turns. An idle page in the same browser, in a separate process,
records its gaps at the same time: common gaps are caused by the machine, whose cores the models use. The browser's
trace has the processor time of the longest task, without waiting for the processor. The page is driven from
inside, as queries by Playwright cause layout. Ours is the demo page with eight models on its default device: Python
runs in its worker. onnxruntime-web's WASM runs MiniLM in a separate page, on the main thread as usual.
"""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.memory import OrtTab, make_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, CDPSession, Page

RUNS = 5
RECORD = """() => {
  const turns = { gaps: [], last: performance.now() };
  setInterval(() => {
    const now = performance.now();
    if (now - turns.last > 10) turns.gaps.push(now - turns.last);
    turns.last = now;
  }, 5);
  globalThis.turns = turns;
  globalThis.until = (test) => new Promise((done) => {
    const timer = setInterval(() => { if (test()) { clearInterval(timer); done(); } }, 20);
  });
  globalThis.panels = () => [document.getElementById("sentences").dataset];
  globalThis.idle = () => until(() => panels().every(({ state }) => state === "done"));
  globalThis.choose = (field, value, event) => {
    for (const panel of panels()) if (event === "change" || panel === panels()[0]) panel.state = "asked";
    field.value = value;
    field.dispatchEvent(new Event(event));
  };
}"""
TAKE = """() => {
  const { gaps } = globalThis.turns;
  Object.assign(globalThis.turns, { gaps: [], last: performance.now() });
  return gaps;
}"""
LOAD = """async () => {
  document.getElementById("load-all").click();
  await until(() => document.getElementById("models").dataset.loaded === "8");
}"""
TYPE = """async (text) => {
  choose(document.querySelector("#sentence-rows textarea"), text, "input");
  await until(() => document.getElementById("sentences").dataset.state !== "asked");
  await idle();
}"""
SWITCH = """async (kind) => {
  choose(document.getElementById("run-on"), kind, "change");
  const cells = () => [...document.querySelectorAll("#per-model tbody td:nth-child(2)")];
  await until(() => cells().length === 8 && cells().every((cell) => cell.textContent.toLowerCase() === kind));
  await idle();
}"""
TRACED = "disabled-by-default-devtools.timeline"  # has every task of every thread with its run time


class Trace:
    """The browser's trace of one phase."""

    def __init__(self, session: CDPSession, page: Page) -> None:
        self._session, self._page = session, page
        self._events: list[dict[str, Any]] = []
        self._ended = False
        session.on("Tracing.dataCollected", self._take)
        session.on("Tracing.tracingComplete", self._end)
        config = {"includedCategories": [TRACED], "excludedCategories": ["*"]}
        session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": config})

    def _take(self, event: dict[str, Any]) -> None:
        self._events += event["value"]

    def _end(self, event: dict[str, Any]) -> None:
        self._ended = True

    def busiest(self) -> float:
        """Return the processor time in ms of the longest task of a main thread; one or two for the idle page."""
        self._session.send("Tracing.end")
        while not self._ended:
            self._page.wait_for_timeout(20)
        mains = {
            (event["pid"], event["tid"])
            for event in self._events
            if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
        }
        tasks = [
            event.get("tdur", 0) / 1000
            for event in self._events
            if event["name"] == "RunTask" and (event["pid"], event["tid"]) in mains
        ]
        return float(max(tasks, default=0.0))


def measure_gaps(launch: Callable[..., Browser], url: str) -> list[dict[str, Any]]:
    """Measure a row per phase: contestant, phase, gaps of the page and the idle page in ms, and the longest task."""
    make_files()
    rows: list[dict[str, Any]] = []

    def beside(browser: Browser) -> Page:
        """Open an idle page of another site, which has a separate process."""
        page = browser.new_context().new_page()
        page.goto(url.replace("127.0.0.1", "localhost") + "favicon.svg")
        page.evaluate(RECORD)
        return page

    def phase(page: Page, idle: Page, who: str, what: str, work: Callable[[], object]) -> None:
        browser = page.context.browser
        assert browser is not None
        trace = Trace(browser.new_browser_cdp_session(), page)
        page.evaluate(TAKE)
        idle.evaluate(TAKE)
        work()
        gaps = {"gaps": page.evaluate(TAKE), "idle": idle.evaluate(TAKE)}
        rows.append({"name": who, "phase": what, **gaps, "busiest": trace.busiest()})

    browser = launch(())
    try:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        idle = beside(browser)
        page.goto(url + "?load=none#sentences", wait_until="commit")
        page.evaluate(RECORD)
        ours = partial(phase, page, idle, "tensorcommons")
        ours("start of Python", lambda: page.evaluate('() => until(() => document.body.dataset.state === "ready")'))
        ours("eight models load", lambda: page.evaluate(LOAD))
        ours("first runs end", lambda: page.evaluate("() => idle()"))
        long = "Strong knowledge of Python and SQL is required. " * 12
        for run in range(RUNS):
            ours("a text of 128 tokens", partial(page.evaluate, TYPE, f"{long} {run}"))
        ours("a switch to WebGPU", lambda: page.evaluate(SWITCH, "webgpu"))
        ours("and back", lambda: page.evaluate(SWITCH, "webnn"))
    finally:
        browser.close()
    browser = launch(())
    try:
        tab = OrtTab(browser, url, "ORT WASM")
        tab.page.evaluate(RECORD)
        peer = partial(phase, tab.page, beside(browser), "ORT WASM")
        peer("MiniLM loads and first runs", lambda: tab.load(0))
        for _ in range(RUNS):
            peer("a text of 128 tokens", lambda: tab.page.evaluate("() => again()"))
    finally:
        browser.close()
    return rows


def gaps_table(rows: list[dict[str, Any]]) -> str:
    """Format the table: the longest gap of each phase, the number over 50 ms, and those of the idle page."""
    phases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        phases.setdefault((row["name"], row["phase"]), []).append(row)
    lines = [
        "| main thread, ms | | longest gap | median of longest | gaps over 50 | idle page: longest | over 50 "
        "| longest task, processor time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, what), found in phases.items():
        cells = [name, what]
        for which in ("gaps", "idle"):
            longest = [max(row[which], default=0.0) for row in found]
            cells.append(f"{max(longest):.0f}")
            if which == "gaps":
                cells.append(f"{statistics.median(longest):.0f}")
            cells.append(str(sum(gap > 50 for row in found for gap in row[which])))
        lines.append(f"| {' | '.join(cells)} | {max(row['busiest'] for row in found):.0f} |")
    return "\n".join(lines)
