"""Build of dist/tensorcommons-<version>-py3-none-any.whl; equal sources give equal bytes.

.cache/venv/bin/python -m scripts.wheel
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import run, say
from scripts.kernels import FOLDER, build_kernels
from scripts.lock import one_at_a_time
from scripts.stamps import Stamp, key_of
from scripts.tools import run_quietly

if TYPE_CHECKING:
    from pathlib import Path

PYPROJECT = paths.ROOT / "pyproject.toml"

#: The time in the wheel of a build without SOURCE_DATE_EPOCH: 2025-01-01T00:00:00Z.
EPOCH = "1735689600"


def version() -> str:
    """Return the version of the package."""
    return str(tomllib.loads(PYPROJECT.read_text())["project"]["version"])


def wheel_path() -> Path:
    """Return the path of the wheel of this version."""
    return paths.DIST / f"tensorcommons-{version()}-py3-none-any.whl"


def build_wheel() -> Path:
    """Build the wheel unless the existing one has the same sources."""
    build_kernels()
    target = wheel_path()
    stamp = Stamp(paths.STAMPS / "wheel.json", paths.ROOT)
    key = key_of(
        *(PYPROJECT, paths.ROOT / "README.md", paths.ROOT / "LICENSE", paths.ROOT / "scripts" / "requirements.lock"),
        *(paths.PACKAGE, paths.SHADERS, FOLDER, paths.ROOT / "scripts" / "build_hook.py", EPOCH),
    )
    if stamp.is_fresh(key):
        return target
    stamp.clear()
    fresh = paths.DIST / "wheel.new"
    shutil.rmtree(fresh, ignore_errors=True)
    make_wheel(fresh).replace(target)
    for other in paths.DIST.glob("*.whl"):
        if other != target:  # of an earlier version
            other.unlink()
    shutil.rmtree(fresh)
    stamp.write(key, [target])
    say(f"built {target.relative_to(paths.ROOT)} ({target.stat().st_size / 1e3:.0f} kB)")
    return target


def make_wheel(folder: Path) -> Path:
    """Make the wheel in ``folder``; the kernels must be built."""
    run_quietly(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        what="building the wheel",
        remedy="the lines above say why.",
        cwd=paths.ROOT,
        env={"SOURCE_DATE_EPOCH": EPOCH},
    )
    return folder / wheel_path().name


def main() -> int:
    """Build the wheel and print its path."""
    with one_at_a_time():
        say(str(build_wheel().relative_to(paths.ROOT)))
    return 0


if __name__ == "__main__":
    run(main)
