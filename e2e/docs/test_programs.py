"""Every Python program of README.md and docs/, as a reader runs it: in a fresh page with Pyodide from its CDN.

The page is that of the README, with `run` in place of its program. All programs run in one page, one after the other.
So do the examples of docs/api that load models.
"""

from __future__ import annotations

import doctest
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from scripts.paths import ROOT
from tests import documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

    from e2e.docs.conftest import Reader

PAGE = documents.files("README.md", "Use it in your page")["index.html"]
PROGRAMS = documents.programs()
SESSIONS = [block for page in documents.pages() for block in documents.sessions(page) if documents.needs_browser(block)]
#: Runs a program in a namespace of its own; gives what it prints, and the value of its last line.
RUN = """
import contextlib, gc, io, micropip
from pyodide.code import eval_code_async

await micropip.install(CHAT)  # the CDN has other builds of these; they come from the site, which is another origin

async def run(source, page):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        value = await eval_code_async(source, {"__name__": "__main__"}, filename=page)
    shown = printed.getvalue() + ("" if value is None else str(value))
    del value
    gc.collect()
    return shown

run
"""


@pytest.fixture(scope="module")
def run(browser: Browser, reader: Reader, site: str, manifest: dict[str, Any]) -> Iterator[Callable[[str, str], str]]:
    """The fresh page: a function that runs a program in it."""
    run = RUN.replace("CHAT", str([site + wheel for wheel in manifest["chat"]]))
    program = re.compile(r"out.textContent = await (pyodide.runPythonAsync\(`).*?(`\);\n)", re.DOTALL)
    page = program.sub(lambda found: f"globalThis.run = await {found[1]}{run}{found[2]}", PAGE)
    assert page != PAGE
    with ExitStack() as opened:
        tab = opened.enter_context(reader(browser.new_context(), {"index.html": page}))
        tab.wait_for_function("'run' in globalThis || !/^(Starting|Loading)/.test(out.textContent)")
        yield lambda source, name: str(tab.evaluate("([source, name]) => run(source, name)", [source, name]))


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.name for program in PROGRAMS])
def test_a_program_shows_what_the_page_says(run: Callable[[str, str], str], program: documents.Program) -> None:
    shown = run(program.source, program.page).strip()
    if program.shown is not None:
        wanted = program.shown.strip()
        assert doctest.OutputChecker().check_output(wanted, shown, doctest.ELLIPSIS), shown


@pytest.mark.parametrize("page", sorted({session.page for session in SESSIONS}))
def test_the_examples_with_models_run(run: Callable[[str, str], str], page: str) -> None:
    source = (ROOT / "tests" / "sessions.py").read_text("utf-8")
    calls = [f"await run({each.text!r}, '{page}:{each.line}')\n" for each in SESSIONS if each.page == page]
    run(source + "".join(calls), "tests/sessions.py")
