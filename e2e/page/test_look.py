"""Layout and accessibility of every view: nothing wider than the screen or cut off, and axe-core finds nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import pytest
from playwright.sync_api import expect

from e2e.page.driver import Tab
from scripts import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPS = paths.ROOT / "docs" / "ops.md"
WIDTHS = (360, 390, 768, 1024, 1152, 1440, 1920)
LOOKS = [(width, scheme) for width in WIDTHS for scheme in ("light", "dark")]
AUDITED = (390, 1440)  # a narrow layout and a wide one
LONG_WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
RIGHT_TO_LEFT = "تعلّم الآلة يعمل داخل المتصفح دون أن يغادره أي نص."


@pytest.fixture
def restore(loaded: Tab) -> Iterator[None]:
    yield
    loaded.page.set_viewport_size({"width": 1440, "height": 900})
    loaded.page.emulate_media(color_scheme="light")


def views(tab: Tab) -> list[str]:
    return [str(link.get_attribute("href")).removeprefix("#") for link in tab.page.locator("#views a").all()]


@pytest.mark.usefixtures("restore")
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_view_at_every_width_in_both_colour_schemes(
    loaded: Tab, artefacts: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = loaded.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for view in views(loaded):
        loaded.show(view)
        if view == "memory":
            page.wait_for_function(
                "() => { const place = document.getElementById('chart');"
                " return Math.abs(place.querySelector('.uplot').clientWidth - place.clientWidth) <= 1; }"
            )
        page.screenshot(path=artefacts / f"{view}-{width}-{scheme}.png", full_page=True)
        assert loaded.check("overflowing") == [], view
        if width >= 768:
            assert loaded.check("cut") == [], view
        if width in AUDITED:
            assert loaded.audit() == [], view
    if width <= 900:
        page.locator("#memory-toggle").click()
        page.screenshot(path=artefacts / f"drawer-{width}-{scheme}.png")
        assert loaded.check("overflowing") == []
        if width in AUDITED:
            assert loaded.audit() == []
        page.keyboard.press("Escape")
        expect(page.locator("#memory-body")).to_be_hidden()
        expect(page.locator("#memory-toggle")).to_be_focused()


@pytest.mark.usefixtures("restore")
def test_twelve_sentences_with_a_long_word_and_right_to_left_text_fit_on_the_screen(
    loaded: Tab, artefacts: Path
) -> None:
    """Twelve is the maximum of the panel; numbers are not cut, only the sentences beside them."""
    add = loaded.panel("sentences").get_by_role("button", name="Add a sentence")
    for number in range(4, 13):
        add.click()
        text = {4: LONG_WORD, 5: RIGHT_TO_LEFT}.get(number, f"Sentence number {number} is about the weather.")
        loaded.sentence(number).fill(text)
    expect(add).to_be_disabled()
    expect(loaded.page.locator("#sentences table.matrix tbody tr")).to_have_count(12)
    loaded.wait_panel("sentences")
    for width in WIDTHS:
        loaded.page.set_viewport_size({"width": width, "height": 900})
        loaded.page.screenshot(path=artefacts / f"twelve-{width}.png", full_page=True)
        assert loaded.check("overflowing") == []
        if width >= 768:
            assert loaded.check("cut") == []
    for number in range(12, 2, -1):
        loaded.page.get_by_role("button", name=f"Remove sentence {number}", exact=True).click()
    expect(loaded.page.locator("#sentences table.matrix tbody tr")).to_have_count(2)
    loaded.wait_panel("sentences")
    loaded.page.screenshot(path=artefacts / f"two-{WIDTHS[-1]}.png")
    add.click()
    loaded.type_and_wait("sentences", loaded.sentence(3), "The cat sleeps on the warm windowsill.")


@pytest.mark.usefixtures("restore")
def test_supported_ops_of_webnn_are_those_of_its_context(loaded: Tab, artefacts: Path) -> None:
    loaded.page.set_viewport_size({"width": 360, "height": 800})
    loaded.show("devices")
    summary = loaded.page.locator("#limits summary")
    summary.focus()
    loaded.page.keyboard.press("Enter")
    table = loaded.page.get_by_role("table", name="Operations of WebNN")
    expect(table.get_by_role("rowheader").first).to_be_visible()
    said = loaded.evaluate(
        """async () => {
             const limits = (await navigator.ml.createContext({deviceType: "cpu"})).opSupportLimits();
             return Object.entries(limits).filter(([, limit]) => typeof limit === "object").map(([name, limit]) =>
               [name, [limit, ...Object.values(limit)].flatMap((each) => each.dataTypes ?? [])]);
           }"""
    )
    shown: dict[str, str] = {}
    for row in table.locator("tbody tr").all_inner_texts():
        name, _, rest = row.partition("\t")
        shown[name] = shown.get(name, "") + rest
    assert len(shown) == len(said) > 90
    for name, dtypes in said:
        assert all(dtype in shown[name] for dtype in dtypes), name
    refused = loaded.page.get_by_role("table", name="Ops of tensorcommons that WebNN refuses here")
    wanted = re.findall(r"`(\w+)` \(([^)]*)\)", OPS.read_text("utf-8").partition("## What WebNN refuses")[2])
    found = [tuple(row.split("\t")[:2]) for row in refused.locator("tbody tr").all_inner_texts()]
    assert sorted(found) == sorted(wanted), "as in docs/ops.md, with the limits of this browser"
    assert loaded.check("overflowing") == []
    assert loaded.audit() == []
    loaded.page.screenshot(path=artefacts / "limits-360.png")

    loaded.page.keyboard.press("Tab")
    expect(loaded.page.locator("#limits-filter")).to_be_focused()
    loaded.page.keyboard.type("softmax float16")
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(loaded.page.locator("#limits-about")).to_contain_text("1 row of ")
    loaded.page.keyboard.press("Tab")
    assert loaded.check("focusSeen")["seen"]
    loaded.page.locator("#limits-filter").fill("")
    summary.click()


def test_the_first_screen_and_a_chosen_theme(tab: Tab, site: str, artefacts: Path) -> None:
    tab.page.emulate_media(color_scheme="light")
    tab.page.goto(f"{site}?load=none")  # without waiting for Python
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = tab.evaluate(background)
    toggle = tab.page.locator("#theme")
    expect(toggle).to_have_text("Use dark theme")
    tab.page.screenshot(path=artefacts / "start-1280-light.png")
    expect(tab.page.locator("#figures")).to_be_hidden()  # no zeros
    assert tab.audit() == []
    toggle.click()
    expect(toggle).to_have_text("Use light theme")
    dark = tab.evaluate(background)
    assert tab.audit() == []
    assert dark != light
    tab.page.reload()
    expect(toggle).to_have_text("Use light theme")
    assert tab.evaluate(background) == dark
    toggle.click()
    assert tab.evaluate(background) == light
    assert tab.evaluate("localStorage.length") == 0, "the theme of the system must store nothing"


def test_a_result_that_replaces_the_focused_button_hands_on_the_focus_visibly(tab: Tab, site: str) -> None:
    tab.open(site)
    tab.panel("pair").get_by_role("button", name="Load SPLADE-tiny term weights").focus()
    tab.page.keyboard.press("Shift")
    tab.evaluate("""() => document.querySelector('[data-model-id="splade-tiny"] [data-role="toggle"]').click()""")
    expect(tab.page.locator("#pair h2")).to_be_focused()
    assert tab.check("focusSeen") == {"seen": True, "what": "pair-title"}
    tab.unload_all()


def test_the_page_works_with_the_keyboard_alone(tab: Tab, site: str) -> None:
    """Use the skip link, load a model, change a text and sort a column without a pointer, with visible focus."""
    tab.open(site)
    keyboard = tab.page.keyboard
    keyboard.press("Tab")
    skip = tab.page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    keyboard.press("Enter")
    expect(tab.page.locator("#main")).to_be_focused()

    tab.card("splade-tiny").get_by_role("button", name="Load").focus()
    keyboard.press("Enter")
    tab.wait_card("splade-tiny", "loaded")
    expect(tab.card("splade-tiny").locator('[data-role="toggle"]')).to_be_focused()

    link = tab.page.get_by_role("link", name="Pair", exact=True)
    link.focus()
    keyboard.press("Enter")
    expect(tab.page.locator("#pair h2")).to_be_focused()
    tab.page.get_by_label("A, the premise").focus()
    keyboard.press("End")
    keyboard.type(" And the bridge fell.")
    keyboard.press("Tab")
    expect(tab.page.get_by_label("B, the hypothesis")).to_be_focused()

    seen = set()
    for _ in range(200):
        keyboard.press("Tab")
        place = tab.check("focusSeen")
        assert place["seen"], f"focus cannot be seen on {place['what']}"
        if place["what"] == "theme" and "theme" in seen:
            break
        seen.add(place["what"])
    assert {"premise", "theme", "Memory"} <= seen

    tab.show("memory")
    header = tab.page.get_by_role("columnheader", name="Name")
    header.get_by_role("button").focus()
    keyboard.press("Space")
    expect(header).to_have_attribute("aria-sort", "ascending")

    tab.page.goto(site)  # as a reload, without a choice of models
    tab.wait_booted()
    expect(tab.page.locator("#memory")).to_be_visible()
    tab.wait_card("splade-tiny", "loaded")
    expect(tab.page.get_by_role("heading", name="Models: 1 of 9 loaded")).to_be_visible()
    tab.show("pair")
    expect(tab.page.get_by_label("A, the premise")).to_have_value(re.compile(" And the bridge fell.$"))


def test_motion_is_reduced_on_request(loaded: Tab) -> None:
    assert loaded.evaluate("getComputedStyle(document.querySelector('.seg')).transitionDuration") in ("0s", "")
    running = "document.getElementById('sentences').dataset.state = 'running'"
    loaded.evaluate(f"() => {{ {running}; }}")
    assert loaded.evaluate("getComputedStyle(document.getElementById('sentences'), '::before').animationName") == "none"
    loaded.evaluate(f"() => {{ {running.replace('running', 'done')}; }}")
