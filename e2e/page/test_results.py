"""Results of the models for text as it is typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from e2e.page.driver import HEADS, Tab

if TYPE_CHECKING:
    from playwright.sync_api import Locator

LABELS = {
    "nli": {"entailment", "neutral", "contradiction"},
    "relevance": {"relevant", "irrelevant"},
    "polarity": {"affirmed", "negated", "uncertain"},
    "relation-type": {"causal", "temporal", "spatial", "attributive", "none"},
}
TERMS_A = '[data-part="terms"] .each:first-child'


@pytest.fixture
def hypothesis(loaded: Tab) -> Locator:
    return loaded.panel("pair").get_by_label("B, the hypothesis")


def test_similarity_is_a_matrix_with_ones_on_its_diagonal(loaded: Tab) -> None:
    matrix = loaded.similarity()
    assert [len(row) for row in matrix] == [3, 3, 3]
    assert [matrix[i][i] for i in range(3)] == [1, 1, 1]
    assert all(matrix[i][j] == matrix[j][i] for i in range(3) for j in range(3))
    assert matrix[0][1] > matrix[0][2], "two sentences about Python must be closer than one about a cat"
    table = loaded.panel("sentences").get_by_role("table", name="Cosine similarity of each sentence with each other")
    assert table.get_by_role("rowheader").count() == table.get_by_role("columnheader").count() == 3


def test_typing_changes_the_numbers(loaded: Tab) -> None:
    before = loaded.similarity()
    loaded.type_and_wait("sentences", loaded.sentence(3), "I write Python programs for data analysis.")
    after = loaded.similarity()
    assert after[0][2] > before[0][2]
    assert after[0][1] == pytest.approx(before[0][1], abs=0.002), "the other pair may not change"


def test_the_skill_probability_of_each_sentence_is_shown(loaded: Tab) -> None:
    skill = loaded.bars("skill")
    assert list(skill) == ["1", "2", "3"]
    assert all(0 <= value <= 1 for value in skill.values())


def test_rows_can_be_added_and_removed(loaded: Tab) -> None:
    loaded.panel("sentences").get_by_role("button", name="Add a sentence").click()
    expect(loaded.sentence(4)).to_be_focused()
    loaded.type_and_wait("sentences", loaded.sentence(4), "Ein Satz mit Umlauten: für Äpfel.")
    assert len(loaded.similarity()) == 4
    loaded.page.get_by_role("button", name="Remove sentence 4").click()
    expect(loaded.page.locator("#sentences table.matrix tbody tr")).to_have_count(3)
    loaded.wait_panel("sentences")


def test_an_empty_row_is_ignored_with_a_note(loaded: Tab) -> None:
    text = loaded.sentence(2).input_value()
    loaded.type_and_wait("sentences", loaded.sentence(2), "   ")
    expect(loaded.panel("sentences")).to_contain_text("Sentence 2 is empty and left out.")
    assert len(loaded.similarity()) == 2
    assert loaded.page.locator("#sentences thead th").all_inner_texts() == ["1", "3"]
    loaded.type_and_wait("sentences", loaded.sentence(2), text)
    expect(loaded.panel("sentences")).not_to_contain_text("left out")


def test_without_text_a_hint_is_shown_instead_of_an_error(loaded: Tab, hypothesis: Locator) -> None:
    text = hypothesis.input_value()
    loaded.type_and_wait("pair", hypothesis, "", state="empty")
    expect(loaded.panel("pair")).to_contain_text("Type both sentences to see results.")
    expect(loaded.panel("pair").get_by_role("alert")).to_be_empty()
    loaded.type_and_wait("pair", hypothesis, text)
    assert loaded.bars("nli")


def test_ten_thousand_characters_are_truncated_with_a_note(loaded: Tab, hypothesis: Locator) -> None:
    text = hypothesis.input_value()
    loaded.type_and_wait("pair", hypothesis, ("The old town was flooded by the river. " * 300)[:10_000])
    expect(loaded.panel("pair")).to_contain_text("tokens; the model reads the first 512")
    assert sum(loaded.bars("nli").values()) == pytest.approx(1, abs=0.002)
    loaded.type_and_wait("pair", hypothesis, text)
    expect(loaded.panel("pair")).not_to_contain_text("reads the first")


def test_each_head_shows_its_labels(loaded: Tab) -> None:
    for head, labels in LABELS.items():
        for index in range(loaded.page.locator(f'[data-part="{head}"] .bars').count()):
            scores = loaded.bars(head, index)
            assert set(scores) == labels
            assert list(scores.values()) == sorted(scores.values(), reverse=True)
            assert sum(scores.values()) == pytest.approx(1, abs=0.003)
    assert [loaded.page.locator(f'[data-part="{head}"] .bars').count() for head in LABELS] == [1, 1, 2, 2]


def test_at_most_twenty_sorted_terms_are_shown(loaded: Tab) -> None:
    for index in (0, 1):
        weights = list(loaded.bars("terms", index).values())
        assert 1 <= len(weights) <= 20
        assert weights == sorted(weights, reverse=True)
        assert min(weights) >= 0


def test_the_results_of_the_latest_text_are_shown(loaded: Tab, hypothesis: Locator) -> None:
    """Types three texts, each as soon as the previous run has begun: the terms of the last one are shown."""
    first = hypothesis.input_value()
    for text in ("Snow fell on the mountains.", "The market was closed.", "Music filled the harbour."):
        loaded.type_until_running("pair", hypothesis, text)
    loaded.wait_panel("pair")
    terms = loaded.bars("terms", 1)
    assert "harbour" in terms or "music" in terms or "harbor" in terms
    assert "snow" not in terms
    loaded.type_and_wait("pair", hypothesis, first)


def test_a_run_can_be_cancelled_and_the_next_one_works(loaded: Tab) -> None:
    field = loaded.sentence(1)
    text = field.input_value()
    cancel = loaded.panel("sentences").get_by_role("button", name="Cancel the run", include_hidden=True)
    cancel.evaluate(  # as soon as it appears, because a run may end before a pointer reaches it
        """(button) => new MutationObserver((_, observer) => {
             if (!button.hidden) { observer.disconnect(); button.click(); }
           }).observe(button, { attributeFilter: ["hidden"] })"""
    )
    field.fill(" ".join(["A long sentence makes a slow run."] * 60))
    loaded.wait_panel("sentences", "cancelled")
    expect(cancel).to_be_hidden()
    expect(loaded.panel("sentences").get_by_role("status").first).to_have_text("Cancelled")
    loaded.type_and_wait("sentences", field, text)
    assert loaded.similarity()[0][0] == 1


def test_the_page_shows_the_cost_of_a_run(loaded: Tab) -> None:
    for panel in ("sentences", "pair"):
        stats = loaded.panel(panel).locator('[data-role="stats"]')
        words = stats.locator("p").inner_text()
        assert " on WebNN " in words, "without a hardware GPU, WebNN must be chosen"
        assert " dispatch" in words
        parts = [int(number.replace(",", "")) for number in stats.locator("b").all_inner_texts()]
        (total,) = re.findall(r"([\d,]+) operations", words)
        assert sum(parts) == int(total.replace(",", "")), "shared, reused and computed"
        print(f"\n{panel}: {' '.join(stats.inner_text().split())}")


def test_a_run_redraws_only_what_changed(loaded: Tab) -> None:
    loaded.show("sentences")
    before = loaded.page.locator("#chart-now").text_content()
    loaded.evaluate(
        """() => {
             const parts = "#tensor-table tbody tr, #per-model tr, #stack > i, .legend li, #families button";
             window.rows = [...document.querySelectorAll(parts)];
             window.reports = 0;
             const seen = new MutationObserver(() => { window.reports += 1; });
             seen.observe(document.getElementById("chart-now"), {childList: true, characterData: true, subtree: true});
           }"""
    )
    loaded.type_and_wait("sentences", loaded.sentence(1), "She designs data pipelines in SQL and in Python. " * 6)
    loaded.page.wait_for_function("() => window.reports > 0")  # the run left more than before
    assert loaded.page.locator("#chart-now").text_content() != before
    assert loaded.evaluate("() => rows.length > 40 && rows.every((row) => row.isConnected)")


def test_a_panel_without_its_model_offers_to_load_it(loaded: Tab) -> None:
    loaded.unload(HEADS[2])
    loaded.wait_panel("pair")
    expect(loaded.page.locator('[data-part="polarity"]')).to_contain_text("to see this")
    assert loaded.bars("nli")
    loaded.load(HEADS[2])
    loaded.wait_panel("pair")
    expect(loaded.page.locator('[data-part="polarity"] .bars')).to_have_count(2)


def test_the_shown_program_runs_and_its_wheel_is_there(loaded: Tab) -> None:
    loaded.show("use")
    shown = loaded.page.locator("#use").get_by_label("Python program", exact=True)
    expect(shown).to_contain_text("import tensorcommons")
    install, _, program = shown.inner_text().partition("\n\n")
    wheel = re.findall(r'"(http.*\.whl)"', install)
    assert loaded.page.request.get(wheel[0]).ok
    said = loaded.python(
        program.replace("print(", "said.append(").join(["said = []\n", "\nmanager.close()\nreturn said"])
    )
    assert said[0]["dims"] == [2, 2] and said[1] == 0
    for link in loaded.page.locator("#use .links a").all():
        assert loaded.page.request.get(str(link.evaluate("(link) => link.href"))).ok
