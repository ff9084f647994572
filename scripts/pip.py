"""The pip of the virtual environment: installation from the lock, and download of a wheel by name and hash."""

from __future__ import annotations

import re
import shutil
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import Progress, SetupError
from scripts.tools import run_quietly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REMEDY = "check the network connection or pip's configured index, then run this again."


class PipProgress:
    """Converter of pip's raw progress ("Downloading numpy-….whl", "Progress 1024 of 4096") to lines for people."""

    WORTH_A_LINE = 1_000_000  # bytes; smaller files end before a line can be read

    def __init__(self) -> None:
        self._label = "package"
        self._progress: Progress | None = None

    def __call__(self, line: str) -> None:
        """Read one line of pip's output."""
        if started := re.match(r"\s*Downloading (\S+)", line):
            self._label = started[1].rsplit("/", 1)[-1].removesuffix(".metadata")
        elif moved := re.match(r"Progress (\d+) of (\d+)", line):
            done, total = int(moved[1]), int(moved[2])
            if total < self.WORTH_A_LINE:
                return
            if self._progress is None:
                self._progress = Progress(self._label, total)
            if done >= total:
                self._progress.finish()
                self._progress = None
            else:
                self._progress.update(done)


def lock_entry(lock: Path, name: str) -> str:
    """Return the lines of one package in a requirements lock, including hashes."""
    found = re.search(rf"^{re.escape(name)}==(?:[^\n]*\\\n)*[^\n]*", lock.read_text(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{lock.name} has no entry for {name}: make the lock again as scripts/requirements.in says.")
    return found[0] + "\n"


def install(requirements: Path, *, raw_progress: bool = True) -> None:
    """Install a requirements file with hashes into the virtual environment."""
    _pip(
        ["install", "--require-hashes", "-r", str(requirements)],
        what="installing the Python packages of scripts/requirements.lock",
        raw_progress=raw_progress,
    )


def install_into(folder: Path, requirements: Path) -> None:
    """Install a requirements file with hashes into a separate folder, for the PYTHONPATH of one program."""
    shutil.rmtree(folder, ignore_errors=True)
    _pip(
        ["install", "--require-hashes", "--target", str(folder), "-r", str(requirements)],
        what=f"installing the Python packages of {requirements.relative_to(paths.ROOT)}",
        raw_progress=True,
    )


def install_beside(python: Path, requirements: Path) -> None:
    """Install a requirements file with hashes into another virtual environment, which needs no pip."""
    _pip(
        ["--python", str(python), "install", "--require-hashes", "--no-compile", "-r", str(requirements)],
        what=f"installing the Python packages of {requirements.relative_to(paths.ROOT)}",
        raw_progress=True,
    )


def download_for_pyodide(requirements: Path, folder: Path) -> list[Path]:
    """Fetch the wheels of a requirements file with hashes, for Pyodide 314, into a new empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    _pip(
        [
            *("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", str(folder)),
            *("--platform", "pyemscripten_2026_0_wasm32", "--python-version", "3.14", "--abi", "cp314"),
            *("--implementation", "cp", "-r", str(requirements)),
        ],
        what=f"fetching the wheels of {requirements.relative_to(paths.ROOT)}",
        raw_progress=True,
    )
    return sorted(folder.glob("*.whl"))


def download_wheel(name: str, version: str, sha256: str, folder: Path) -> Path:
    """Fetch one wheel, checked by pip against its SHA-256, into a new empty folder.

    The wheels have data, not code for this Python, so their Requires-Python is ignored.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pin = folder / "pin.txt"
    pin.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    _pip(
        [
            *("download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:", "--require-hashes"),
            *("--no-cache-dir", "-d", str(folder), "-r", str(pin)),
        ],
        what=f"fetching the wheel {name}=={version} from the package registry",
        raw_progress=True,
    )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SetupError(f"pip left {len(wheels)} files for {name}=={version} instead of one wheel; {REMEDY}")
    return wheels[0]


def _pip(arguments: Sequence[str], *, what: str, raw_progress: bool) -> None:
    # The index comes from pip's configuration: no host is named here.
    folder = paths.CACHE / "tmp"  # temporary files of a killed pip stay below .cache
    folder.mkdir(parents=True, exist_ok=True)
    style = ["--progress-bar", "raw"] if raw_progress else ["--progress-bar", "off"]
    with TemporaryDirectory(dir=folder) as own:  # one a run: another pip may run beside this one
        run_quietly(
            [paths.venv_python(), "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments, *style],
            what=what,
            remedy=REMEDY,
            env={"PIP_CACHE_DIR": str(paths.CACHE / "pip"), "TMPDIR": own, "PYTHONWARNINGS": "ignore"},
            on_line=PipProgress() if raw_progress else None,
        )
