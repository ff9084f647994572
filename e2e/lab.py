"""The lab: one page of a real browser with Pyodide, the built wheel and WebGPU, in which tests run Python.

The page is minimal and comes from the test's server, without a Content-Security-Policy: the package's JavaScript is not
registered, so it is loaded from the wheel (the demo's worker registers it). tests/cases and
tests/goldens are in Pyodide's file system, so the cases that CPython runs on NumPy run here on WebGPU.
"""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Error
from starlette.responses import HTMLResponse, Response

from e2e.page.driver import SLOW
from scripts.case_files import case_files
from scripts.paths import ROOT
from scripts.serve import serve
from tests.cases.harness import limit_of
from tests.cases.time_limit import SECONDS
from tests.models.server import with_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from starlette.types import ASGIApp, Receive, Scope, Send

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>lab</title><link rel="icon" href="data:,">
<script type="module">
  import { startPython } from "/python.js";
  globalThis.started = (async () => {
    const url = (path) => new URL(path, `${location.origin}/`).href;
    const fetchFile = (path) => fetch(url(path));
    const manifest = await (await fetchFile("manifest.json")).json();
    const started = await startPython(manifest, url, fetchFile);
    const { pyodide, without } = started;
    const expected = "Suspending" in WebAssembly ? 0 : 1;
    if (without.length !== expected) throw new Error(`Python started without ${without}`);
    pyodide.unpackArchive(await (await fetch("/lab/files.zip")).arrayBuffer(), "zip", { extractDir: "/lab" });
    await pyodide.runPythonAsync("import sys; sys.path.insert(0, '/lab')");
    globalThis.lab = pyodide.pyimport("e2e.inside");
    await lab.open(location.origin, new URLSearchParams(location.search).get("devices"));
  })();
</script>"""

CALL = "([name, ...rest]) => lab[name](...rest)"
REPORT_SECONDS = 60  # for the page to report a time limit; after that Python is considered hung


class Lab:
    """Runs Python in a page. Its errors fail the test, with the traceback from the page.

    After a failure the state of the page is unknown: the browser is closed, and the next call opens another.
    """

    def __init__(self, launch: Callable[[], Browser], url: str) -> None:
        self._launch, self._url = launch, url
        self._browser: Browser | None = None
        self._process = 0  # the browser's
        self._page: Page | None = None
        self._uncaught: list[str] = []

    def case(self, name: str, kind: str = "webgpu") -> list[str]:
        """Run the case of tests/cases under the harness; gives its printed lines."""
        return self._call("case", name, kind, limit=limit_of(name, kind))

    def run(self, source: str, kind: str = "webgpu", limit: float = SECONDS, **values: Any) -> Any:
        """Return the last expression of ``source``, which may await, and use ``tc``, ``np``, ``place`` and ``values``.

        The values and the result are passed as JSON. ``source`` runs under the harness for at most ``limit`` seconds.
        """
        return self._call("snippet", source, json.dumps(values), kind, limit, limit=limit)

    def close(self) -> None:
        """Close the browser; the next call opens a fresh one."""
        browser, self._browser, self._page = self._browser, None, None
        if browser is not None:
            browser.close()

    def _call(self, function: str, *arguments: Any, limit: float) -> Any:
        page = self._page or self._open()
        # Playwright's own time limits do not end a call into a hanging page.
        guard = threading.Timer(limit + REPORT_SECONDS, os.kill, (self._process, signal.SIGKILL))
        guard.start()
        try:
            reply = json.loads(page.evaluate(CALL, [function, *arguments]))
        except Error as error:
            reply = {"error": f"no answer, Python hangs or is dead: {str(error).splitlines()[0]}"}
        finally:
            guard.cancel()
        if "error" not in reply and self._uncaught:
            reply = {"error": f"uncaught in the page: {self._uncaught}"}
        if "error" in reply:
            self.close()
            pytest.fail(reply["error"], pytrace=False)
        return reply["value"]

    def _open(self) -> Page:
        """Launch a browser, open the page and start Python in it."""
        self._browser, self._uncaught = self._launch(), []
        processes = self._browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        self._process = next(each["id"] for each in processes if each["type"] == "browser")
        page = self._browser.new_page()
        page.set_default_timeout(SLOW)
        page.on("pageerror", lambda error: self._uncaught.append(str(error)))
        page.goto(self._url)
        try:
            page.wait_for_function("globalThis.lab?.ready")
        except Error:
            self.close()
            pytest.fail(f"the lab did not start: {self._uncaught}")
        self._page = page
        return page


def files() -> bytes:
    """Pack the files of the checkout that Pyodide needs as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in [*case_files(), ROOT / "e2e" / "inside.py"]:
            archive.write(path, path.relative_to(ROOT))
    return packed.getvalue()


def with_lab(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with the page of the lab and the models in front."""

    async def lab_app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/lab/":
            await HTMLResponse(PAGE)(scope, receive, send)
        elif scope["path"] == "/lab/files.zip":
            await Response(files(), media_type="application/zip")(scope, receive, send)
        else:
            await app(scope, receive, send)

    return with_models(lab_app)


@pytest.fixture(scope="session")
def lab(launch: Callable[[], Browser], site_folder: Path) -> Iterator[Lab]:
    """The page, started once per worker: programs and pipelines stay between tests, as in a user's tab."""
    with serve(site_folder, headers={}, wrap=with_lab) as url:
        opened = Lab(launch, url + "lab/?devices=webgpu,webnn,cpu")
        yield opened
        opened.close()
