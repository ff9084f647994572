"""How long a person waits, in the real browser: the page from navigation on, MiniLM's forward, and the manager.

    make bench

Prints one table and writes .cache/bench/browser.json. Times are wall clock in milliseconds, median (smallest to
largest). Nothing here decides a test.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from scripts import paths
from scripts.browser import find_browser
from scripts.serve import serve

ROUNDS = 3  # page loads of each kind
RUNS = 7  # forwards of each shape, after one that compiles
BARE_PAGE = """<!doctype html><html lang="en"><title>bench</title><link rel="icon" href="data:,">
<script type="module">
  import { loadPyodide } from "/vendor/pyodide/pyodide.mjs";
  const pyodide = await loadPyodide({ indexURL: "/vendor/pyodide/", packages: ["numpy", "micropip"] });
  const { wheel } = await (await fetch("/manifest.json")).json();
  await pyodide.pyimport("micropip").install(new URL(wheel, location.origin + "/").href);
  globalThis.pyodide = pyodide;
</script>"""
FORWARDS = """
import json, time
import numpy as np
import tensorcommons as tc

devices = await tc.open_devices(("webgpu",))
manager = tc.TensorSharingManager(devices=devices)
started = time.perf_counter()
model = await tc.from_pretrained(URL, manager=manager)
result = {"device": devices.webgpu.name, "software": devices.webgpu.is_software, "load": time.perf_counter() - started}
for shape in ((1, 16), (1, 128)):
    ids = np.random.default_rng(0).integers(1000, 20000, shape)
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        outputs = await model(input_ids=ids)
        await outputs["last_hidden_state"].read()
        times.append(time.perf_counter() - started)
    result[f"{shape[0]}x{shape[1]}"] = times
result["last_run"] = manager.get_stats()["last_run"]
result["memory"] = devices.webgpu.memory()
json.dumps(result)
"""


def with_bare_page(app: ASGIApp) -> ASGIApp:
    """The site, and one page that only boots Pyodide and the wheel."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/bench/":
            await HTMLResponse(BARE_PAGE)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return served


def open_and_embed(page: Page, url: str) -> dict[str, float]:
    """Navigate, load MiniLM as soon as the page offers it, and wait for its first embedding: ms from navigation on."""
    page.goto(url + "?load=all-MiniLM-L6-v2")
    page.wait_for_function("performance.getEntriesByName('first-embedding').length", timeout=120_000)
    names = ["usable", "first-embedding"]
    durations = page.evaluate("names => names.map((n) => performance.getEntriesByName(n)[0].duration)", names)
    return dict(zip(names, durations, strict=True))


def measure_page(browser: Browser, url: str) -> dict[str, list[float]]:
    """Cold (an empty profile) and warm (the same tab reloaded) page loads."""
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        context = browser.new_context(bypass_csp=True)  # for the waiting below
        page = context.new_page()
        for kind in ("cold", "warm"):
            for name, duration in open_and_embed(page, url).items():
                times.setdefault(f"{kind}, {name}", []).append(duration)
        context.close()
    return times


def measure_forwards(browser: Browser, url: str) -> dict[str, Any]:
    """MiniLM on WebGPU, called from Python, the last hidden state read back."""
    page = browser.new_page()
    page.goto(url + "bench/")
    page.wait_for_function("globalThis.pyodide", timeout=120_000)
    source = f"URL = {url + 'models/all-MiniLM-L6-v2'!r}\nRUNS = {RUNS}\n{FORWARDS}"
    result: dict[str, Any] = json.loads(page.evaluate("(source) => pyodide.runPythonAsync(source)", source))
    page.close()
    return result


def measure_sharing(browser: Browser, url: str) -> str:
    """The table of bench/sharing.py, printed by Pyodide."""
    page = browser.new_page()
    page.goto(url + "bench/")
    page.wait_for_function("globalThis.pyodide", timeout=120_000)
    source = (paths.ROOT / "bench" / "sharing.py").read_text("utf-8")
    printed = (
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n    main()\nout.getvalue()"
    )
    page.evaluate("() => pyodide.globals.set('__name__', 'bench.sharing')")  # not __main__: it is called below
    table: str = page.evaluate("(source) => pyodide.runPythonAsync(source)", f"{source}\n{printed}")
    page.close()
    return table


def row(name: str, milliseconds: Sequence[float]) -> str:
    """One line of the table."""
    spread = f"{min(milliseconds):,.0f} to {max(milliseconds):,.0f}"
    return f"{name:<44}{statistics.median(milliseconds):>9,.0f}   {spread:>20}   n={len(milliseconds)}"


def main() -> None:
    """Measure, print, keep."""
    found = find_browser()
    with serve(paths.SITE, wrap=with_bare_page, headers={}) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.path, args=list(found.flags), env={**found.environment()}
        )
        version = browser.version
        pages = measure_page(browser, url)
        forwards = measure_forwards(browser, url)
        sharing = measure_sharing(browser, url)
        browser.close()
    print(f"Chromium {version}, {forwards['device']}, {os.cpu_count()} cores, {platform.machine()}")
    print(f"{'ms':<44}{'median':>9}   {'spread':>20}")
    for name, times in pages.items():
        print(row(f"page {name}", times))
    print(row("MiniLM, load", [forwards["load"] * 1000]))
    for shape in ("1x16", "1x128"):
        first, *rest = (seconds * 1000 for seconds in forwards[shape])
        print(row(f"MiniLM {shape}, first (traces and compiles)", [first]))
        print(row(f"MiniLM {shape}, replayed and read", rest))
    last = forwards["last_run"]
    print(f"a forward: {last['nodes']} nodes, {last['dispatches']} dispatches, {last['js_calls']} call into JavaScript")
    sizes = [last[name] for name in ("arena_bytes", "arena_lower_bound", "intermediate_bytes")]
    print("arena {:,} bytes; lower bound {:,}; sum of intermediates {:,}".format(*sizes))
    print(sharing)
    folder = paths.ROOT / ".cache" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "browser.json").write_text(
        json.dumps({"chromium": version, "page": pages, "forward": forwards}, indent=1)
    )


if __name__ == "__main__":
    main()
