"""Start of the page: true progress in bytes, missing devices with their reasons, and retries after failures."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from e2e.page.driver import MINILM, SPLADE, SPLADE_FAMILY, Tab
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


def test_the_start_shows_bytes_up_to_the_stated_total_and_names_each_device(tab: Tab, site: str) -> None:
    tab.page.add_init_script(RECORD_PROGRESS)
    tab.open(site)
    seen = [re.fullmatch(r"([\d.]+) of ([\d.]+) MB", text) for text in tab.evaluate("seenBytes") if text]
    loaded = [float(found[1]) for found in seen if found]
    totals = {found[2] for found in seen if found}
    assert all(seen)
    assert loaded == sorted(loaded)
    assert len(loaded) > 3
    assert len(totals) == 1
    assert loaded[-1] == float(totals.pop())
    expect(tab.page.locator("#boot")).to_be_hidden()
    badges = tab.page.get_by_role("list", name="Devices").get_by_role("listitem")
    assert badges.count() == 3
    for badge in badges.all():
        text = badge.inner_text()
        assert "checking" not in text
        assert badge.get_attribute("data-state") in ("present", "software", "missing")
        assert len(text.split()) > 1, text
    assert "software" in badges.first.inner_text()


def test_a_first_visit_loads_the_small_family(tab: Tab, site: str) -> None:
    tab.open(site, load=None)
    for model_id in SPLADE_FAMILY:
        tab.wait_card(model_id, "loaded")
    tab.wait_panel("pair")
    assert tab.figure("with-sharing") < tab.figure("separate")


def test_the_page_shows_the_time_to_a_usable_page_and_a_first_embedding(tab: Tab, site: str) -> None:
    tab.open(site, load=MINILM)
    tab.wait_panel("sentences")
    expect(tab.page.locator("#timings")).to_have_text(
        re.compile(r"Usable after [\d.]+ s, first embedding after [\d.]+ s\.")
    )
    usable, embedding = (
        tab.evaluate(f"performance.getEntriesByName('{name}')[0].duration / 1000")
        for name in ("usable", "first-embedding")
    )
    assert usable < embedding
    print(f"\nusable after {usable:.1f} s, first embedding after {embedding:.1f} s")


def test_the_page_works_in_any_folder_of_a_host(tab: Tab, site_folder: Path) -> None:
    """Served like GitHub Pages: in a folder and without our headers, so only the policy in the page applies."""
    with serve(site_folder, prefix="/a/project", headers={}) as url:
        tab.open(url, load=SPLADE)
        tab.wait_card(SPLADE, "loaded")


@pytest.mark.parametrize(
    ("missing", "words"),
    [("manifest.json", "manifest.json"), ("wheel", "404"), ("bridge/webgpu.js", "bridge/webgpu.js")],
)
def test_a_failed_start_shows_the_reason_and_can_be_retried(
    troubled: Tab, faulty_site: str, faults: Faults, site_folder: Path, missing: str, words: str
) -> None:
    if missing == "wheel":
        missing = next(
            path.relative_to(site_folder).as_posix() for path in (site_folder / "wheel").glob("tensorcommons-*.whl")
        )
    faults.missing(missing)
    troubled.page.goto(faulty_site + "?load=none")
    troubled.wait_booted("failed")
    alert = troubled.page.locator("#boot").get_by_role("alert")
    expect(alert).to_contain_text("Python did not start")
    expect(alert).to_contain_text(words)
    expect(alert).to_be_in_viewport()
    expect(troubled.page.get_by_role("list", name="Devices")).not_to_contain_text("checking")
    faults.mend()
    troubled.page.get_by_role("button", name="Retry").click()
    troubled.wait_booted()
    expect(troubled.page.locator("#boot")).to_be_hidden()


def test_python_starts_without_unusable_files_and_the_page_shows_it(tab: Tab, site: str, site_folder: Path) -> None:
    """Unusable files are a snapshot of another build of Pyodide, and damaged compiled modules."""
    snapshot = bytearray(gzip.decompress((site_folder / "start" / "memory.bin").read_bytes()))
    snapshot[16] ^= 1  # the hash of the build begins here
    tab.page.route("**/start/memory.bin", lambda route: route.fulfill(body=gzip.compress(snapshot, 1)))
    tab.page.route("**/start/bytecode.zip", lambda route: route.fulfill(body=b"PK"))
    tab.open(site, load=SPLADE)
    tab.wait_card(SPLADE, "loaded")
    tab.wait_panel("pair")
    expect(tab.page.locator("#timings")).to_have_text(
        re.compile(
            r" s\. Python started without the snapshot \(Snapshot build id mismatch\) and compiled modules \(.+\)\.$"
        )
    )
    warnings = [error.partition(" (http")[0] for error in tab.errors]
    assert len(warnings) == 2
    assert warnings[0] == "warning: Python starts without the snapshot: Snapshot build id mismatch"
    assert warnings[1].startswith("warning: Python starts without compiled modules: ")
    tab.errors.clear()


def test_a_missing_worker_is_reported(troubled: Tab, faulty_site: str, faults: Faults) -> None:
    faults.missing("worker.js")
    troubled.page.goto(faulty_site)
    troubled.wait_booted("failed")
    expect(troubled.page.locator("#boot").get_by_role("alert")).to_contain_text("The worker could not start")
