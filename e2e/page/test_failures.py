"""Failures on the page: cause and remedy in plain words, without a traceback, and never as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from e2e.page.driver import HEADS, SPLADE, Tab, with_first_line

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from e2e.page.faults import Faults

EXPLAIN = (
    "([kinds, message]) => import('./failures.js').then((f) => f.explain(Object.assign(new Error(message),"
    " {kinds: kinds.split(' ')})))"
)
MARKUP = "<img src=x onerror=document.title='run'>"
KNOWN = [
    (
        "UnreachableError DownloadError TensorCommonsError Exception",
        "http://x/config.json: no answer",
        "does not respond",
    ),
    ("MemoryBudgetError TensorCommonsError Exception", "needs 2,000 bytes", "memory limit"),
    (
        "MemoryBudgetError TensorCommonsError Exception",
        "9 more bytes do not fit under the limit of 20,971,520 bytes; held: x 9: raise max_memory_mb by 45 or more.",
        "The memory limit of 20 MB is too low",
    ),
    (
        "OtherFormatError InvalidWeights TensorCommonsError Exception",
        "m/model.onnx: the folder contains an ONNX model; load 'org/m', or convert it by " + "a long command" * 20,
        "saved in a format that cannot be loaded",
    ),
    ("MemoryError Exception", "MemoryError", "out of memory"),
    ("JsException Exception", "RangeError: WebAssembly.Memory(): could not allocate memory", "out of memory"),
    ("DeviceUnavailable TensorCommonsError Exception", "the webgpu device is not available: none", "is not available"),
    ("DeviceLost TensorCommonsError Exception", "destroyed", "stopped working"),
    ("Error", "Pyodide already fatally failed and can no longer be used.", "has stopped"),
    ("constructor toString", "x", "unexpected error"),
    ("undefined", MARKUP, "unexpected error"),
]


def alert(tab: Tab, model_id: str) -> Locator:
    return tab.card(model_id).get_by_role("alert")


def nothing_ran(tab: Tab) -> None:
    assert tab.page.locator("img").count() == 0 and tab.page.title() != "run"


def test_failing_files_are_reported_on_their_cards_and_the_page_continues(
    troubled: Tab, faulty_site: str, faults: Faults
) -> None:
    troubled.open(faulty_site)
    page = troubled.page
    for name, message, words in KNOWN:
        found = troubled.evaluate(EXPLAIN, [name, message])
        assert words in found["what"] and found["details"] == message and found["advice"]
    last = troubled.evaluate(
        EXPLAIN, ["PythonError", f"Traceback (most recent call last):\n  File\nKeyError: {'a' * 999}"]
    )
    assert last["details"].startswith("KeyError: aaa") and len(last["details"]) == 301

    for model_id, words in ((HEADS[0], "A file is missing"), (SPLADE, "A file is damaged")):
        path = f"models/{model_id}/model.safetensors"
        if model_id == SPLADE:
            faults.cut(path, 100_000)
        else:
            faults.missing(path)
        troubled.press(model_id, "Load")
        troubled.wait_card(model_id, "error")
        expect(alert(troubled, model_id)).to_contain_text("model.safetensors")
        expect(alert(troubled, model_id)).to_contain_text(words)
        assert troubled.figure("with-sharing") == 0
        faults.mend()
        troubled.press(model_id, "Try again")
        troubled.wait_card(model_id, "loaded")
        expect(alert(troubled, model_id)).to_be_empty()
        troubled.wait_panel("pair")
        if model_id != SPLADE:
            troubled.unload(model_id)
            troubled.wait_figure("with-sharing", "value === 0")

    page.route(f"**/models/{HEADS[2]}/config.json", lambda route: route.fulfill(body=f"<!doctype html>{MARKUP}"))
    troubled.press(HEADS[2], "Load")
    troubled.wait_card(HEADS[2], "error")
    expect(alert(troubled, HEADS[2])).to_contain_text(
        "Not loaded. A file is damaged, or its contents do not match its name."
    )
    expect(alert(troubled, HEADS[2])).to_contain_text("Details: ")

    page.context.set_offline(True)
    troubled.press(HEADS[1], "Load")
    troubled.wait_card(HEADS[1], "error")
    expect(alert(troubled, HEADS[1])).to_contain_text(
        "Not loaded. This browser is offline. Connect to the network, then try again."
    )
    page.context.set_offline(False)
    troubled.press(HEADS[1], "Try again")
    troubled.wait_card(HEADS[1], "loaded")
    expect(alert(troubled, HEADS[1])).to_be_empty()
    nothing_ran(troubled)


def test_a_browser_without_storage_is_reported(tab: Tab, site: str) -> None:
    with_first_line(tab, "delete StorageManager.prototype.getDirectory;")
    tab.open(site, load=HEADS[2])
    tab.wait_card(HEADS[2], "loaded")
    expect(tab.page.locator("#storage")).to_have_text(
        "This browser keeps no files for this page: models are downloaded again at each visit."
    )


@pytest.mark.parametrize("fault", ["python", "memory"])
def test_a_start_that_fails_in_python_shows_no_traceback(troubled: Tab, site: str, fault: str) -> None:
    if fault == "python":
        program = f'raise ValueError("{MARKUP}")'
        troubled.page.route("**/workbench/__init__.py", lambda route: route.fulfill(body=program))
        words = MARKUP
    else:
        with_first_line(
            troubled, "WebAssembly.Memory = class { constructor() { throw new RangeError('out of memory'); } };"
        )
        words = "This tab is out of memory. Unload models or close other tabs"
    troubled.page.goto(f"{site}?load={SPLADE}")
    troubled.wait_booted("failed")
    told = troubled.page.locator("#boot-failed")
    expect(told).to_contain_text("Python did not start. ")
    expect(told).to_contain_text(words)
    assert "Traceback" not in told.inner_text() and "null" not in told.inner_text()
    nothing_ran(troubled)
