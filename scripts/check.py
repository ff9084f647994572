"""Checks that CI runs first: format, lint, types, the JavaScript linter, and the direction of imports.

    .cache/venv/bin/python -m scripts.check

Every check runs, also after a failed one, so that all errors are shown.
"""

from __future__ import annotations

import subprocess
import sys

from scripts import paths
from scripts.console import SetupError, run, say
from scripts.tools import find_node

#: Checked for types, as far as they exist.
TYPED = ("pyodide_pkg/tensorcommons", "scripts", "tests", "e2e", "bench", "web")
ARROWS = "tests/contract/test_imports.py"


def commands() -> dict[str, list[str]]:
    """Return the checks by name."""
    python = [sys.executable, "-m"]
    present = [name for name in TYPED if any((paths.ROOT / name).rglob("*.py"))]
    checks = {
        "ruff check": [*python, "ruff", "check", "--quiet", "."],
        "ruff format": [*python, "ruff", "format", "--check", "--quiet", "."],
        "mypy --strict": [*python, "mypy", *present],
        "eslint": [find_node(), str(paths.NODE_MODULES / "eslint" / "bin" / "eslint.js"), "--max-warnings=0", "."],
    }
    if (paths.ROOT / ARROWS).exists():
        checks["import arrows"] = [*python, "pytest", "-q", "--no-header", "-n0", ARROWS]
    return checks


def main() -> int:
    """Run all checks; the exit code is 1 if any failed."""
    failed = []
    for name, command in commands().items():
        say(f"── {name}")
        if subprocess.run(command, cwd=paths.ROOT, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            failed.append(name)
    if failed:
        raise SetupError(f"make check: {', '.join(failed)} failed; the lines above say where ('make format' may help).")
    say("all checks passed")
    return 0


if __name__ == "__main__":
    run(main)
