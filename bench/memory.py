"""Memory of the browser's processes: with the ready page, one, two and three models on one backbone, and none again.

    make bench ARGS=memory

Ours is the demo page on each of its devices, with a third model on MiniLM beside its own two; each
model is loaded by its button and has run. onnxruntime-web has a separate page, and the exported files of
the same three models, each with the backbone inside. Figures are proportional set sizes (PSS) from /proc (Linux only):
bytes that several processes share count in parts. Pages of the browser's program are excluded, because their part would
change with every other browser on the machine. No garbage collection is forced: retained memory counts. The
browser returns freed memory up to twenty seconds later, so a figure is taken once memory is stable.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect
from starlette.responses import HTMLResponse, Response

from bench import onnx, setup, workloads
from scripts import paths
from scripts.console import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page, Worker
    from starlette.types import ASGIApp, Receive, Scope, Send

FLAGS = ("--enable-precise-memory-info",)
BACKBONE, OWN, THIRD = "all-MiniLM-L6-v2", "skill-head", "third-head"
MODELS = (BACKBONE, OWN, THIRD)
STAGES = ("ready", "one", "two", "three", "none again")
FOLDER = setup.RESULTS / "memory"
SETTLED, REST, MOST = 1.0, 15, 60  # a change below so many MB in so many seconds counts as stable; maximum wait
MB = 1e6
ORT_PAGE = """<!doctype html><html lang="en"><title>memory</title><link rel="icon" href="data:,">
<script type="importmap">IMPORTS</script>
<script type="module">
  const { contestants } = await import("/bench/peers/ort.mjs");
  const wanted = new URLSearchParams(location.search).get("peer");
  const peer = contestants.find((each) => each.name === wanted);
  await peer.open({ base: location.origin + "/bench/npm/" });
  const ids = new Int32Array(128).map((_, i) => 1000 + i);
  const ones = new Int32Array(128).fill(1), shape = [1, 128];
  const feeds = {
    input_ids: { data: ids, shape },
    attention_mask: { data: ones, shape },
    token_type_ids: { data: new Int32Array(128), shape },
  };
  const sessions = [];
  globalThis.load = async (number) => {
    const model = new Uint8Array(await (await fetch(`/memory/${number}.onnx`)).arrayBuffer());
    const session = await peer.prepare("", {}, { model, feeds });
    await session.run();
    sessions.push(session);
  };
  globalThis.again = () => sessions.at(-1).run();
  globalThis.release = async () => { for (const session of sessions.splice(0)) await session.close(); };
</script>"""


def with_memory(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with one more model in its manifest, and a page of onnxruntime-web below /memory/."""
    imports = {name: f"/bench/npm/{place}" for name, place in setup.IMPORTS.items()}
    page = ORT_PAGE.replace("IMPORTS", json.dumps({"imports": imports}))

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        answer: Response | None = None
        if path == "/manifest.json":
            answer = Response(json.dumps(_manifest()), media_type="application/json")
        elif path.startswith(f"/models/{THIRD}/"):
            file = FOLDER / "head-0" / path.rpartition("/")[2]
            answer = Response(file.read_bytes()) if file.is_file() else Response(status_code=404)
        elif path == "/memory/":
            answer = HTMLResponse(page)
        elif path.startswith("/memory/"):
            answer = Response((FOLDER / path.rpartition("/")[2]).read_bytes())
        await (answer or app)(scope, receive, send)

    return served


def _manifest() -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((paths.SITE / "manifest.json").read_text("utf-8"))
    manifest["models"].append(
        {"id": THIRD, "title": "Third", "task": "text-classification", "base": BACKBONE, "bytes": 0}
    )
    return manifest


def make_files() -> None:
    """Make the third model as a folder, and all three as ONNX files."""
    workloads.write_heads(FOLDER, BACKBONE, 384)
    config, weights = workloads.read_model(paths.MODELS / BACKBONE)
    (FOLDER / "0.onnx").write_bytes(onnx.bert(config, weights, 1, 128))
    for number in (1, 2):
        head = workloads.read_model(FOLDER / f"head-{number}")[1]
        (FOLDER / f"{number}.onnx").write_bytes(onnx.classifier(config, weights, head, 1, 128))


