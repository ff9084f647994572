"""The table of sizes, and the peak memory of watched processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench.sizes import CASES, Watch, available, sizes_table
from scripts.random_checkpoint import RandomCheckpoint


class Browser:
    """Browser whose renderer is this process."""

    def new_browser_cdp_session(self) -> Browser:
        return self

    def send(self, _: str) -> dict[str, Any]:
        return {"processInfo": [{"type": "renderer", "id": os.getpid()}, {"type": "browser", "id": 1}]}


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the figures are Linux's")
def test_the_peak_is_the_largest_sample():
    watch = Watch(Browser())  # type: ignore[arg-type]
    before = watch.now()["renderer"]
    with watch.peak() as most:
        block: bytearray | None = bytearray(os.urandom(1 << 20) * 64)
        while most["renderer"] < before + 60:
            pass
        block = None
    assert block is None and most["renderer"] >= before + 60 and most["GPU"] == 0
    assert available() > 0


def test_the_table_has_a_row_for_each_case():
    taken = {"renderer": 150.4, "GPU": 1300.6}
    row = {"recipe": "bert-large", "kind": "webgpu", "mb": 1336.4, "load_s": 5.04, "second_s": 0.5}
    row |= dict.fromkeys(("ready", "peak", "loaded", "unloaded"), taken)
    failed = {"recipe": "llama-1b", "kind": "webnn", "mb": 2471.6, "error": "Target crashed"}
    lines = sizes_table([row, {**row, "rounds": {1: taken}}, failed]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| bert-large, 1,336 MB, webgpu | 5.0 | 0.5" + " | 150 + 1,301" * 4 + " |"
    assert "3 in turn under 200 MB" in lines[3] and "1: 150 + 1,301" in lines[4] and "Target crashed" in lines[6]


def test_the_cases_are_known_checkpoints_of_the_stated_sizes():
    sizes = [round(RandomCheckpoint(case.recipe).nbytes / 1e8) for case in CASES if case.kind == "webgpu"]
    assert sizes == [3, 13, 25, 64, 2, 23]
