"""The lab: one page of a real browser with Pyodide, the built wheel and WebGPU, in which tests run any Python.

The page is bare and comes from the test's own server, without a Content-Security-Policy: nobody registers the
package's JavaScript, so it is loaded from the wheel (the demo's worker takes the other way). tests/cases and
tests/goldens lie in Pyodide's file system, so the very functions that CPython runs on NumPy run here on WebGPU.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import HTMLResponse, Response

from scripts.paths import ROOT
from scripts.serve import serve
from tests.models.server import with_models

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from starlette.types import ASGIApp, Receive, Scope, Send

PAGE = """<!doctype html><html lang="en"><title>lab</title><link rel="icon" href="data:,">
<script type="module">
  import { loadPyodide } from "/vendor/pyodide/pyodide.mjs";
  const pyodide = await loadPyodide({ indexURL: "/vendor/pyodide/", packages: ["numpy", "micropip"] });
  const { chat, wheel } = await (await fetch("/manifest.json")).json();
  const micropip = pyodide.pyimport("micropip");
  for (const each of [...chat, wheel]) await micropip.install(new URL(each, location.origin + "/").href);
  pyodide.unpackArchive(await (await fetch("/lab/files.zip")).arrayBuffer(), "zip", { extractDir: "/lab" });
  await pyodide.runPythonAsync("import sys; sys.path.insert(0, '/lab')");
  globalThis.lab = pyodide.pyimport("e2e.inside");
  await lab.open(location.origin);
</script>"""

# Python that died of a fatal error never answers.
CALL = """([name, ...rest]) => Promise.race([lab[name](...rest), new Promise((_, refuse) =>
  setTimeout(() => refuse(new Error("no answer: Python hangs or is dead")), 240_000))])"""


class Lab:
    """Runs Python in the page. What it raises fails the test, with the traceback from inside."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def case(self, name: str, kind: str = "webgpu") -> list[str]:
        """Run the case of tests/cases under the harness; gives the lines that it printed."""
        return self._call("case", name, kind)

    def run(self, source: str, kind: str = "webgpu", **values: Any) -> Any:
        """The last expression of ``source``, which may await; ``tc``, ``np``, ``place`` and ``values`` are names in it.

        The values and the result travel as JSON. ``source`` runs under the harness, too.
        """
        return self._call("snippet", source, json.dumps(values), kind)

    def _call(self, function: str, *arguments: str) -> Any:
        reply = json.loads(self._page.evaluate(CALL, [function, *arguments]))
        if "error" in reply:
            pytest.fail(reply["error"], pytrace=False)
        return reply["value"]


def files() -> bytes:
    """What Pyodide needs of the checkout, as a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in [
            *(ROOT / "tests" / "cases").rglob("*.py"),
            *(ROOT / "examples").glob("*.py"),
            ROOT / "e2e" / "inside.py",
            ROOT / "scripts" / "__init__.py",
            ROOT / "scripts" / "random_checkpoint.py",
        ]:
            archive.write(path, path.relative_to(ROOT))
        for path in (ROOT / "tests" / "goldens").rglob("*"):
            archive.write(path, path.relative_to(ROOT))
    return packed.getvalue()


@pytest.fixture(scope="session")
def lab(browser: Browser, site_folder: Path) -> Iterator[Lab]:
    """The page, booted once a folder of tests: programs and pipelines stay from test to test, as in a user's tab."""
    with _open(browser, site_folder) as opened:
        yield opened


@contextmanager
def _open(browser: Browser, site_folder: Path) -> Iterator[Lab]:
    """Serve the site with the lab's page and the models, open the page, boot Python in it."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def lab_app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/lab/":
                await HTMLResponse(PAGE)(scope, receive, send)
            elif scope["path"] == "/lab/files.zip":
                await Response(files(), media_type="application/zip")(scope, receive, send)
            else:
                await app(scope, receive, send)

        return with_models(lab_app)

    with serve(site_folder, headers={}, wrap=wrap) as url:
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url + "lab/")
        try:
            page.wait_for_function("globalThis.lab?.ready", timeout=120_000)
        except Exception:
            pytest.fail(f"the lab did not start: {problems}")
        yield Lab(page)
        page.close()
        assert not problems, problems
