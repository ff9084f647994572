"""The contest in a real browser, measurements of the page, and the costs of the manager.

    make bench                              # everything
    make bench ARGS="matmul encoder"        # some groups: GROUPS below
    make bench ARGS="encoder --profile"     # profiles of our runs, dispatch by dispatch, without a contest
    make bench ARGS="encoder --busy"        # while another process keeps one core busy
    make bench ARGS="load --browser firefox" # in an engine of e2e/engines: ENGINE_GROUPS below, with its devices alone

Prints tables and writes .cache/bench/browser.json. No test depends on it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from bench import onnx, setup
from bench.gaps import gaps_table, measure_gaps
from bench.gguf import FOLDER, gguf_table, measure_gguf
from bench.memory import measure_memory, memory_table, with_memory
from bench.page import measure_page
from bench.pauses import measure_pauses, pauses_table
from bench.report import table, to_json
from bench.sizes import measure_sizes, sizes_table
from bench.tabs import measure_tabs, tabs_table
from bench.weights import measure_weights, weights_table
from bench.workloads import read_model
from e2e.engines.engine import ENGINES
from e2e.engines.protocols import EngineError
from e2e.engines.tab import Tab
from scripts import paths
from scripts.browser import find_browser
from scripts.console import SetupError, run, say
from scripts.lock import one_at_a_time
from scripts.serve import HeadersMiddleware, serve
from scripts.serve_checkpoints import with_random
from scripts.wheel import version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Browser, BrowserContext
    from starlette.types import ASGIApp, Receive, Scope, Send

    from e2e.engines.protocols import Session

CONTEST = (
    "matmul",
    "encoder",
    "sentences",
    "bandwidth",
    "quantized",
    "heads",
    "adapters",
    "generate",
    "images",
    "host",
    "load",
    "rates",
    "buckets",
)
# Any of which --profile accepts.
PROFILED = (
    "matmul",
    "encoder",
    "bandwidth",
    "quantized",
    "heads",
    "adapters",
    "generate",
    "images",
)
ENGINE_GROUPS = ("load", "sentences", "encoder", "heads", "images", "generate")  # that need no WebGPU
# Groups with weights that are made there, or fetched.
RANDOM = (
    "quantized",
    "heads",
    "adapters",
    "generate",
    "images",
    "load",
    "rates",
    "buckets",
)
ON_DISK = ("load",)  # with a profile of its own on disk: a private context stores files in the browser's memory
#: Groups that launch browsers themselves, and format their rows.
LAUNCHING: dict[str, tuple[Callable[..., list[dict[str, Any]]], Callable[[list[dict[str, Any]]], str]]] = {
    "memory": (measure_memory, memory_table),
    "tabs": (measure_tabs, tabs_table),
    "sizes": (measure_sizes, sizes_table),
    "gaps": (measure_gaps, gaps_table),
    "gguf": (measure_gguf, gguf_table),
    "pauses": (measure_pauses, pauses_table),
    "weights": (measure_weights, weights_table),
}
GROUPS = ("page", "sharing", *LAUNCHING, *CONTEST)
#: Threads for WebAssembly and a clock of 5 µs are for isolated pages.
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
PAGE = """<!doctype html><html lang="en"><title>bench</title><link rel="icon" href="data:,">
<script type="importmap">IMPORTS</script>
<script type="module">
  import { startPython } from "/python.js";
  import { createSession } from "/bench/session.mjs";
  const load = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
  const url = (path) => new URL(path, `${location.origin}/`).href;
  const fetchFile = (path) => fetch(url(path));
  const manifest = await (await fetchFile("manifest.json")).json();
  const started = await startPython(manifest, url, fetchFile); // as the demo page does
  const { pyodide, without } = started;
  if (without.length) throw new Error(`Python started without ${without}`);
  pyodide.unpackArchive(await load("/bench/python.zip"), "zip", { extractDir: "/bench" });
  await pyodide.runPythonAsync("import sys; sys.path.insert(0, '/bench')");
  globalThis.pyodide = pyodide;
  globalThis.run = async (group, options) => {
    for (const [name, url] of Object.entries(options.models)) {
      pyodide.FS.mkdirTree(`/models/${name}`);
      for (const file of ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]) {
        pyodide.FS.writeFile(`/models/${name}/${file}`, await load(url + file));
      }
      options.models[name] = `/models/${name}`;
    }
    const peer = (name) => import(`/bench/peers/${name}.mjs`);
    const session = await createSession({ peer, base: location.origin + "/bench/npm/" });
    return pyodide.pyimport("bench.inside").run(session, group, JSON.stringify(options));
  };
