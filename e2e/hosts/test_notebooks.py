"""JupyterLite and marimo, built by the commands of docs/hosts.md, and their programs in it.

Both load Pyodide and packages from a CDN, which is redirected to this machine. It has the core of these versions of
Pyodide from npm, NumPy from the site, and the other packages as PyPI has them: Pyodide's own copies differ in bytes, so
the lock that describes them gets the hashes of these.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from email import message_from_bytes
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from e2e.hosts.conftest import ANYWHERE, TEXT, check_devices
from e2e.page.driver import SLOW
from scripts import hosts
from scripts.serve import serve
from tests import documents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Page, Route

JUPYTERLITE = "JupyterLite 0.8.6 (Pyodide 314.0.6), Chromium 153"
MARIMO = "marimo 0.25.2 (Pyodide 314.0.0), Chromium 153"
IN_PYODIDE = {"sys_platform": "emscripten", "python_version": "3.14", "python_full_version": "3.14.0", "extra": ""}
PROGRAMS = {block.heading: block.text for block in documents.blocks("docs/hosts.md") if block.language == "python"}
SHOWS = "() => document.body.innerText.includes('cpu 1.0000')"


@pytest.fixture
def built(
    installed: Path, run: Callable[..., str], tmp_path: Path, site_folder: Path, manifest: dict[str, str]
) -> Callable[[str, Path], Path]:
    """Run a command of docs/hosts.md in the test's folder, which has the wheel at a path; gives the built site."""

    def build(command: str, wheel: Path) -> Path:
        (line,) = re.findall(rf"^    ({command} .*)$|`({command} [^`]*)`", TEXT, re.MULTILINE)
        wheel.parent.mkdir(exist_ok=True)
        shutil.copy(site_folder / manifest["wheel"], wheel)
        programs = f"{hosts.NOTEBOOKS / 'bin'}{os.pathsep}{os.environ['PATH']}"
        run(["sh", "-c", "".join(line)], PATH=programs, UV_OFFLINE="1")
        return tmp_path / "site"

    return build


@pytest.fixture
def opened(context: BrowserContext, site_folder: Path, installed: Path, repository: str) -> Callable[[str, str], Page]:
    """Open a page whose Pyodide is of a version, and wait for the values of the devices."""
    site = site_folder / "vendor" / "pyodide"
    wheels = {path.name: path for path in (*site.glob("*.whl"), *hosts.WHEELS.glob("*.whl"))}

    def show(url: str, version: str) -> Page:
        pyodide = installed / f"pyodide-{version}"
        lock = json.dumps(locked(json.loads((pyodide / "pyodide-lock.json").read_text()), wheels))

        def from_cdn(route: Route) -> None:
            name = urlsplit(route.request.url).path.rpartition("/")[2]
            if name == "pyodide-lock.json":
                route.fulfill(body=lock, headers=ANYWHERE, content_type="application/json")
            else:
                route.fulfill(path=wheels.get(name, pyodide / name), headers=ANYWHERE)

        def from_hub(route: Route) -> None:
            file = urlsplit(route.request.url).path.partition("/resolve/main/")[2]
            route.fulfill(status=302, headers={**ANYWHERE, "Location": repository + file})

        context.route(re.compile(r"^https://(cdn\.jsdelivr\.net|wasm\.marimo\.app)/"), from_cdn)
        context.route("https://huggingface.co/**", from_hub)
        page = context.new_page()
        page.goto(url)
        page.wait_for_function(SHOWS, timeout=3 * SLOW)
        return page

    return show


def locked(lock: dict[str, Any], wheels: dict[str, Path]) -> dict[str, Any]:
    """Return Pyodide's lock with these wheels: in place of its own, or beside them."""
    packages = lock["packages"]
    keys = {canonicalize_name(key): key for key in packages}
    for path in wheels.values():
        with zipfile.ZipFile(path) as archive:
            metadata = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))
        about = message_from_bytes(metadata)
        name = canonicalize_name(about["Name"])
        needs = [Requirement(text) for text in about.get_all("Requires-Dist", [])]
        new = {
            "name": name,
            "install_dir": "site",
            "package_type": "package",
            "imports": [],
            "depends": [need.name for need in needs if need.marker is None or need.marker.evaluate(IN_PYODIDE)],
        }
        own = {"version": about["Version"], "file_name": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}
        key = keys.get(name, name)
        packages[key] = new | packages.get(key, {}) | own
    return lock


def test_jupyterlite(
    built: Callable[..., Path], opened: Callable[..., Page], tmp_path: Path, manifest: dict[str, str]
) -> None:
    site = built("jupyter lite build", tmp_path / manifest["wheel"].rpartition("/")[2])
    with serve(site, headers={}) as url:
        page = opened(f"{url}repl/index.html?kernel=python&code={quote(PROGRAMS['JupyterLite'])}", "314.0.6")
        check_devices(page.locator(".jp-OutputArea-output").last.inner_text(), JUPYTERLITE)


@pytest.mark.long
def test_marimo(
    built: Callable[..., Path], opened: Callable[..., Page], tmp_path: Path, manifest: dict[str, str]
) -> None:
    (tmp_path / "notebook.py").write_text(PROGRAMS["marimo"])
    site = built("marimo export", tmp_path / "public" / manifest["wheel"].rpartition("/")[2])
    with serve(site, headers={}) as url:
        text = opened(url, "314.0.0").locator(".output").last.inner_text()
        check_devices("\n".join(line for line in text.splitlines() if line), MARIMO)
