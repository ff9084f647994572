"""Programs started with ``python -m``: they find their imports without the paths that pytest adds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.paths import ROOT

PROGRAMS = (
    "bench.browser", "bench.dawn", "bench.pack", "scripts.browser", "scripts.check", "scripts.hosts",
    "scripts.models_table", "scripts.ops_table", "scripts.random_checkpoint", "scripts.serve",
    "scripts.serve_checkpoints", "scripts.setup", "scripts.site", "scripts.wheel",
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_finds_its_imports(program: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {program}"], cwd=ROOT, check=True, env={"PATH": "/usr/bin:/bin"})
