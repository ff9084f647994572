"""The memory panel: consistent figures of one report; the table of tensors sorted, filtered and paged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from e2e.page.driver import HEADS, MINILM, SPLADE, Tab, megabytes

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator

NAME, SHAPE, HOLDERS, BYTES = 0, 1, 4, 5


@pytest.fixture
def table(loaded: Tab) -> Locator:
    loaded.show("memory")
    return loaded.page.locator("#tensor-table")


def column(table: Locator, index: int) -> list[str]:
    return [row.locator("th, td").nth(index).inner_text() for row in table.locator("tbody tr").all()]


def sort(table: Locator, name: str) -> str | None:
    header = table.get_by_role("columnheader", name=name)
    header.get_by_role("button").click()
    return header.get_attribute("aria-sort")


def test_the_figures_agree_with_each_other(loaded: Tab) -> None:
    shared, separate, saved = (loaded.figure(name) for name in ("with-sharing", "separate", "saved"))
    assert saved == pytest.approx(separate - shared, abs=0.2)
    attributed = loaded.page.locator("#per-model tfoot td").text_content() or ""
    assert megabytes(attributed) == pytest.approx(shared, rel=0.01)
    categories = loaded.page.get_by_role("list", name="Device bytes by category").locator("b").all_inner_texts()
    assert sum(map(megabytes, categories)) == pytest.approx(loaded.figure("device-bytes"), abs=0.3)
    print(f"\nseven models: {shared:.1f} MB of weights, as separate copies {separate:.1f} MB, saved {saved:.1f} MB")


def test_the_picture_shows_who_shares_what(loaded: Tab) -> None:
    picture = loaded.page.get_by_role("list", name="Loaded models and the weights that they share")
    minilm, splade = picture.get_by_role("listitem").all()
    shared = minilm.get_by_role("button", name="once for 2 models: MiniLM-L6 sentence embeddings, Skill or not")
    block = splade.get_by_role("button", name="once for 5 models: SPLADE-tiny term weights, Entailment")
    sizes = [megabytes(button.locator("b").inner_text()) for button in (shared, block)]
    assert sizes[0] + 4 * sizes[1] == pytest.approx(loaded.figure("saved"), rel=0.01), (
        "one more model, four more models"
    )

    minilm.get_by_role("button").first.focus()
    for _ in range(4):
        loaded.page.keyboard.press("ArrowDown")
    expect(loaded.page.locator("#detail")).to_have_text(re.compile("^Entailment: .* of its own, .* shared with others"))
    assert "lit" in str(block.get_attribute("class"))
    loaded.page.keyboard.press("Enter")
    expect(loaded.card(HEADS[0]).locator('[data-role="toggle"]')).to_be_focused()
    block.click()
    expect(loaded.page.locator("#tensor-model")).to_be_focused()
    expect(loaded.page.locator("#tensor-model")).to_have_value(SPLADE)
    assert all(SPLADE in holders for holders in column(loaded.page.locator("#tensor-table"), HOLDERS))
    loaded.page.locator("#tensor-model").select_option("")


def test_each_model_has_its_line(loaded: Tab) -> None:
    loaded.show("memory")
    table = loaded.page.locator("#per-model tbody")
    assert table.get_by_role("rowheader").count() == 7
    for row in table.get_by_role("row").all():
        exclusive, shared, attributed = (megabytes(cell) for cell in row.locator("td").all_inner_texts()[1:])
        assert exclusive - 0.1 <= attributed <= exclusive + shared + 0.1


def test_a_limit_below_what_is_loaded_evicts_and_the_answers_stay_the_same(loaded: Tab, artefacts: Path) -> None:
    """A limit that is smaller than the part of a run that needs most is explained, with one that would do."""
    loaded.wait_panel("sentences")
    before = loaded.similarity()
    slider, field = loaded.page.get_by_label("Memory limit"), loaded.page.get_by_label("Limit", exact=True)
    note = loaded.page.locator("#limit-note")
    expect(note).to_contain_text("Drag it below what is loaded")

    def limit(mb: int, state: str) -> None:
        loaded.evaluate("() => { document.getElementById('sentences').dataset.state = 'asked'; }")
        field.fill(str(mb))
        field.press("Enter")
        loaded.wait_panel("sentences", state)
        expect(slider).to_have_attribute("aria-valuetext", f"{mb} MB")

    limit(60, "done")
    expect(note).to_contain_text("Less than the loaded weights")
    assert loaded.similarity() == before
    assert loaded.figure("device-bytes") <= 60 < loaded.figure("with-sharing")
    block = loaded.page.locator("#families .block").last
    expect(block).to_have_attribute("aria-label", re.compile("of it not on the device now"))
    limit(8, "error")
    alert = loaded.panel("sentences").get_by_role("alert")
    expect(alert).to_contain_text(
        re.compile(r"The memory limit of 8 MB is too low for this\. Set it to \d+ MB or more")
    )
    loaded.page.screenshot(path=artefacts / "limit-1440-light.png")
    assert loaded.similarity() == before
    field.fill("0")
    field.press("Enter")
    expect(note).to_contain_text("The limit is a number of MB from 1")
    expect(field).to_have_value("8")
    limit(1024, "done")
    assert loaded.similarity() == before
    loaded.show("memory")
    events = loaded.page.locator("#events")
    for words in ("evict", "MB left the device", "restore", "MB came back for a run", "from 1024 MB to 60.0 MB"):
        expect(events).to_contain_text(words)
    loaded.page.screenshot(path=artefacts / "limit-memory-1440-light.png")


def test_tensors_sort_by_every_header(loaded: Tab, table: Locator) -> None:
    assert table.get_by_role("columnheader", name="Bytes").get_attribute("aria-sort") == "descending"
    sizes = [megabytes(text) for text in column(table, BYTES)]
    assert sizes == sorted(sizes, reverse=True)
    assert sort(table, "Bytes") == "ascending"
    sizes = [megabytes(text) for text in column(table, BYTES)]
    assert sizes == sorted(sizes)
    assert sort(table, "Name") == "ascending"
    ascending = column(table, NAME)
    assert sort(table, "Name") == "descending"
    assert column(table, NAME)[0] > ascending[0]
    for name in ("Shape", "Dtype", "Device", "Holders"):
        assert sort(table, name) == "ascending"
    assert len(table.locator("th[aria-sort]:not([aria-sort=none])").all()) == 1
    sort(table, "Bytes")


def test_tensors_filter_by_text(loaded: Tab, table: Locator) -> None:
    filter_field = loaded.page.get_by_role("searchbox", name="Filter")
    filter_field.fill(f"word_embeddings {MINILM}")
    expect(table.locator("tbody tr")).to_have_count(1)
    assert "384" in column(table, SHAPE)[0]
    filter_field.fill("no such tensor")
    expect(table).to_contain_text("No tensor matches the filter.")
    filter_field.fill("")
    expect(table.locator("tbody tr")).to_have_count(25)


def test_tensors_are_paged(loaded: Tab, table: Locator) -> None:
    count = loaded.page.locator("#tensor-count")
    found = re.fullmatch(r"1 to 25 of (\d+) tensors", count.inner_text())
    assert found
    total = int(found[1])
    first = column(table, NAME)
    following = loaded.page.get_by_role("button", name="Next tensors")
    following.click()
    assert count.inner_text() == f"26 to {min(50, total)} of {total} tensors"
    assert column(table, NAME) != first
    while following.is_enabled():
        following.click()
    assert count.inner_text().endswith(f"to {total} of {total} tensors")
    expect(loaded.page.get_by_role("button", name="Previous tensors")).to_be_focused()
    while loaded.page.get_by_role("button", name="Previous tensors").is_enabled():
        loaded.page.get_by_role("button", name="Previous tensors").click()
    assert column(table, NAME) == first


def test_the_chart_is_drawn_and_described_in_words(loaded: Tab) -> None:
    loaded.show("memory")
    painted = loaded.evaluate(
        """() => { const canvas = document.querySelector("#chart canvas");
             const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
             let count = 0; for (let i = 3; i < data.length; i += 4) if (data[i] > 0) count += 1; return count; }"""
    )
    assert painted > 500
    expect(loaded.page.locator("#chart-now")).to_have_text(
        re.compile(
            r"Now: weights take 104\.5 MB, 257\.2 MB as separate copies; "
            r"everything on the device takes [\d.]+ MB\."
        )
    )


def test_parts_are_drawn_one_per_frame_in_their_latest_state(loaded: Tab) -> None:
    """Draws three parts that take longer than the budget of a frame; the first is requested twice."""
    frames = loaded.evaluate(
        """async () => {
             const { soon } = await import(new URL("frames.js", document.baseURI));
             const drawn = [];
             let frame = 0;
             const count = () => { frame += 1; requestAnimationFrame(count); };
             count();
             const draw = (name) => () => {
               drawn.push([name, frame]);
               for (const end = performance.now() + 6; performance.now() < end;);
             };
             await new Promise((done) => {
               for (const name of ["old a", "b", "a"]) soon(name.at(-1), draw(name));
               soon("c", () => { draw("c")(); done(); });
             });
             return drawn;
           }"""
    )
    assert [name for name, _ in frames] == ["a", "b", "c"]
    assert len({frame for _, frame in frames}) == 3
