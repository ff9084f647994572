"""The pages of README.md and docs/: their blocks, links and length. e2e/docs runs their programs in a browser."""

from __future__ import annotations

import ast
import gc
import inspect
import re

import pytest

from scripts.paths import ROOT
from scripts.serve import HEADERS
from tests import documents

README = (ROOT / "README.md").read_text("utf-8")
#: Pages whose program needs neither a browser nor a model.
PROGRAMS = {program.page: program for program in documents.programs() if program.shown is None}
WITHOUT_BROWSER = ("docs/sharing.md", "docs/computing.md", "docs/performance.md")
#: Pages outside docs/, whose links are checked, too.
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md", "shaders/README.md")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def test_every_block_is_run_or_says_why_not() -> None:
    blocks = [block for page in documents.pages() for block in documents.blocks(page)]
    languages = {block.language for block in blocks}
    assert languages <= {*documents.RUN, *documents.SHOWN}, languages
    not_run = [block for block in blocks if not block.is_run]
    assert all(len(block.before) > len(documents.NOT_RUN) + 20 for block in not_run), "a reason is missing"
    assert not_run == []


@pytest.mark.parametrize("page", WITHOUT_BROWSER)
async def test_the_program_of_a_page_runs_under_cpython(page: str) -> None:
    names: dict[str, object] = {}
    run = eval(compile(PROGRAMS[page].source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert inspect.iscoroutine(run)
    await run
    names.clear()
    gc.collect()


def test_the_page_about_hosting_has_the_headers_of_the_demo() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `(.+)` \|$", (ROOT / "docs" / "hosting.md").read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == HEADERS


def test_the_readme_is_short_and_has_a_page_near_its_beginning() -> None:
    assert README.count("\n") < 150
    assert README[: README.index("</html>")].count("\n") < 70


@pytest.mark.parametrize("page", [*PAGES, *documents.pages()])
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target, anchor in LINK.findall((ROOT / page).read_text("utf-8")):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {anchor_of(heading) for heading in headings}, f"{target}#{anchor}"


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")
