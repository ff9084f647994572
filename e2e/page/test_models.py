"""Loading and unloading, watched through the memory figures; cancelling; files that are missing or damaged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from e2e.page.driver import HEADS, MINILM, SKILL, SPLADE, Tab, with_first_line

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from e2e.page.faults import Faults

KEEP_MEMORY = """
const Memory = WebAssembly.Memory;
globalThis.memories = [];
WebAssembly.Memory = function (...given) { const made = new Memory(...given); memories.push(made); return made; };
WebAssembly.Memory.prototype = Memory.prototype;
"""
MEMORY = "Math.max(...memories.map((memory) => memory.buffer.byteLength))"


def test_each_model_moves_the_figures_and_leaves_no_weight_behind(tab: Tab, site: str) -> None:
    tab.open(site)
    assert tab.figure("with-sharing") == 0

    tab.load(SPLADE)
    backbone = tab.wait_figure("with-sharing", "value > 1")
    assert tab.figure("saved") == 0
    assert tab.figure("separate") == backbone

    shared = backbone
    for number, head in enumerate(HEADS, 1):
        tab.load(head)
        tab.wait_figure("separate", f"value > {backbone * (number + 0.9)}")
        shared = tab.figure("with-sharing")
        assert shared < backbone * 1.2, "a head brings its own layers only"
    assert tab.figure("saved") == pytest.approx(tab.figure("separate") - shared, abs=0.2)
    print(f"\nfive models on one backbone: {shared:.1f} MB, as separate copies {tab.figure('separate'):.1f} MB")

    tab.unload(SPLADE)  # four others hold the backbone
    tab.wait_figure("separate", f"value < {backbone * 4.9}")
    assert tab.figure("with-sharing") == pytest.approx(shared, rel=0.1)

    tab.unload(*HEADS)
    tab.wait_figure("with-sharing", "value === 0")
    assert tab.figure("separate") == 0
    expect(tab.page.locator("#per-model")).to_contain_text("No model is loaded.")
    expect(tab.page.locator("#tensor-table")).to_contain_text("No tensor is on a device.")


def test_a_panel_offers_to_load_what_it_needs(tab: Tab, site: str) -> None:
    tab.open(site)
    tab.page.locator('[data-part="polarity"]').get_by_role("button", name="Load Polarity").click()
    tab.wait_card(HEADS[2], "loaded")
    expect(tab.page.locator('[data-part="polarity"] .bars')).to_have_count(2)
    expect(tab.page.locator('[data-part="nli"]').get_by_role("button", name="Load Entailment")).to_be_visible()


def test_a_load_leaves_no_tensor_in_the_memory_of_python(tab: Tab, site: str) -> None:
    """WebAssembly's memory never shrinks, and the largest tensor of MiniLM has 47 MB."""
    with_first_line(tab, KEEP_MEMORY)
    tab.open(site)
    before = tab.page.workers[0].evaluate(MEMORY)
    tab.load(MINILM)
    tab.wait_panel("sentences")
    grown = (tab.page.workers[0].evaluate(MEMORY) - before) / 1e6
    print(f"\nPython's memory grew by {grown:.0f} MB for a model of 91 MB")
    assert grown < 20


def size_of(load_all: Locator) -> float:
    """The MB that the button names."""
    found = re.search(r"\(([\d.]+) MB\)", load_all.inner_text())
    assert found, load_all.inner_text()
    return float(found[1])


def test_load_all_and_unload_all(tab: Tab, site: str) -> None:
    tab.open(site)
    load_all = tab.page.get_by_role("button", name=re.compile("^Load all"))
    whole = size_of(load_all)
    tab.load(SPLADE)
    assert size_of(load_all) == pytest.approx(whole - 17.5, abs=0.3), "what is left to load"
    load_all.click()
    expect(tab.page.get_by_role("heading", name="Models: 7 of 7 loaded")).to_be_visible()
    expect(load_all).to_be_disabled()
    expect(load_all).to_have_text("Load all")
    for model_id in (MINILM, SKILL):
        expect(tab.card(model_id)).to_contain_text("MB of it shared")
    tab.page.get_by_role("button", name="Unload all").click()
    expect(tab.page.get_by_role("heading", name="Models: 0 of 7 loaded")).to_be_visible()
    tab.wait_figure("with-sharing", "value === 0")


def test_a_load_can_be_cancelled_and_begun_again(tab: Tab, faulty_site: str, faults: Faults) -> None:
    tab.open(faulty_site)
    faults.hold(f"models/{MINILM}/model.safetensors", 8_000_000)
    tab.press(MINILM, "Load")
    tab.wait_card(MINILM, "loading")
    progress = tab.page.get_by_role("progressbar", name="Loading")
    expect(progress).to_be_visible()
    expect(tab.card(MINILM)).to_contain_text("MB shared")
    tab.press(MINILM, "Cancel")
    tab.wait_card(MINILM, "idle")
    tab.wait_figure("with-sharing", "value === 0")
    faults.mend()
    tab.load(MINILM)
    tab.wait_figure("with-sharing", "value > 80")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_bad_file_is_told_on_its_card_and_the_page_goes_on(
    troubled: Tab, faulty_site: str, faults: Faults, damage: str
) -> None:
    path = f"models/{SPLADE}/model.safetensors"
    if damage == "missing":
        faults.missing(path)
    else:
        faults.cut(path, 100_000)
    troubled.open(faulty_site)
    troubled.press(SPLADE, "Load")
    troubled.wait_card(SPLADE, "error")
    alert = troubled.card(SPLADE).get_by_role("alert")
    expect(alert).to_contain_text("model.safetensors")
    expect(alert).to_contain_text("A file is missing" if damage == "missing" else "A file is damaged")
    assert troubled.figure("with-sharing") == 0

    faults.mend()
    troubled.press(SPLADE, "Try again")
    troubled.wait_card(SPLADE, "loaded")
    expect(alert).to_be_empty()
    troubled.wait_panel("pair")


def test_one_of_several_that_fails_does_not_stop_the_others(troubled: Tab, faulty_site: str, faults: Faults) -> None:
    faults.missing(f"models/{HEADS[1]}/model.safetensors")
    troubled.open(faulty_site, load=None)
    troubled.wait_card(HEADS[1], "error")
    for model_id in (SPLADE, HEADS[0], HEADS[2], HEADS[3]):
        troubled.wait_card(model_id, "loaded")
    troubled.wait_panel("pair")
    expect(troubled.page.locator('[data-part="relevance"]')).to_contain_text("to see this")
