"""The two package folders: a virtual environment from the requirements lock, node_modules from the npm lock."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from scripts import paths, pip
from scripts.console import Progress, SetupError, say
from scripts.stamps import Stamp, key_of
from scripts.tools import find_npm, run_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LOCK = paths.ROOT / "scripts" / "requirements.lock"
NPM_INPUTS = (paths.ROOT / "package.json", paths.ROOT / "package-lock.json", paths.ROOT / ".npmrc")

_venv_stamp = Stamp(paths.STAMPS / "venv.json", paths.CACHE)
_npm_stamp = Stamp(paths.STAMPS / "npm.json", paths.CACHE)


def ensure_venv() -> None:
    """Make .cache/venv from the lock, unless it exists already."""
    # A virtual environment has absolute paths, so a moved checkout makes a new one.
    key = key_of(LOCK, str(paths.VENV.resolve()), f"{sys.version_info.major}.{sys.version_info.minor}")
    if _venv_stamp.is_fresh(key) and os.access(paths.venv_python(), os.X_OK):
        return
    say(f"Python packages → {paths.VENV.relative_to(paths.ROOT)}")
    _venv_stamp.clear()
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"{sys.executable} has no 'venv' with pip: install it (on Debian and Ubuntu the package python3-venv), "
            "then run this again."
        )
    shutil.rmtree(paths.VENV, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(paths.VENV)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        last = (made.stdout + made.stderr).strip().splitlines()[-1:] or ["no message"]
        raise SetupError(f"making the virtual environment {paths.VENV} failed ({last[0]}): remove it and try again.")
    own_pip = paths.CACHE / "pip.lock"
    own_pip.write_text(pip.lock_entry(LOCK, "pip"))
    pip.install(own_pip, raw_progress=False)  # the pip bundled with Python may be too old to report bytes
    pip.install(LOCK)
    own_pip.unlink()
    shutil.rmtree(paths.CACHE / "pip", ignore_errors=True)
    record_venv()


def record_venv() -> None:
    """Stamp the virtual environment as complete."""
    key = key_of(LOCK, str(paths.VENV.resolve()), f"{sys.version_info.major}.{sys.version_info.minor}")
    _venv_stamp.write(key, _venv_files())


def _venv_files() -> list[Path]:
    """Return every module, because a full disk or an interrupted copy leaves some of them empty."""
    modules = (path for path in paths.VENV.glob("lib/*/site-packages/**/*") if path.suffix in (".py", ".so", ".pth"))
    records = paths.VENV.glob("lib/*/site-packages/*.dist-info/RECORD")
    return [paths.VENV / "pyvenv.cfg", *sorted(records), *sorted(path for path in modules if path.is_file())]


def ensure_npm() -> None:
    """Make .cache/npm/node_modules by `npm ci`, unless it exists already."""
    if _npm_stamp.is_fresh(key_of(*NPM_INPUTS)):
        return
    _npm_stamp.clear()
    install_npm(NPM_INPUTS, paths.NPM)
    record_npm()


def install_npm(inputs: Sequence[Path], folder: Path) -> None:
    """Make node_modules in `folder` by `npm ci`; `inputs` are package.json, its lock and .npmrc, in this order."""
    npm = find_npm()
    lock = inputs[1].relative_to(paths.ROOT)
    say(f"npm packages → {(folder / 'node_modules').relative_to(paths.ROOT)}")
    folder.mkdir(parents=True, exist_ok=True)
    for source in inputs:
        shutil.copyfile(source, folder / source.name)
    names = json.loads(inputs[1].read_text())["packages"]
    # Binaries are listed for every platform and installed for one, so optional packages are not counted.
    total = sum(1 for name, entry in names.items() if name and not entry.get("optional"))
    progress = Progress("npm packages", total, show=str)
    fetched = 0

    def count(line: str) -> None:
        nonlocal fetched
        if re.search(r"npm http (fetch GET 200|cache) \S+\.tgz", line):
            fetched += 1
            progress.update(min(fetched, total))

    cache = folder.with_name(f"{folder.name}-cache")
    run_quietly(
        [
            *(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
            *("--engine-strict=false", "--loglevel=http", f"--cache={cache}"),
            *("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"),  # fails in seconds when offline
        ],
        what=f"installing the npm packages of {lock}",
        remedy="check the network connection or npm's configured registry, then run this again.",
        cwd=folder,
        env={"npm_config_update_notifier": "false", "NO_COLOR": "1"},
        on_line=count,
    )
    progress.finish()
    shutil.rmtree(cache, ignore_errors=True)


def record_npm() -> None:
    """Stamp node_modules as complete."""
    _npm_stamp.write(key_of(*NPM_INPUTS), _npm_files())


def _npm_files() -> Iterator[Path]:
    yield paths.NODE_MODULES / ".package-lock.json"
    yield from sorted(paths.NODE_MODULES.glob("*/package.json"))
    yield from sorted(paths.NODE_MODULES.glob("@*/*/package.json"))
    # Sources of the site, the wheel and the browser are compared file by file.
    for folder in (
        "pyodide",
        "uplot/dist",
        "@sparticuz/chromium/bin",
    ):
        yield from sorted(
            p for p in (paths.NODE_MODULES / folder).iterdir() if p.is_file() and p.name != "package.json"
        )