</script>"""


def with_bench(app: ASGIApp) -> ASGIApp:
    """Return the app of the site, with a page of Pyodide, the wheel, this folder and the peers below /bench/."""
    page = PAGE.replace("IMPORTS", json.dumps(setup.import_map("/bench/npm/")))

    async def show(request: Request) -> Response:
        return HTMLResponse(page)

    async def empty(request: Request) -> Response:
        return HTMLResponse("<!doctype html><html lang=en><title>bench</title>")

    async def python(request: Request) -> Response:
        return Response(python_files(), media_type="application/zip")

    minilm = paths.MODELS / "all-MiniLM-L6-v2"

    @cache  # made once, before the load of a peer
    def minilm_onnx() -> bytes:
        return onnx.bert(*read_model(minilm), 1, 16)

    async def show_onnx(request: Request) -> Response:
        return Response(minilm_onnx(), media_type="application/octet-stream")

    bench = HeadersMiddleware(
        Starlette(
            routes=[
                Route("/bench/", show),
                Route("/bench/empty", empty),
                Route("/bench/python.zip", python),
                Route("/bench/MiniLM/onnx/model.onnx", show_onnx),
                Mount("/bench/gguf", StaticFiles(directory=FOLDER)),
                Mount("/bench/MiniLM", StaticFiles(directory=minilm)),
                Mount("/bench/npm", StaticFiles(directory=setup.NODE_MODULES)),
                Mount("/bench", StaticFiles(directory=setup.BENCH)),
            ]
        ),
        ISOLATED,
    )

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        inside = scope["type"] == "http" and scope["path"].startswith("/bench/")
        await (bench if inside else app)(scope, receive, send)

    return served


def python_files() -> bytes:
    """Pack the Python files of this checkout that Pyodide needs as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in setup.python_files():
            archive.write(path, path.relative_to(paths.ROOT))
    return packed.getvalue()


@contextmanager
def one_busy_core() -> Iterator[None]:
    """Keep one core busy by a process that only computes."""
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def measure_group(context: BrowserContext, url: str, group: str, *, profile: bool) -> dict[str, Any]:
    """Measure one group in a page of its own, and close ``context``. The result contains errors."""
    page = context.new_page()
    page.on("console", lambda message: say(message.text) if message.type == "log" else None)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(url + "bench/")
        page.wait_for_function("Boolean(globalThis.run)", timeout=120_000)
        if group == "sharing":
            return {"group": group, "table": page.evaluate(SHARING, (setup.BENCH / "sharing.py").read_text("utf-8"))}
        answer: dict[str, Any] = json.loads(
            page.evaluate("([group, options]) => run(group, options)", [group, options_of(group, url, profile=profile)])
        )
        return answer
    except Error as error:
        return {"group": group, "error": " ".join([*problems, error.message])[:2000]}
    finally:
        context.close()


def measure_in_engine(session: Session, url: str, group: str) -> dict[str, Any]:
    """Measure one group in a new tab of an engine. The result contains errors."""
    tab = Tab(session).open(f"{url}bench/")
    try:
        tab.wait("() => Boolean(globalThis.run)")
        tab.evaluate(
            "(group, options) => { globalThis.measured = run(group, options); }", group, options_of(group, url)
        )
        answer = None
        while answer is None:  # one command may take less time than a group
            answer = tab.evaluate("() => Promise.race([measured, new Promise((done) => setTimeout(done, 60_000))])")
        measured: dict[str, Any] = json.loads(answer)
        return measured
    except EngineError as error:
        return {"group": group, "error": str(error)[:2000]}
    finally:
        tab.close()


def options_of(group: str, url: str, *, profile: bool = False) -> dict[str, Any]:
    """Return the options of a group for bench/inside.py."""
    models = {} if group in RANDOM else {"MiniLM": f"{url}models/all-MiniLM-L6-v2/"}
    return {"models": models, "url": url, "profile": profile} | json.loads(os.environ.get("BENCH_OPTIONS", "{}"))


