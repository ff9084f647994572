"""The page in other engines than Chromium.

It runs on the devices that each engine has, answers, can be used by keyboard, and keeps files where the engine can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.engines.engine import ENGINES
from e2e.engines.tab import Tab
from scripts.paths import MODELS
from scripts.serve import serve

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.engines.conftest import Server
    from e2e.engines.protocols import Session

POLARITY = "splade-tiny-polarity"
WEIGHTS = (MODELS / POLARITY / "model.safetensors").stat().st_size
BOOTED = "() => ['ready', 'failed'].includes(document.body.dataset.state) && document.body.dataset.state"
CARD = '(id) => document.querySelector(`[data-model-id="${id}"]`).dataset.state'
LOADED = f"(id) => ['loaded', 'error'].includes(({CARD})(id)) && ({CARD})(id)"
TEXT = "(selector) => document.querySelector(selector).innerText"
SETTLED = """() => { const { state } = document.getElementById("pair").dataset;
  return ["done", "error"].includes(state) && state; }"""
SHARES = """() => { const sentences = [...document.querySelectorAll('[data-part="polarity"] .bars')];
  return sentences.length && [...sentences.at(-1).querySelectorAll(".num")].map((bar) => Number(bar.textContent)); }"""
STORAGE = "() => document.getElementById('storage').textContent"  # in a view that may be hidden
STORES = "() => Boolean(navigator.storage?.getDirectory)"
DEVICES = """() => { const badges = [...document.querySelectorAll("#devices [data-kind]")];
  return badges.every((badge) => badge.dataset.state !== "checking")
    && Object.fromEntries(badges.map((badge) => [badge.dataset.kind, badge.dataset.state])); }"""


ADVICE = {"firefox": "dom.webgpu.enabled", "webkitgtk": "WebKitGTK"}


def answers(tab: Tab) -> list[float]:
    """Wait for the model and the panel, and return the shares of the labels."""
    assert tab.wait(LOADED, POLARITY) == "loaded", tab.evaluate(TEXT, "#cards")
    assert tab.wait(SETTLED) == "done", tab.evaluate(TEXT, "#pair")
    shares: list[float] = tab.evaluate(SHARES)  # drawn before the state changes
    assert sum(shares) == pytest.approx(1, abs=0.002), tab.evaluate(TEXT, "#pair")
    return shares


def start(tab: Tab, url: str, load: str) -> None:
    """Open the page and wait until Python runs."""
    tab.open(f"{url}?load={load}")
    assert tab.wait(BOOTED) == "ready", tab.evaluate(TEXT, "#boot-failed")


def show(tab: Tab, view: str) -> None:
    tab.evaluate(f"() => {{ location.hash = '{view}'; }}")
    tab.wait(f"() => document.activeElement.id === '{view}-title'")


@pytest.mark.parametrize("name", ["firefox", "firefox-webgpu", "webkitgtk"], indirect=True)
def test_a_model_is_loaded_and_asked_by_keyboard(name: str, server: Server, tab: Tab) -> None:
    start(tab, server.url, "none")
    states = tab.wait(DEVICES)
    assert {kind for kind, state in states.items() if state != "missing"} == {*ENGINES[name].devices, "cpu"}, states
    advice = tab.evaluate(TEXT, "#fallback")
    assert ADVICE[name] in advice if name in ADVICE else not advice

    show(tab, "models")
    tab.evaluate(f"""() => document.querySelector('[data-model-id="{POLARITY}"] [data-role="toggle"]').focus()""")
    tab.press("Enter")
    show(tab, "pair")
    first = answers(tab)
    tab.evaluate("() => { document.getElementById('premise').focus(); }")
    tab.press("Tab", "End", *" Not.")
    assert tab.evaluate("() => document.activeElement.id") == "hypothesis"
    tab.wait("() => document.getElementById('hypothesis').value.endsWith('flooded. Not.')")
    tab.wait(f"(before) => ({SETTLED})() && String(({SHARES})()) !== String(before)", first)
    assert sum(answers(tab)) == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize("name", ["firefox", "webkitgtk"], indirect=True)
def test_weights_are_kept_where_the_engine_stores_files_and_two_tabs_share_them(
    session: Session, server: Server, tab: Tab
) -> None:
    start(tab, server.url, POLARITY)
    first = answers(tab)
    assert server.sent >= WEIGHTS
    if not tab.evaluate(STORES):
        assert tab.wait(STORAGE).startswith("This browser keeps no files")
        return
    notice = tab.evaluate(STORAGE)
    assert not notice.startswith("This browser keeps no files"), notice

    server.sent = 0
    other = Tab(session)
    start(other, server.url, POLARITY)
    assert answers(other) == first
    other.close()
    start(tab, server.url, POLARITY)
    assert answers(tab) == first
    assert server.sent == 0, f"{server.sent} bytes were downloaded again"


@pytest.mark.parametrize(
    ("name", "notice"),
    [
        ("firefox-private", "This browser keeps no files"),
        ("firefox-full", "The browser's storage is full"),
    ],
    indirect=["name"],
)
def test_the_page_works_and_says_so_where_files_cannot_be_kept(server: Server, tab: Tab, notice: str) -> None:
    start(tab, server.url, POLARITY)
    first = answers(tab)
    assert tab.wait(STORAGE).startswith(notice), tab.evaluate(STORAGE)
    server.sent = 0
    start(tab, server.url, POLARITY)
    assert answers(tab) == first
    assert server.sent > 0.9 * WEIGHTS


INLINE = """() => { const script = document.createElement("script"); script.textContent = "window.ran = true";
  document.head.append(script); return Boolean(window.ran); }"""


@pytest.mark.parametrize("name", ["firefox"], indirect=True)
def test_a_second_visit_needs_no_network(session: Session, site_folder: Path) -> None:
    tab = Tab(session)
    with serve(site_folder) as url:
        start(tab, url, "none")
        tab.wait("() => navigator.serviceWorker.ready.then(({ active }) => active.state === 'activated')")
    start(tab, url, "none")  # nothing serves it now
    assert tab.evaluate("() => Boolean(navigator.serviceWorker.controller)")
    tab.close()


@pytest.mark.parametrize("name", ["firefox", "webkitgtk"], indirect=True)
def test_the_policy_refuses_inline_scripts(session: Session, server: Server) -> None:
    tab = Tab(session).open(f"{server.url}?load=none")
    assert tab.evaluate(INLINE) is False
    tab.wait("async () => (await (await fetch('complaints')).text()).includes('script-src')")
    tab.close()
