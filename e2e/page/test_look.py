"""Layout and accessibility: nothing wider than the screen, enough contrast in light and dark, names of controls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import pytest
from playwright.sync_api import expect

from scripts import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.page.driver import Tab

OPS = paths.ROOT / "docs" / "ops.md"
WIDTHS = (360, 768, 1024, 1152, 1280, 1440, 1920)
LOOKS = [(width, scheme) for width in WIDTHS for scheme in ("light", "dark")]


@pytest.fixture
def restore(loaded: Tab) -> Iterator[None]:
    yield
    loaded.page.set_viewport_size({"width": 1440, "height": 900})
    loaded.page.emulate_media(color_scheme="light")


@pytest.mark.usefixtures("restore")
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_width_and_colour_scheme(
    loaded: Tab, artefacts: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = loaded.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        "() => { const chart = document.querySelector('#chart .uplot'), place = document.getElementById('chart');"
        " return Math.abs(chart.clientWidth - place.clientWidth) <= 1; }"
    )
    page.screenshot(path=artefacts / f"page-{width}-{scheme}.png", full_page=True)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=artefacts / f"page-{width}-{scheme}-first-screen.png")
    assert loaded.check("overflowing") == []
    assert loaded.check("lowContrast") == []
    if width >= 768:
        assert loaded.check("cut") == []


def test_every_control_has_a_name(loaded: Tab) -> None:
    assert loaded.check("unnamed") == []


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
    assert loaded.check("unnamed") == []
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


def test_a_chosen_theme_is_kept(tab: Tab, site: str) -> None:
    tab.page.emulate_media(color_scheme="light")
    tab.page.goto(f"{site}?load=none")  # without waiting for Python
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = tab.evaluate(background)
    toggle = tab.page.locator("#theme")
    expect(toggle).to_have_text("Use dark theme")
    toggle.click()
    expect(toggle).to_have_text("Use light theme")
    dark = tab.evaluate(background)
    assert dark != light
    tab.page.reload()
    expect(toggle).to_have_text("Use light theme")
    assert tab.evaluate(background) == dark
    toggle.click()
    assert tab.evaluate(background) == light
    assert tab.evaluate("localStorage.length") == 0, "the theme of the system must store nothing"


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


def test_motion_is_reduced_on_request(loaded: Tab) -> None:
    assert loaded.evaluate("getComputedStyle(document.querySelector('.seg')).transitionDuration") in ("0s", "")
    running = "document.getElementById('sentences').dataset.state = 'running'"
    loaded.evaluate(f"() => {{ {running}; }}")
    assert loaded.evaluate("getComputedStyle(document.getElementById('sentences'), '::before').animationName") == "none"
    loaded.evaluate(f"() => {{ {running.replace('running', 'done')}; }}")
