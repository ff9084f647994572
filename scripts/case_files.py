"""Files of the cases of ops and models, for use without the checkout: in the lab and the archive of the bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: The modules of scripts/ that cases import.
SCRIPTS = ("__init__", "paths", "random_checkpoint")


def case_files() -> list[Path]:
    """Return the cases, their imports from the checkout, and their goldens."""
    tests = ROOT / "tests"
    return [
        *(ROOT / "scripts" / f"{module}.py" for module in SCRIPTS),
        *sorted((tests / "cases").rglob("*.py")),
        *sorted(path for path in (tests / "goldens").rglob("*") if path.is_file()),
    ]
