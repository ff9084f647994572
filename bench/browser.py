"""The contest in a real browser, measurements of the page, and the costs of the manager.

    make bench                              # everything
    make bench ARGS="matmul encoder"        # some groups: GROUPS below
    make bench ARGS="encoder --profile"     # profiles of our runs, dispatch by dispatch, without a contest
    make bench ARGS="encoder --busy"        # while another process keeps one core busy

Prints tables and writes .cache/bench/browser.json. No test depends on it.
"""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import zipfile
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bench import onnx, setup
from bench.gaps import gaps_table, measure_gaps
from bench.memory import measure_memory, memory_table, with_memory
from bench.page import measure_page
from bench.pauses import measure_pauses, pauses_table
from bench.report import table, to_json
from bench.sizes import measure_sizes, sizes_table
from bench.weights import measure_weights, weights_table
from bench.workloads import read_model
from scripts import paths
from scripts.browser import find_browser
from scripts.console import SetupError, run, say
from scripts.lock import one_at_a_time
from scripts.serve import HeadersMiddleware, serve
from scripts.serve_checkpoints import with_random
from scripts.wheel import version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser
    from starlette.types import ASGIApp, Receive, Scope, Send

CONTEST = ("matmul", "encoder", "bandwidth", "heads", "generate", "images", "host", "load", "rates", "buckets")
PROFILED = ("matmul", "encoder", "bandwidth", "heads", "generate", "images")  # any of which --profile accepts
RANDOM = ("heads", "generate", "images", "load", "rates", "buckets")  # with weights that are made there, or fetched
GROUPS = ("page", "sharing", "memory", "sizes", "gaps", "pauses", "weights", *CONTEST)
#: Threads for WebAssembly and a clock of 5 µs are for isolated pages.
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
PAGE = """<!doctype html><html lang="en"><title>bench</title><link rel="icon" href="data:,">
<script type="importmap">IMPORTS</script>
<script type="module">
  import { installPackage, startPython } from "/python.js";
  import { createSession } from "/bench/session.mjs";
  const load = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
  const url = (path) => new URL(path, `${location.origin}/`).href;
  const fetchFile = (path) => fetch(url(path));
  const manifest = await (await fetchFile("manifest.json")).json();
  const started = await startPython(manifest, url, fetchFile); // as the demo page does
  await installPackage(started, manifest, fetchFile, [...manifest.chat, manifest.wheel]);
  const { pyodide, without } = started;
  if (without.length) throw new Error(`Python started without ${without}`);
  pyodide.unpackArchive(await load("/bench/python.zip"), "zip", { extractDir: "/bench" });
  await pyodide.runPythonAsync("import sys; sys.path.insert(0, '/bench')");
  globalThis.pyodide = pyodide;
  globalThis.run = async (group, options) => {
    for (const [name, url] of Object.entries(options.models)) {
      pyodide.FS.mkdirTree(`/models/${name}`);
      for (const file of ["config.json", "model.safetensors"]) {
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


def measure_group(browser: Browser, url: str, group: str, *, profile: bool) -> dict[str, Any]:
    """Measure one group in a separate page. The result contains errors."""
    context = browser.new_context()
    page = context.new_page()
    page.on("console", lambda message: say(message.text) if message.type == "log" else None)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    options: dict[str, Any] = {
        "models": {} if group in RANDOM else {"MiniLM": f"{url}models/all-MiniLM-L6-v2/"},
        "url": url,
    }
    options["profile"] = profile
    options |= json.loads(os.environ.get("BENCH_OPTIONS", "{}"))
    try:
        page.goto(url + "bench/")
        page.wait_for_function("Boolean(globalThis.run)", timeout=120_000)
        if group == "sharing":
            return {"group": group, "table": page.evaluate(SHARING, (setup.BENCH / "sharing.py").read_text("utf-8"))}
        answer: dict[str, Any] = json.loads(
            page.evaluate("([group, options]) => run(group, options)", [group, options])
        )
        return answer
    except Error as error:
        return {"group": group, "error": " ".join([*problems, error.message])[:2000]}
    finally:
        context.close()


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
    profile, is_busy = "--profile" in sys.argv[1:], "--busy" in sys.argv[1:]
    groups = [group for group in sys.argv[1:] if group not in ("--profile", "--busy")] or (
        PROFILED if profile else GROUPS
    )
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise SetupError(f"no group {', '.join(unknown)}: the groups are {', '.join(GROUPS)}.")
    if profile and (others := [group for group in groups if group not in PROFILED]):
        raise SetupError(f"--profile does not go with {', '.join(others)}: it is for {', '.join(PROFILED)}.")
    with one_at_a_time():
        setup.ensure_peers()
    found = find_browser()
    report: dict[str, Any] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "groups": []}
    target = setup.RESULTS / "browser.json"
    with (
        serve(paths.SITE, wrap=lambda app: with_random(with_memory(with_bench(app))), headers={}) as url,
        sync_playwright() as playwright,
        one_busy_core() if is_busy else nullcontext(),
    ):

        def launch(flags: Sequence[str] = ()) -> Browser:
            return playwright.chromium.launch(
                executable_path=found.path, args=[*found.flags, *flags], env={**found.environment()}
            )

        browser = launch()
        report["versions"] = {**setup.versions(), "browser": f"{browser.browser_type.name} {browser.version}"}
        report["host"] = f"{os.cpu_count()} cores{', one busy' if is_busy else ''}, {platform.machine()}"
        for group in groups:
            say(f"── {group}")
            if group == "page":
                figures = measure_page(browser, url, version())
                report["groups"].append({"group": group, "figures": to_json(figures), "table": table(figures)})
            elif group == "memory":
                rows = measure_memory(launch, url)
                report["groups"].append({"group": group, "rows": rows, "table": memory_table(rows)})
            elif group == "sizes":
                rows = measure_sizes(launch, url)
                report["groups"].append({"group": group, "rows": rows, "table": sizes_table(rows)})
            elif group == "gaps":
                rows = measure_gaps(launch, url)
                report["groups"].append({"group": group, "rows": rows, "table": gaps_table(rows)})
            elif group == "pauses":
                rows = measure_pauses(launch, url)
                report["groups"].append({"group": group, "rows": rows, "table": pauses_table(rows)})
            elif group == "weights":
                rows = measure_weights(launch, url)
                report["groups"].append({"group": group, "rows": rows, "table": weights_table(rows)})
            else:
                report["groups"].append(measure_group(browser, url, group, profile=profile))
            target.write_text(json.dumps(report, indent=1))  # after each group, so that a crash loses none
        browser.close()
    device = next((group["device"] for group in report["groups"] if "device" in group), "no device asked")
    say(f"\n{report['date']}, {report['versions']['browser']}, {device}, {report['host']}")
    for entry in report["groups"]:
        say(f"\n── {entry['group']}\n{entry.get('table') or 'failed: ' + entry['error']}")
    say(f"\n{target}")
    return 0


if __name__ == "__main__":
    run(main)
