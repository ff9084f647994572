"""The page of the README as a reader pastes it, with the three ways of use, and the page of docs/hosting.md.

The page names a CDN and a model hub. Both are replaced by redirects to the same files on this machine.
"""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import zipfile
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from e2e.page.driver import MINILM, SLOW, SPLADE
from scripts import paths
from scripts.serve import HEADERS, serve
from tests.models.server import with_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Page, Route

README = (paths.ROOT / "README.md").read_text("utf-8")
HTML = re.findall(r"```html\n(.*?)```", README, re.DOTALL)
HOSTING = (paths.ROOT / "docs" / "hosting.md").read_text("utf-8")
WAYS = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
ANYWHERE = {"Access-Control-Allow-Origin": "*"}


@pytest.fixture
def reader(context: BrowserContext, site_folder: Path, tmp_path: Path) -> Iterator[tuple[Path, Page, str]]:
    """A folder with the wheel and a page, and its URL; the CDN and the hub are redirected to this machine."""
    manifest = json.loads((site_folder / "manifest.json").read_text())
    shutil.copy(site_folder / manifest["wheel"], tmp_path)
    with ExitStack() as servers:
        pyodide = servers.enter_context(serve(site_folder / "vendor" / "pyodide", headers=ANYWHERE))
        models = servers.enter_context(serve(paths.MODELS, headers=ANYWHERE))
        url = servers.enter_context(serve(tmp_path, headers={}, wrap=with_models))

        def to(route: Route, folder: str, prefix: str) -> None:
            path = urlsplit(route.request.url).path
            assert path.startswith(prefix), path
            route.fulfill(status=302, headers={**ANYWHERE, "Location": folder + path.removeprefix(prefix)})

        cdn, hub = f"/pyodide/v{manifest['pyodide']}/full/", f"/sentence-transformers/{MINILM}/resolve/main/"
        context.route("https://cdn.jsdelivr.net/**", lambda route: to(route, pyodide, cdn))
        context.route("https://huggingface.co/**", lambda route: to(route, f"{models}{MINILM}/", hub))
        yield tmp_path, context.new_page(), url


def test_the_readme_has_one_page_near_its_beginning() -> None:
    assert len(HTML) == 1
    assert README[: README.index("</html>")].count("\n") < 65


def test_the_page_runs_as_pasted(reader: tuple[Path, Page, str]) -> None:
    folder, page, url = reader
    (folder / "index.html").write_text(HTML[0])
    page.goto(url)
    out = page.locator("#out")
    expect(out).not_to_have_text(re.compile("^Starting"), timeout=3 * SLOW)
    said = out.inner_text()
    assert [float(number) for number in re.findall(r"\d\.\d*", said)[:3]] == pytest.approx([1, 0.96, 0.02], abs=0.011)
    assert "because" in said
    assert "shares all weights of the first: 90,852,864 bytes saved" in said


def test_the_three_ways_of_use_run_in_that_page(reader: tuple[Path, Page, str]) -> None:
    folder, page, url = reader
    answer = "f\"{cosines.shape} {[label['label'] for label in labels]} {hidden.shape} {product.sum()}\"\n"
    end = "    `);\n"
    assert HTML[0].count(end) == 1
    (folder / "index.html").write_text(HTML[0].replace(end, textwrap.indent(WAYS + answer, " " * 6) + end))
    page.goto(url)
    out = page.locator("#out")
    expect(out).not_to_have_text(re.compile("^Starting"), timeout=3 * SLOW)
    expect(out).to_have_text(re.compile(r"^\(2, 2\) \['\w+', '\w+'\] \(2, \d+, 384\) 2\.0$"))


def test_a_page_in_a_folder_under_a_strict_policy(context: BrowserContext, site_folder: Path, tmp_path: Path) -> None:
    (main,) = re.findall(r"```js\n(.*?)```", HOSTING, re.DOTALL)
    listed = set(json.loads(re.findall(r"const name of (\[.*?\])", main)[0]))
    assert listed == {path.stem for path in (paths.PACKAGE / "bridge").glob("*.js")}
    wheel = site_folder / json.loads((site_folder / "manifest.json").read_text())["wheel"]
    shutil.copy(wheel, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "lib")
    shutil.copytree(site_folder / "vendor" / "pyodide", tmp_path / "pyodide")
    model = f"models/{SPLADE}"
    shutil.copytree(site_folder / model, tmp_path / model)
    (tmp_path / "main.js").write_text(main)
    (tmp_path / "index.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>mine</title>'
        '<link rel="icon" href="data:,"><pre id="out"></pre><script type="module" src="main.js"></script>'
    )
    with serve(tmp_path, headers=HEADERS, prefix="/some/folder") as url:
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.add_init_script("addEventListener('unhandledrejection', (e) => out.append(`failed: ${e.reason}`))")
        page.goto(url)
        out = page.locator("#out")
        expect(out).not_to_be_empty(timeout=3 * SLOW)
        assert out.inner_text().startswith("[{'token': 'never'"), out.inner_text()
        assert not [problem for problem in problems if "404" not in problem], problems
