"""Devices in the page: in each available browser, switched while a model runs, and failing.

The faults are injected into the browser's own objects, before the first line of the worker.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from e2e.conftest import NO_OPTIMIZING
from e2e.page.driver import HEADS, SLOW, SPLADE, Tab, with_first_line
from scripts.browser import FLAGS, find_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Playwright

POLARITY = HEADS[2]
TITLES = {"webgpu": "WebGPU", "webnn": "WebNN", "cpu": "CPU"}
DEBIAN = shutil.which("chromium")
NO_WEBNN = "WebMachineLearningNeuralNetwork"
NO_WEBGPU = "WebGPU,WebGPUService"

WEBNN_GOES = """
const { dispatch } = MLContext.prototype;
MLContext.prototype.dispatch = function (...work) {
  if (Object.keys(work[1]).length < 4) return dispatch.apply(this, work); // the measurement that ranks devices
  ML.prototype.createContext = async () => { throw new DOMException("no context any more", "NotSupportedError"); };
  this.destroy();
  return dispatch.apply(this, work);
};
"""
WEBNN_HANGS = "ML.prototype.createContext = () => new Promise(() => {});"


@contextmanager
def page_in(playwright: Playwright, *, without: str = "", path: str | None = None) -> Iterator[Tab]:
    """Open a page in a separate browser that lacks the features ``without``."""
    found = find_browser()
    flags = [flag for flag in FLAGS if "webgpu" not in flag or NO_WEBGPU not in without]
    flags = [flag for flag in flags if NO_WEBNN not in flag or NO_WEBNN not in without]
    browser = playwright.chromium.launch(
        executable_path=path or found.path,
        args=[*flags, NO_OPTIMIZING, *([f"--disable-features={without}"] if without else [])],
        env=None if path else {**found.environment()},
        timeout=SLOW,
    )
    try:
        tab = Tab(browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce"))
        yield tab
        assert tab.errors == []
    finally:
        browser.close()


def states(tab: Tab) -> dict[str, str]:
    badges = tab.page.locator("#device-list li").all()
    return {str(badge.get_attribute("data-kind")): str(badge.get_attribute("data-state")) for badge in badges}


def badge(tab: Tab, kind: str) -> str:
    return tab.page.locator(f'#device-list [data-kind="{kind}"]').text_content() or ""


def chosen(tab: Tab) -> str:
    return str(tab.page.locator("#device-list [data-chosen]").get_attribute("data-kind"))


def stats(tab: Tab) -> str:
    return tab.panel("pair").locator('[data-role="stats"]').inner_text()


def device_of(tab: Tab, model_id: str) -> str:
    return tab.card(model_id).get_by_role("combobox").input_value()


def fastest(tab: Tab) -> str:
    """Return the device that "auto" takes by the measured times that the page shows; the CPU if there are none."""
    text = tab.page.locator("#decision").text_content() or ""
    measured = re.search(r"([\d.e+]+) ms for a product of matrices", text)
    if measured is None:
        return "cpu"
    times = {kind: float(time) for time, kind in re.findall(r"([\d.e+]+) on (webgpu|webnn|cpu)", text)}
    times[chosen(tab)] = float(measured[1])
    return next(kind for kind in ("webnn", "cpu", "webgpu") if times.get(kind, math.inf) <= 3 * min(times.values()))


def runs(tab: Tab, kind: str) -> None:
    """Assert that a model loads and runs on ``kind``."""
    tab.wait_card(POLARITY, "loaded")
    tab.wait_panel("pair")
    assert sum(tab.bars("polarity").values()) == pytest.approx(1, abs=0.002)
    assert f" on {TITLES[kind]} " in stats(tab)
    assert device_of(tab, POLARITY) == chosen(tab) == kind
    expect(tab.page.locator("#decision")).to_contain_text("Running on ")


@pytest.mark.parametrize(
    ("without", "path", "found", "reason"),
    [
        pytest.param(NO_WEBNN, None, {"webgpu": "software", "webnn": "missing"}, "navigator.ml", id="without WebNN"),
        pytest.param(
            NO_WEBGPU, None, {"webgpu": "missing", "webnn": "present"}, "asked to use the CPU", id="without WebGPU"
        ),
        pytest.param(
            "", DEBIAN, {"webgpu": "software", "webnn": "missing"}, "not supported on this platform",
            id="the system's Chromium",
            marks=pytest.mark.skipif(DEBIAN is None, reason="no chromium is installed; CI installs Debian's"),
        ),
        pytest.param(
            f"{NO_WEBGPU},{NO_WEBNN}", None, {"webgpu": "missing", "webnn": "missing"}, "navigator.ml", id="neither"
        ),
    ],
)  # fmt: skip
def test_each_browser_runs_on_its_best_device(
    playwright: Playwright, site: str, without: str, path: str | None, found: dict[str, str], reason: str
) -> None:
    with page_in(playwright, without=without, path=path) as tab:
        tab.open(site, load=POLARITY)
        tab.wait_card(POLARITY, "loaded")
        present = [kind for kind, state in found.items() if state != "missing"]
        runs(tab, fastest(tab))
        assert states(tab) == {**found, "cpu": "present"}
        assert reason in badge(tab, "webnn")
        if found["webnn"] == "missing":
            tab.show("devices")
            tab.page.get_by_text("What WebNN supports here").click()
            expect(tab.page.locator("#limits-about")).to_contain_text("WebNN is not available: ")
            assert reason in tab.page.locator("#limits-about").inner_text()
        for kind in ("webgpu", "webnn", "cpu"):
            assert len(badge(tab, kind).split()) > 2, "each device has a name, or the reason why it is missing"
        warning = tab.page.locator("#fallback")
        if present:
            expect(warning).to_be_hidden()
        else:
            expect(warning).to_contain_text("so models run on the CPU. A large model takes longer there")
            for way in ("chrome://flags", "Unsafe WebGPU Support", "WebNN API"):
                expect(warning).to_contain_text(way)


WATCH = """() => {
  const status = document.querySelector('#pair [data-role="status"]');
  window.said = [];
  const note = () => said.push(status.textContent);
  new MutationObserver(note).observe(status, {childList: true, characterData: true, subtree: true});
}"""


def test_a_first_run_shows_what_it_builds_and_a_loaded_model_is_switched_live_by_keyboard(tab: Tab, site: str) -> None:
    tab.open(site, load="none")
    assert states(tab) == {"webgpu": "software", "webnn": "present", "cpu": "present"}
    assert "asked to use the CPU" in badge(tab, "webnn")
    expect(tab.page.locator("#fallback")).to_be_hidden()
    tab.evaluate(WATCH)
    tab.run_on("webnn")
    tab.load(POLARITY)
    runs(tab, "webnn")
    tab.run_on("webgpu")
    expect(tab.page.locator("#per-model tbody")).to_contain_text("WebGPU")
    expect(tab.panel("pair").locator('[data-role="stats"]')).to_contain_text(" on WebGPU ")
    said = tab.evaluate("said")
    for words in (r"Building for WebNN: 0 of \d+ graphs…", r"Building for WebGPU: \d+ of \d+ kernels…"):
        assert any(re.fullmatch(words, text) for text in said), said
    assert "Running…" in said

    tab.run_on("auto")
    expect(tab.page.locator("#per-model tbody")).not_to_contain_text("WebGPU")
    tab.load(SPLADE)
    tab.wait_panel("pair")
    start = chosen(tab)
    assert start == fastest(tab)
    before, weights = tab.bars("polarity"), tab.figure("with-sharing")
    tab.show("models")
    switch = tab.page.get_by_role("combobox", name="Device of Polarity, on SPLADE-tiny")
    switch.focus()
    tab.page.keyboard.press("ArrowDown")
    row = tab.page.locator("#per-model tbody tr").filter(has_text="Polarity")
    expect(row).to_contain_text("CPU")
    expect(switch).to_be_focused()
    expect(tab.panel("pair").locator('[data-role="stats"]')).to_contain_text("CPU")
    tab.wait_panel("pair")
    assert tab.bars("polarity") == pytest.approx(before, abs=0.002)
    assert device_of(tab, SPLADE) == start, "the other model must stay, and shared weights must be on both devices"
    tab.wait_figure("with-sharing", f"value > {1.8 * weights}")

    tab.run_on("cpu")
    expect(tab.page.locator("#per-model tbody")).not_to_contain_text(TITLES[start])
    tab.wait_figure("with-sharing", f"value < {1.1 * weights}")
    assert chosen(tab) == "cpu"
    expect(tab.page.locator("#decision")).to_contain_text("Running on CPU: you chose it.")
    tab.run_on("auto")
    expect(tab.page.locator("#per-model tbody")).not_to_contain_text("CPU")
    assert chosen(tab) == start == device_of(tab, POLARITY)
    tab.wait_panel("pair")
    assert tab.bars("polarity") == pytest.approx(before, abs=0.002)


def test_a_forward_moves_to_the_next_device_when_its_device_is_lost(playwright: Playwright, site: str) -> None:
    with page_in(playwright) as tab:
        with_first_line(tab, WEBNN_GOES)
        tab.open(site, load="none")
        tab.run_on("webnn")
        tab.load(POLARITY)
        tab.wait_card(POLARITY, "loaded")
        tab.wait_panel("pair")
        next_kind = device_of(tab, POLARITY)  # by the measured times, which a busy machine changes
        assert f"finished on {next_kind}: webnn was lost (" in stats(tab)
        assert sum(tab.bars("polarity").values()) == pytest.approx(1, abs=0.002)
        assert states(tab) == {"webgpu": "software", "webnn": "lost", "cpu": "present"}
        lost = f"WebNN was lost. Its models continue on {TITLES[next_kind]}."
        expect(tab.page.locator("#fallback")).to_contain_text(lost)
        switch = tab.card(POLARITY).get_by_role("combobox")
        assert chosen(tab) == next_kind != "webnn"
        assert "webnn was lost" in str(switch.get_attribute("title"))

        switch.select_option("webnn")  # it is still missing
        told = re.compile("Not moved. The device is not available.*no context any more")
        expect(tab.card(POLARITY).get_by_role("alert")).to_contain_text(told)
        assert device_of(tab, POLARITY) == next_kind
        tab.show("pair")
        tab.type_and_wait("pair", tab.page.get_by_label("B, the hypothesis"), "The town is dry.")
        assert "lost" not in stats(tab)
        tab.unload(POLARITY)
        tab.wait_figure("with-sharing", "value === 0")


def test_a_run_is_repeated_after_the_gpu_process_is_killed(playwright: Playwright, site: str) -> None:
    """Chromium restarts its GPU process, and disables WebGPU after too many crashes."""
    with page_in(playwright) as tab:
        tab.open(site, load=POLARITY)
        tab.wait_panel("pair")
        wanted = tab.bars("polarity")
        tab.run_on("webgpu")
        expect(tab.page.locator("#per-model tbody")).to_contain_text("WebGPU")
        browser = tab.page.context.browser
        assert browser is not None
        asked = browser.new_browser_cdp_session()
        tab.wait_panel("pair")
        field, told = tab.page.get_by_label("B, the hypothesis"), ""
        first = field.input_value()
        for death in range(8):
            processes = asked.send("SystemInfo.getProcessInfo")["processInfo"]
            tab.type_until_running("pair", field, f"{first} {death}")
            for process in processes:
                if process["type"] == "GPU":
                    os.kill(process["id"], signal.SIGKILL)
            tab.wait_panel("pair")
            told += stats(tab)
            if states(tab)["webgpu"] == "lost":
                break
            tab.type_and_wait("pair", field, f"{first} {death} again")
            told += stats(tab)
        assert "webgpu was lost" in told
        tab.type_and_wait("pair", field, first)
        assert tab.bars("polarity") == pytest.approx(wanted, abs=0.002)
        assert f" on {TITLES[device_of(tab, POLARITY)]} " in stats(tab)


def test_a_context_that_never_opens_is_replaced_after_a_timeout(tab: Tab, site: str) -> None:
    with_first_line(tab, WEBNN_HANGS)
    tab.open(site, load=POLARITY)
    tab.wait_card(POLARITY, "loaded")
    runs(tab, fastest(tab))
    assert "the browser did not answer within" in badge(tab, "webnn")
