"""The README's page in the browser as a reader pastes it, then with the README's three ways of use in it.

The page names a CDN and a model hub. Here both answer with a redirect to the same files on this machine.
"""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from e2e.page.driver import MINILM
from scripts import paths
from scripts.serve import serve
from tests.models.server import with_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Page, Route

README = (paths.ROOT / "README.md").read_text("utf-8")
HTML = re.findall(r"```html\n(.*?)```", README, re.DOTALL)
WAYS = "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
ANYWHERE = {"Access-Control-Allow-Origin": "*"}


@pytest.fixture
def reader(context: BrowserContext, site_folder: Path, tmp_path: Path) -> Iterator[tuple[Path, Page, str]]:
    """A folder with the wheel, a page, and the folder's address; the CDN and the hub are this machine."""
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


def test_there_is_one_page_and_it_comes_early() -> None:
    assert len(HTML) == 1
    assert README[: README.index("</html>")].count("\n") < 65


def test_the_page_runs_as_pasted(reader: tuple[Path, Page, str]) -> None:
    folder, page, url = reader
    (folder / "index.html").write_text(HTML[0])
    page.goto(url)
    out = page.locator("#out")
    expect(out).not_to_have_text(re.compile("^Starting"))
    said = out.inner_text()
    assert [float(number) for number in re.findall(r"\d\.\d*", said)[:3]] == pytest.approx([1, 0.96, 0.02], abs=0.011)
    assert "because" in said
    assert "took no memory: 90,852,864 bytes saved" in said


def test_the_three_ways_of_use_run_in_that_page(reader: tuple[Path, Page, str]) -> None:
    folder, page, url = reader
    answer = "f\"{cosines.shape} {[label['label'] for label in labels]} {hidden.shape} {product.sum()}\"\n"
    end = "    `);\n"
    assert HTML[0].count(end) == 1
    (folder / "index.html").write_text(HTML[0].replace(end, textwrap.indent(WAYS + answer, " " * 6) + end))
    page.goto(url)
    out = page.locator("#out")
    expect(out).not_to_have_text(re.compile("^Starting"))
    expect(out).to_have_text(re.compile(r"^\(2, 2\) \['\w+', '\w+'\] \(2, \d+, 384\) 2\.0$"))
