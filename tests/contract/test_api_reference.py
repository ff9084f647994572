"""docs/api: it is up to date, complete, and its examples run. Those that load models run in a browser (e2e/docs)."""

from __future__ import annotations

import gc
import inspect
import re

import pytest

import tensorcommons as tc
from scripts import api_reference
from scripts.api_reference import FOLDER, PAGES, names, reference
from tests import documents, sessions

NAMES = [name for key in PAGES for name in names(key)]
API = [page for page in documents.pages() if page.startswith("docs/api/")]


def test_the_pages_are_up_to_date() -> None:
    made = reference()
    assert {path.name for path in FOLDER.iterdir()} == set(made)
    for file, text in made.items():
        assert (FOLDER / file).read_text("utf-8") == text, (
            "update it with .cache/venv/bin/python -m scripts.api_reference"
        )


def test_every_public_name_is_listed() -> None:
    listed = {name.path.partition(".")[0] for name in NAMES}
    constants = {"e", "pi", "inf", "nan", "newaxis", "__array_api_version__"}
    assert set(tc.__all__) <= {*listed, *constants, *tc.dtypes.ALL, "dtypes", "errors", "nn"}
    assert {f"nn.functional.{name}" for name in tc.nn.functional.__all__} <= {name.path for name in NAMES}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.path)
def test_a_name_has_a_docstring_and_an_example(name: api_reference.Name) -> None:
    first = name.doc.partition("\n")[0]
    assert first.endswith((".", ":")), first
    assert not re.match(r"(What|Whether|Which)\b", first), first
    assert ">>> " in name.examples, "it has no example"


@pytest.mark.parametrize("page", API)
async def test_the_examples_of_a_page_run(page: str) -> None:
    for session in documents.sessions(page):
        if not documents.needs_browser(session):
            await sessions.run(session.text, f"{page}:{session.line}")
    gc.collect()


def test_signatures_show_no_addresses() -> None:
    shown = "".join(map(api_reference.signature, NAMES))
    assert " at 0x" not in shown and "<" not in shown, re.findall(r".*<.*", shown)
    assert inspect.isfunction(api_reference.signature)
