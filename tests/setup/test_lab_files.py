"""The files that the lab page unpacks for Python are all that they import: no others of the checkout are there."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from e2e.lab import files
from scripts.paths import PACKAGE

IMPORT_EACH = """
import importlib, pathlib
for path in sorted(pathlib.Path("tests").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts))
"""


def test_the_lab_packs_all_that_its_cases_import(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(files())) as archive:
        archive.extractall(tmp_path)
    found = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{PACKAGE.parent}", "PYTHONSAFEPATH": "1"}
    subprocess.run([sys.executable, "-c", IMPORT_EACH], cwd=tmp_path, check=True, env=found)
