"""Every page of HTML in README.md and docs/, as a reader pastes it."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from e2e.hosts.conftest import check_devices
from e2e.page.driver import SLOW, SPLADE
from scripts import hosts, paths
from scripts.serve import HEADERS
from tests import documents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import BrowserContext

    from e2e.docs.conftest import Reader


def similar_sentences(text: str) -> None:
    assert re.match(r"A man is eating: \[( *-?0\.\d+)+\] and 380 more numbers", text)
    cosines = text[text.index("[[") : text.index("]]")]
    assert [float(number) for number in re.findall(r"\d\.\d*", cosines)[:3]] == pytest.approx(
        [1, 0.96, 0.02], abs=0.011
    )
    assert "90,852,864 bytes of weights for two models, 90,852,864 saved by sharing" in text
    assert "because" in text


def exactly(text: str, wanted: str) -> None:
    assert text == wanted


def matches(text: str, pattern: str) -> None:
    assert re.fullmatch(pattern, text), text


def terms(text: str) -> None:
    assert text.startswith("[{'token': 'never'"), text


#: What a page shows, by the page of the docs and its section.
CHECKS: dict[tuple[str, str], Callable[[str], None]] = {
    ("README.md", "Use it in your page"): similar_sentences,
    ("README.md", "From JavaScript"): lambda text: exactly(text, "0.96; 90852864 bytes of weights, 0 saved"),
    ("docs/javascript.md", "A page"): lambda text: matches(
        text, r"3 x 384 on \w+: nearest is “A kitten naps by the window.”"
    ),
    ("docs/javascript.md", "One runtime for all tabs"): lambda text: matches(
        text, r"shared: (splade-tiny)? in \d+ bytes"
    ),
    ("docs/javascript.md", "Python of your own"): lambda text: exactly(text, "on cpu: 0.090,0.245,0.665"),
    ("docs/javascript.md", "Chat"): lambda text: exactly(text, "Ready."),
    ("docs/hosting.md", "Your own page under a strict policy"): terms,
    ("docs/hosts.md", "A page"): lambda text: check_devices(text, "a worker in Chromium 153"),
    ("docs/hosts.md", "PyScript"): lambda text: check_devices(text, "PyScript 0.7.31 in a page, Chromium 153"),
}
#: Programs for Node, Deno and Bun, which e2e/hosts runs.
WITHOUT_A_PAGE = [("docs/hosts.md", "Node, Deno and Bun")]
SITES = [site for site in documents.sites() if site not in WITHOUT_A_PAGE]


#: Pages with a large model.
LONG = [("docs/javascript.md", "Chat")]


@pytest.mark.parametrize(
    ("page", "heading"),
    [pytest.param(*site, id=": ".join(site), marks=[pytest.mark.long] if site in LONG else []) for site in SITES],
)
def test_a_page_shows_what_it_says(
    context: BrowserContext, reader: Reader, site_folder: Path, tmp_path: Path, page: str, heading: str
) -> None:
    files: dict[str, Any] = documents.files(page, heading)
    options: dict[str, Any] = {}
    if "pyscript" in files["index.html"] and not hosts.NODE_MODULES.is_dir():
        pytest.skip("PyScript is not installed: run 'python -m scripts.hosts'")
    if "./tensorcommons/" in files["index.html"]:
        files["tensorcommons"] = site_folder
    if page == "docs/hosting.md":
        files |= self_hosted(site_folder, tmp_path)
        options = {"headers": HEADERS, "prefix": "/some/folder"}
    context.add_init_script(
        "addEventListener('unhandledrejection', (e) => document.body.append(`failed: ${e.reason}`))"
    )
    with reader(context, files, **options) as tab:
        out = tab.locator("#out")
        expect(out).not_to_have_text(re.compile("^(Starting|Loading|$)"), timeout=3 * SLOW)
        CHECKS[page, heading](out.inner_text())
        if (page, heading) in LONG:
            tab.get_by_role("button", name="Send").click()
            expect(out).not_to_have_text("Ready.", timeout=3 * SLOW)
            tab.get_by_role("button", name="Stop").click()


def self_hosted(site_folder: Path, folder: Path) -> dict[str, Path]:
    """The folders that docs/hosting.md has the reader put beside the page."""
    main = documents.files("docs/hosting.md", "Your own page under a strict policy")["main.js"]
    listed = set(json.loads(re.findall(r"const name of (\[.*?\])", main)[0]))
    sources = "".join(path.read_text("utf-8") for path in (paths.PACKAGE / "bridge").glob("*.py"))
    assert listed == set(re.findall(r'load_js_module\("(\w+)"', sources))
    with zipfile.ZipFile(site_folder / json.loads((site_folder / "manifest.json").read_text())["wheel"]) as archive:
        archive.extractall(folder / "lib")
    model = f"models/{SPLADE}"
    return {"lib": folder / "lib", "pyodide": site_folder / "vendor" / "pyodide", model: site_folder / model}
