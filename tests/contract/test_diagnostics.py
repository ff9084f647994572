"""``diagnostics`` in an interpreter that has opened no device."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import tensorcommons

PACKAGE = Path(__file__).parents[2] / "pyodide_pkg"


def test_diagnostics_without_an_open_device() -> None:
    code = "import tensorcommons; print(tensorcommons.diagnostics())"
    text = subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE, capture_output=True, text=True).stdout
    for part in ("tensorcommons ", "Python ", "NumPy ", "no device is open", "no manager is open", "no storage"):
        assert part in text, text


async def test_devices_of_one_kind_are_numbered_and_closed_ones_left_out() -> None:
    gc.collect()
    opened = [await tensorcommons.open_devices(prefer=["cpu"]) for _ in range(2)]
    lines = [line for line in tensorcommons.diagnostics().splitlines() if line.startswith("cpu: ")]
    assert len(lines) >= 2
    for number, line in enumerate(lines, 1):
        assert line.endswith(f", {number} of {len(lines)} of this kind")
    for devices in opened:
        devices.close()
    assert tensorcommons.diagnostics().count("\ncpu: ") == len(lines) - 2
