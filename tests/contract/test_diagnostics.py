"""``diagnostics`` in an interpreter that has opened no device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pyodide_pkg"


def test_diagnostics_without_an_open_device() -> None:
    code = "import tensorcommons; print(tensorcommons.diagnostics())"
    text = subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE, capture_output=True, text=True).stdout
    for part in ("tensorcommons ", "Python ", "NumPy ", "no device was opened", "no manager is open", "no storage"):
        assert part in text, text