def pss(pid: int) -> float:
    """Return the proportional set size of a process in MB, without mapped files; 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return 0.0
    return sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", text, re.M))) * 1024 / MB


class Tab:
    """One page in a separate browser, and the memory of its processes."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.page: Page = browser.new_context().new_page()
        self.url = url
        self._asked = browser.new_browser_cdp_session()

    def processes(self) -> dict[str, float]:
        """Return MB by kind of process, once they are stable."""
        began = moved = time.monotonic()
        level = -1.0
        while True:
            now = self._look()
            at = time.monotonic()
            if abs(sum(now.values()) - level) >= SETTLED:
                level, moved = sum(now.values()), at
            if at - moved > REST or at - began > MOST:
                return now
            time.sleep(1)

    def _look(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for process in self._asked.send("SystemInfo.getProcessInfo")["processInfo"]:
            kind = str(process["type"])
            found[kind] = found.get(kind, 0.0) + pss(int(process["id"]))
        return found


CONSOLE = """
from pyodide.code import eval_code_async
names = {}
async def run(source): return await eval_code_async(source, names)
"""
RUN = """async ([text, source]) => {
  const module = await tc.importPython({ "bench_console.py": text });
  return module.call("run", source);
}"""


class OurTab(Tab):
    """The demo page with its models on one kind of device, without the service worker, which keeps files meanwhile."""

    def __init__(self, browser: Browser, url: str, kind: str, prelude: str = "") -> None:
        super().__init__(browser, url)
        self.page.add_init_script("delete globalThis.Navigator?.prototype.serviceWorker")
        if prelude:
            self.page.add_init_script(prelude)
        self.page.goto(url + "?load=none#sentences")
        self.page.wait_for_selector("body[data-state=ready]", timeout=120_000)
        self.page.locator("#run-on").select_option(kind, force=True)

    @property
    def worker(self) -> Worker:
        return self.page.workers[0]

    def python(self, source: str) -> Any:
        """Run Python in the page's runtime; gives the last expression."""
        return self.page.evaluate(RUN, [CONSOLE, source])

    def heap(self) -> float:
        """Return the MB of Pyodide's WebAssembly memory, which only grows."""
        return float(self.python("import pyodide_js; pyodide_js._module.HEAP8.length")) / MB

    def load(self, number: int) -> None:
        card = self.page.locator(f'[data-model-id="{MODELS[number]}"]')
        card.locator('[data-role="toggle"]').dispatch_event("click")
        self.page.wait_for_selector(f'[data-model-id="{MODELS[number]}"][data-state=loaded]', timeout=120_000)
        self.page.wait_for_selector("#sentences[data-state=done]", timeout=120_000)

    def release(self) -> None:
        self.page.locator("#unload-all").dispatch_event("click")
        expect(self.page.locator("#device-bytes")).to_have_text("0 MB")


class OrtTab(Tab):
    """A page of onnxruntime-web with one session per model."""

    def __init__(self, browser: Browser, url: str, peer: str) -> None:
        super().__init__(browser, url)
        self.page.goto(f"{url}memory/?peer={peer}")
        self.page.wait_for_function("Boolean(globalThis.release)", timeout=120_000)

    def load(self, number: int) -> None:
        self.page.evaluate("(number) => load(number)", number)

    def release(self) -> None:
        self.page.evaluate("() => release()")


def total_of(entry: dict[str, Any]) -> float:
    """Return the MB of the computing processes: those of the page and the GPU."""
    return float(sum(entry["processes"].get(kind, 0.0) for kind in ("renderer", "GPU")))


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Format the table, with the memory of three models compared with one, and after all are unloaded."""
    lines = [
        "| MB of the renderer and the GPU process | " + " | ".join(STAGES) + " | three beside one | left |",
        "|---" * (len(STAGES) + 3) + "|",
    ]
    for row in rows:
        totals = [total_of(entry) for entry in row["stages"]]
        cells = [f"{total:.0f}" for total in totals]
        lines.append(
            f"| {row['name']} | {' | '.join(cells)} | {totals[3] / totals[1]:.2f} x | {totals[4] - totals[0]:+.0f} |"
        )
        if "heap" in row["stages"][0]:
            heaps = " | ".join(f"{entry['heap']:.0f}" for entry in row["stages"])
            lines.append(f"| of it Python's own memory | {heaps} | | |")
    return "\n".join(lines)


def measure_memory(launch: Callable[..., Browser], url: str) -> list[dict[str, Any]]:
    """Measure a row per contestant: its processes at each stage."""
    make_files()
    rows = []
    for name, open_tab in (
        ("tensorcommons on WebNN", lambda browser: OurTab(browser, url, "webnn")),
        ("tensorcommons on WebGPU", lambda browser: OurTab(browser, url, "webgpu")),
        ("ORT WebNN", lambda browser: OrtTab(browser, url, "ORT WebNN")),
    ):
        browser = launch(FLAGS)
        try:
            tab = open_tab(browser)
            stages = []
            for stage in STAGES:
                if stage == STAGES[-1]:
                    tab.release()
                elif stage != STAGES[0]:
                    tab.load(STAGES.index(stage) - 1)
                entry: dict[str, Any] = {"stage": stage, "processes": tab.processes()}
                if isinstance(tab, OurTab):
                    entry["heap"] = tab.heap()
                stages.append(entry)
                say(f"{name}, {stage}: {total_of(entry):.0f} MB")
            rows.append({"name": name, "stages": stages})
        finally:
            browser.close()
    return rows
