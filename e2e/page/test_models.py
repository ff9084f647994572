"""Loading and unloading, measured by the memory figures, and cancelling."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from e2e.page.driver import HEADS, MINILM, SKILL, SPLADE, Tab, megabytes, with_first_line

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


def test_each_model_changes_the_figures_and_is_unloaded_completely(empty: Tab) -> None:
    assert empty.figure("with-sharing") == 0

    empty.load(SPLADE)
    backbone = empty.wait_figure("with-sharing", "value > 1")
    assert empty.figure("saved") == 0
    assert empty.figure("separate") == backbone

    shared = backbone
    for number, head in enumerate(HEADS, 1):
        empty.load(head)
        empty.wait_figure("separate", f"value > {backbone * (number + 0.9)}")
        shared = empty.figure("with-sharing")
        assert shared < backbone * 1.2, "a head may add only its own layers"
    assert empty.figure("saved") == pytest.approx(empty.figure("separate") - shared, abs=0.2)
    print(f"\nfive models on one backbone: {shared:.1f} MB, as separate copies {empty.figure('separate'):.1f} MB")

    empty.unload(SPLADE)  # four others share the backbone
    empty.wait_figure("separate", f"value < {backbone * 4.9}")
    assert empty.figure("with-sharing") == pytest.approx(shared, rel=0.1)

    empty.unload(*HEADS)
    empty.wait_figure("with-sharing", "value === 0")
    assert empty.figure("separate") == 0
    expect(empty.page.locator("#per-model")).to_contain_text("No model is loaded.")
    expect(empty.page.locator("#tensor-table")).to_contain_text("No tensor is on a device.")


def test_a_panel_offers_to_load_what_it_needs(empty: Tab) -> None:
    button = empty.panel("pair").locator('[data-part="polarity"]').get_by_role("button", name="Load Polarity")
    button.focus()
    empty.page.keyboard.press("Enter")
    expect(empty.page.locator('[data-part="polarity"] .bars')).to_have_count(2)
    expect(empty.page.locator("#premise")).to_be_focused()  # the button is gone
    expect(empty.page.locator('[data-part="nli"]').get_by_role("button", name="Load Entailment")).to_be_visible()


def size_of(load_all: Locator) -> float:
    """Return the MB that the button states."""
    found = re.search(r"\(([\d.]+) MB\)", load_all.inner_text())
    assert found, load_all.inner_text()
    return float(found[1])


def test_load_all_and_unload_all(empty: Tab) -> None:
    empty.show("models")
    load_all = empty.page.get_by_role("button", name=re.compile("^Load all"))
    whole = size_of(load_all)
    empty.load(SPLADE)
    assert size_of(load_all) == pytest.approx(whole - 17.5, abs=0.3), "the button must state the remaining bytes"
    load_all.click()
    expect(empty.page.get_by_role("heading", name="Models: 7 of 9 loaded")).to_be_visible()
    expect(load_all).to_be_disabled()
    expect(load_all).to_have_text("Load all")
    for model_id in (MINILM, SKILL):
        expect(empty.card(model_id)).to_contain_text("MB of it shared")
    empty.unload_all()
    empty.wait_figure("with-sharing", "value === 0")


def test_a_model_larger_than_the_limit_shows_the_bytes_that_each_run_moves(empty: Tab) -> None:
    empty.load(MINILM)
    empty.wait_panel("sentences")
    streams = empty.page.locator("#streams")
    expect(streams).to_be_hidden()

    def run(limit: float) -> float:
        """Run the model under a limit in MB. Gives the MB of weights that moved."""
        source = f"""
            model, manager = session.models["{MINILM}"], session.manager
            await manager.set_memory_limit({limit})
            for result in (await model(input_ids=[[101, 7592, 102]])).values():
                await result.read()
            return manager.last_run["moved_bytes"] / 2**20"""
        return float(empty.python(source))

    weights = empty.figure("with-sharing")
    moved = run(0.8 * weights)
    item = streams.get_by_role("listitem")
    expect(item).to_contain_text("moved to the device by each run of MiniLM-L6")
    assert megabytes(item.locator("b").inner_text()) == pytest.approx(moved, abs=0.1) and moved > 0.1 * weights
    assert run(1024) == 0
    expect(streams).to_be_hidden()


def test_a_load_that_is_cancelled_and_repeated_leaves_no_tensor_in_the_memory_of_python(
    tab: Tab, faulty_site: str, faults: Faults
) -> None:
    """The memory of WebAssembly never shrinks, and the largest tensor of MiniLM has 47 MB."""
    with_first_line(tab, KEEP_MEMORY)
    tab.open(faulty_site)
    before = tab.page.workers[0].evaluate(MEMORY)
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
    tab.wait_panel("sentences")
    grown = (tab.page.workers[0].evaluate(MEMORY) - before) / 1e6
    print(f"\nPython's memory grew by {grown:.0f} MB for a model of 91 MB")
    assert grown < 20

    expect(tab.page.locator("#timings")).to_have_text(
        re.compile(r"Usable after [\d.]+ s, first embedding after [\d.]+ s\.")
    )
    usable, embedding = (
        tab.evaluate(f"performance.getEntriesByName('{name}')[0].duration / 1000")
        for name in ("usable", "first-embedding")
    )
    assert usable < embedding
    print(f"usable after {usable:.1f} s, first embedding after {embedding:.1f} s")
