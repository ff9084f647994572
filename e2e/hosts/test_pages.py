"""The pages of docs/hosts.md as a reader pastes them: Python in a worker, and PyScript.

The pages name a CDN and a model hub. Both are redirected to the same files on this machine.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from e2e.hosts.conftest import ANYWHERE, check_devices, printed
from e2e.page.driver import SLOW
from scripts.serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Route


@pytest.fixture
def shown(
    context: BrowserContext,
    site_folder: Path,
    manifest: dict[str, str],
    installed: Path,
    repository: str,
    tmp_path: Path,
) -> Callable[..., str]:
    """Serve a page with these files and the wheel; gives the text that it shows."""
    places = {
        f"/pyodide/v{manifest['pyodide']}/full/": site_folder / "vendor" / "pyodide",
        "/npm/@pyscript/core@0.7.31/": installed / "@pyscript" / "core",
    }

    def to_file(route: Route) -> None:
        path = urlsplit(route.request.url).path
        prefix, folder = next((prefix, folder) for prefix, folder in places.items() if path.startswith(prefix))
        route.fulfill(path=folder / path.removeprefix(prefix), headers=ANYWHERE)

    def to_repository(route: Route) -> None:
        file = urlsplit(route.request.url).path.partition("/resolve/main/")[2]
        route.fulfill(status=302, headers={**ANYWHERE, "Location": repository + file})

    def show(**files: str) -> str:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        shutil.copy(site_folder / manifest["wheel"], tmp_path)
        context.route("https://cdn.jsdelivr.net/**", to_file)
        context.route("https://huggingface.co/**", to_repository)
        with serve(tmp_path, headers={}) as url:
            page = context.new_page()
            page.goto(url)
            out = page.locator("#out")
            expect(out).not_to_have_text(re.compile("^Starting"), timeout=3 * SLOW)
            return out.inner_text()

    return show


def test_python_in_a_worker(shown: Callable[..., str]) -> None:
    text = shown(index_html=printed("html", "new Worker"), worker_js=printed("js", "postMessage"))
    check_devices(text, "a worker in Chromium 153")


def test_pyscript(shown: Callable[..., str]) -> None:
    text = shown(index_html=printed("html", "pyscript"))
    check_devices(text, "PyScript 0.7.31 in a page, Chromium 153")
