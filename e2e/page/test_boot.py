"""Start of the page: true progress in bytes, missing devices with their reasons, and retries after failures."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from e2e.page.driver import HEADS, MINILM, SPLADE, SPLADE_FAMILY, Tab
from scripts.serve import serve

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.page.faults import Faults

RECORD_PROGRESS = """
addEventListener("DOMContentLoaded", () => {
  window.seenBytes = [];
  new MutationObserver(() => window.seenBytes.push(document.getElementById("boot-bytes").textContent))
    .observe(document.getElementById("boot-bytes"), {childList: true, characterData: true, subtree: true});
});
"""


def test_the_start_shows_bytes_up_to_the_stated_total_and_names_each_device(tab: Tab, site_folder: Path) -> None:
    """Served like GitHub Pages: in a folder and without our headers, so only the policy in the page applies."""
    tab.page.add_init_script(RECORD_PROGRESS)
    with serve(site_folder, prefix="/a/project", headers={}) as url:
        tab.open(url, load=SPLADE)
        tab.wait_card(SPLADE, "loaded")
    seen = [re.fullmatch(r"([\d.]+) of ([\d.]+) MB", text) for text in tab.evaluate("seenBytes") if text]
    loaded = [float(found[1]) for found in seen if found]
    totals = {found[2] for found in seen if found}
    assert all(seen)
    assert loaded == sorted(loaded)
    assert len(loaded) > 3
    assert len(totals) == 1
    assert loaded[-1] == float(totals.pop())
    expect(tab.page.locator("#boot")).to_be_hidden()
    tab.show("devices")
    badges = tab.page.get_by_role("list", name="Devices").get_by_role("listitem")
    assert badges.count() == 3
    for badge in badges.all():
        text = badge.inner_text()
        assert "opened when" not in text
        assert badge.get_attribute("data-state") in ("present", "software", "missing")
        assert len(text.split()) > 1, text
    assert "software" in badges.first.inner_text()


def test_what_is_given_while_python_starts_is_answered_first_and_python_starts_again(troubled: Tab, site: str) -> None:
    page = troubled.page
    page.goto(f"{site}#sentences")
    page.get_by_label("Sentence 1", exact=True).fill("Typed before Python runs.")
    troubled.show("own")
    page.get_by_label("Name or address").fill(f"./models/{HEADS[2]}")
    page.get_by_role("button", name="Look at it").click()
    troubled.show("console")
    page.get_by_role("textbox", name="Python").fill("6 * 7")
    page.get_by_role("button", name="Run").click()
    troubled.show("sentences")
    troubled.wait_panel("sentences")
    expect(page.locator("#sentences .matrix")).to_contain_text("Typed before Python runs.")
    troubled.show("console")
    expect(page.locator("#console-log pre").last).to_have_text("42")
    troubled.show("own")
    page.locator("#own-about").get_by_role("button", name="Load").click()
    expect(page.locator("#own-loaded form")).to_have_count(1)
    dropped = troubled.evaluate(
        """() => { const files = new DataTransfer(); files.items.add(new File(["x"], "x.txt"));
             const given = { dataTransfer: files, bubbles: true, cancelable: true };
             return ["dragover", "drop"].map((kind) =>
               document.getElementById("views").dispatchEvent(new DragEvent(kind, given))); }"""
    )
    assert dropped == [False, False], "the browser would open the file in place of the page"

    page.get_by_label("Name or address").fill("a draft")
    troubled.python("import js, pyodide_js\njs.setTimeout(pyodide_js._api.fatal_error, 0, js.Error.new('ended'))")
    expect(page.locator("#boot-failed")).to_contain_text("Python in this tab has stopped.")
    page.get_by_role("button", name="Start it again").click()
    troubled.wait_booted()
    expect(page.locator("#own-loaded form")).to_have_count(1)
    expect(page.get_by_label("Name or address")).to_have_value("a draft")
    troubled.wait_card(MINILM, "loaded")


def test_a_first_visit_loads_the_small_family_although_one_load_fails(
    troubled: Tab, faulty_site: str, faults: Faults
) -> None:
    failing = HEADS[1]
    faults.missing(f"models/{failing}/model.safetensors")
    troubled.open(faulty_site, load=None)
    troubled.wait_card(failing, "error")
    for model_id in SPLADE_FAMILY:
        troubled.wait_card(model_id, "error" if model_id == failing else "loaded")
    troubled.wait_panel("pair")
    expect(troubled.page.locator('[data-part="relevance"]')).to_contain_text("to see this")
    assert troubled.figure("with-sharing") < troubled.figure("separate")
    assert not [error for error in troubled.errors if "404" not in error]


def test_a_failed_start_shows_the_reason_and_can_be_retried(
    troubled: Tab, faulty_site: str, faults: Faults, site_folder: Path
) -> None:
    manifest = json.loads((site_folder / "manifest.json").read_text("utf-8"))
    retry = troubled.page.get_by_role("button", name="Retry")
    for missing in ("manifest.json", manifest["packages"], "vendor/pyodide/pyodide.asm.wasm", "bridge/webgpu.js"):
        faults.missing(missing)
        if missing == "manifest.json":
            troubled.page.goto(faulty_site + "?load=none")
        else:
            retry.click()
        troubled.wait_booted("failed")
        alert = troubled.page.locator("#boot-failed")
        expect(alert).to_contain_text(f"Python did not start. {missing} could not be fetched: the server answered 404")
        expect(alert).to_be_in_viewport()
        assert troubled.audit() == []
        expect(troubled.page.locator("#device-list")).not_to_contain_text("opened when")
        faults.mend()
    retry.click()
    expect(troubled.page.locator("#main")).to_be_focused()
    troubled.wait_booted()
    expect(alert).to_be_hidden()


def test_python_starts_without_an_unusable_snapshot_and_says_so(tab: Tab, site: str, site_folder: Path) -> None:
    """The snapshot is one of libraries at other addresses."""
    (path,) = (site_folder / "start").glob("memory-*.bin")
    snapshot = gzip.decompress(path.read_bytes()).replace(b'"handle":1', b'"handle":2', 1)
    tab.page.route(f"**/{path.name}", lambda route: route.fulfill(body=gzip.compress(snapshot, 1)))
    tab.open(site, load=SPLADE)
    tab.wait_card(SPLADE, "loaded")
    tab.wait_panel("pair")
    expect(tab.page.locator("#timings")).to_have_text(
        re.compile(r" s\. Python started without the snapshot \(Snapshot layout mismatch\)\.$")
    )
    warnings = [error.partition(" (http")[0] for error in tab.errors]
    assert warnings == ["warning: Python starts without the snapshot: Snapshot layout mismatch"]
    tab.errors.clear()


def test_a_missing_worker_is_reported(troubled: Tab, faulty_site: str, faults: Faults) -> None:
    faults.missing("worker.js")
    troubled.page.goto(faulty_site)
    troubled.wait_booted("failed")
    expect(troubled.page.locator("#boot-failed")).to_contain_text("The worker could not start")
