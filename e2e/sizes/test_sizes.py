"""Checkpoints of gigabytes in the demo page: no dead tab, and the page's process keeps none of what was loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.sizes import CASES, EVICTED, measure
from scripts.browser import find_browser
from scripts.serve import serve
from scripts.serve_checkpoints import with_random

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, Playwright

KEPT = 100  # MB that the page's process may have more than when it was ready


@pytest.fixture(scope="module")
def url(site_folder: Path) -> Iterator[str]:
    with serve(site_folder, wrap=with_random) as address:
        yield address


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
