"""Cases of the ops on Deno's own WebGPU: wgpu, another implementation and shader compiler than Chromium's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from scripts import hosts, paths
from tensorcommons.ops.registry import OPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Elementwise ops share a kernel; these have the most WGSL of their own.
ELEMENTWISE = ("cast", "where", "floor_divide", "pow", "atan2", "bitwise_left_shift", "erf", "gelu")
CASES = [f"conformance.op_{op.name}" for op in OPS.values() if op.name in ELEMENTWISE or not op.elementwise]


def test_cases_of_ops(
    installed: Path, run: Callable[..., str], tmp_path: Path, site_folder: Path, manifest: dict[str, Any]
) -> None:
    pyodide = site_folder / "vendor" / "pyodide"
    wheels = [
        next(pyodide.glob("numpy-*.whl")),
        *(site_folder / name for name in [*manifest["chat"], manifest["wheel"]]),
    ]
    layout = {"pyodide": pyodide, "wheels": wheels, "python": paths.ROOT, "models": paths.MODELS}
    (tmp_path / "layout.json").write_text(json.dumps(layout, default=str))
    runner = paths.ROOT / "bench" / "dawn.mjs"
    command = [hosts.DENO, "run", "--allow-all", "--no-config", runner, "--cases", *CASES]
    printed = run(command, BENCH_LAYOUT=str(tmp_path / "layout.json"))
    assert re.search(rf"^{len(CASES)} run, 0 failed$", printed, re.MULTILINE), printed