#: Runs bench/sharing.py in Pyodide; gives its output.
SHARING = """async (source) => {
  pyodide.globals.set("__name__", "bench.sharing"); // not __main__: it is called below
  await pyodide.runPythonAsync(source);
  return pyodide.runPythonAsync(`
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as out:
    main()
out.getvalue()`);
}"""


def main() -> int:
    """Measure, print the tables and write the file."""
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--profile", action="store_true", help="profile our runs instead of a contest")
    parser.add_argument("--busy", action="store_true", help="keep one core busy meanwhile")
    parser.add_argument("--browser", choices=list(ENGINES), help="an engine of e2e/engines instead of Chromium")
    given = parser.parse_args()
    known = PROFILED if given.profile else ENGINE_GROUPS if given.browser else GROUPS
    groups = given.groups or known
    if unknown := [group for group in groups if group not in known]:
        raise SetupError(f"no group {', '.join(unknown)} here: the groups are {', '.join(known)}.")
    if given.browser and given.profile:
        raise SetupError("--profile does not go with --browser: it is for Chromium.")
    if given.browser and (packages := ENGINES[given.browser].missing):
        raise SetupError(f"{given.browser} needs Debian's {packages}: install them.")
    with one_at_a_time():
        setup.ensure_peers()
    report: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "groups": []}
    report["versions"] = setup.versions()
    report["host"] = f"{os.cpu_count()} cores{', one busy' if given.busy else ''}, {platform.machine()}"
    target = setup.RESULTS / f"{given.browser or 'browser'}.json"

    def wrapped(app: ASGIApp) -> ASGIApp:
        app = with_random(with_bench(app))
        return with_memory(app) if "memory" in groups else app  # its manifest is not the site's: no service worker

    with (
        serve(paths.SITE, wrap=wrapped, headers={}) as url,
        one_busy_core() if given.busy else nullcontext(),
    ):
        measured = in_engine(given.browser, url, groups, report) if given.browser else in_chromium(
            url, groups, report, profile=given.profile
        )  # fmt: skip
        for entry in measured:
            report["groups"].append(entry)
            target.write_text(json.dumps(report, indent=1))  # after each group, so that a crash loses none
    device = next((group["device"] for group in report["groups"] if "device" in group), "no device asked")
    say(f"\n{report['date']}, {report['versions']['browser']}, {device}, {report['host']}")
    for entry in report["groups"]:
        say(f"\n── {entry['group']}\n{entry.get('table') or 'failed: ' + entry['error']}")
    say(f"\n{target}")
    return 0


def in_engine(name: str, url: str, groups: Sequence[str], report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure the groups in an engine of e2e/engines, one after another."""
    with tempfile.TemporaryDirectory() as folder, ENGINES[name].start(Path(folder)) as session:
        report["versions"]["browser"] = session.version
        for group in groups:
            say(f"── {group}")
            yield measure_in_engine(session, url, group)


def in_chromium(url: str, groups: Sequence[str], report: dict[str, Any], *, profile: bool) -> Iterator[dict[str, Any]]:
    """Measure the groups in Chromium, one after another."""
    found = find_browser()
    with sync_playwright() as playwright:

        def launch(flags: Sequence[str] = ()) -> Browser:
            return playwright.chromium.launch(
                executable_path=found.path, args=[*found.flags, *flags], env={**found.environment()}
            )

        browser = launch()
        report["versions"]["browser"] = f"{browser.browser_type.name} {browser.version}"
        for group in groups:
            say(f"── {group}")
            if group == "page":
                figures = measure_page(browser, url, version())
                yield {"group": group, "figures": to_json(figures), "table": table(figures)}
            elif group in LAUNCHING:
                measure, show = LAUNCHING[group]
                rows = measure(launch, url)
                yield {"group": group, "rows": rows, "table": show(rows)}
            elif group in ON_DISK:
                with tempfile.TemporaryDirectory() as folder:
                    context = playwright.chromium.launch_persistent_context(
                        folder, executable_path=found.path, args=[*found.flags], env={**found.environment()}
                    )
                    yield measure_group(context, url, group, profile=profile)
            else:
                yield measure_group(browser.new_context(), url, group, profile=profile)
        browser.close()


if __name__ == "__main__":
    run(main)
