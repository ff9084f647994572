"""Checkpoints of gigabytes in the demo page: the tab does not crash, and its process keeps none of the loaded bytes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench.memory import MB, OurTab
from bench.sizes import CASES, EVICTED, LOADING, Watch, measure
from scripts.browser import find_browser
from scripts.random_checkpoint import RandomCheckpoint
from scripts.serve import serve
from scripts.serve_checkpoints import with_random

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, Playwright

KEPT = 134  # MB that the process of the page may grow after it was ready: garbage of loads is collected late
SMALL = "bert-base,layers=3,vocab_size=8000,hidden_size=576,num_attention_heads=9,intermediate_size=2304"  # 67 MB


@pytest.fixture(scope="module")
def url(site_folder: Path) -> Iterator[str]:
    with serve(site_folder, wrap=with_random) as address:
        yield address


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_loads_evictions_and_restores_take_little_of_the_page(playwright: Playwright, url: str) -> None:
    """Run two models in turn under a limit that fits one: four times their bytes pass through the page's process."""
    found = find_browser()
    browser = playwright.chromium.launch(
        executable_path=found.path, args=list(found.flags), env={**found.environment()}
    )
    try:
        tab, watch = OurTab(browser, url, "webgpu"), Watch(browser)
        worth = RandomCheckpoint(SMALL).nbytes / MB
        python = tab.python
        limit = round(1.2 * worth * MB / 2**20)
        python(f"kind, dtype, limit, cache = 'webgpu', 'float32', {limit}, 'auto'\n{LOADING}\nNone")
        ready = watch.now()
        with watch.peak() as most:
            python(f"for seed in range(2): await load(f'{url}random/{SMALL},seed={{seed}}')")
            python("for model in models: await run(model)")
        restored = python("manager.get_stats()['restored_bytes']")
        assert isinstance(restored, int) and restored > 1.5 * worth * MB
        assert most["GPU"] > ready["GPU"] + 0.9 * worth  # the weights are on the device
        kept = most["renderer"] - ready["renderer"]
        print(f"{worth:.0f} MB models: {kept:.0f} MB more than when the page was ready, at most")
        assert kept <= KEPT, f"{kept:.0f} MB more than when the page was ready, with models of {worth:.0f} MB"
    finally:
        browser.close()


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_checkpoint_loads_runs_and_leaves_nothing(playwright: Playwright, url: str, case) -> None:
    found = find_browser()

    def launch(flags: Sequence[str] = ()) -> Browser:
        return playwright.chromium.launch(
            executable_path=found.path, args=[*found.flags, *flags], env={**found.environment()}
        )

    row = measure(case, launch, url)
    if row.get("error", "").startswith("not run"):
        pytest.skip(row["error"])
    assert "error" not in row, row["error"]
    ready = row["ready"]["renderer"]
    if case.kind == "webgpu":
        assert row["loaded"]["renderer"] < ready + KEPT and row["unloaded"]["renderer"] < ready + KEPT
    if case.recipe == EVICTED:
        assert all(taken["renderer"] < ready + KEPT for taken in row["rounds"].values())
    print(row)
