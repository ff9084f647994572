"""Packed files of the cases: all that the cases import, because other machines have no checkout."""

from __future__ import annotations

import subprocess
import sys
from shutil import copyfile
from typing import TYPE_CHECKING

from scripts.case_files import case_files
from scripts.paths import PACKAGE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

IMPORT_EACH = """
import importlib, pathlib
for path in sorted(pathlib.Path("tests").rglob("*.py")):
    importlib.import_module(".".join(path.with_suffix("").parts))
"""


def test_cases_import_only_what_is_packed_with_them(tmp_path: Path) -> None:
    for path in case_files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        copyfile(path, target)
    found = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{PACKAGE.parent}", "PYTHONSAFEPATH": "1"}
    subprocess.run([sys.executable, "-c", IMPORT_EACH], cwd=tmp_path, check=True, env=found)
