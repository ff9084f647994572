"""Files for a fast start of Python in the page: a snapshot of its memory, and the packages that it has.

NumPy and the package are imported in this memory already. Pyodide's options for snapshots are private
(``_makeSnapshot``, ``_loadSnapshot``), and so are the functions that put NumPy's libraries where they were: they are
used with the pinned version only, and web/python.js starts without the snapshot where they fail. A pinned Node makes
the files (scripts/snapshot.mjs): it supports JSPI, which suspends WebAssembly, like browsers. Python detects JSPI only
at its start, and a snapshot of a Python without it hangs when it is suspended.
"""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import SetupError, say
from scripts.stamps import Stamp, key_of, sha256_of
from scripts.tools import node_with_jspi, run_quietly

if TYPE_CHECKING:
    from pathlib import Path

PYODIDE = paths.NODE_MODULES / "pyodide"
PACKAGES = paths.DOWNLOADS / "pyodide"
PROGRAM = paths.ROOT / "scripts" / "snapshot.mjs"
STARTER = paths.WEB / "python.js"
FOLDER = paths.DIST / "start"
NAMES = ("memory", "packages", "compiled")


def make_start(*wheels: Path) -> list[Path]:
    """Update the snapshot, the packages of NumPy and the wheels, and their compiled modules; gives paths, by content.

    Raises:
        SetupError: Node or Pyodide failed; their output is printed before.
    """
    wheels = (*sorted(PACKAGES.glob("numpy-*.whl")), *wheels)
    pyodide = (PYODIDE / name for name in ("pyodide.asm.wasm", "pyodide.asm.mjs", "pyodide.mjs", "python_stdlib.zip"))
    key = key_of(PROGRAM, STARTER, *pyodide, *wheels)
    stamp = Stamp(paths.STAMPS / "start.json", paths.ROOT)
    if not stamp.is_fresh(key):
        stamp.clear()
        shutil.rmtree(FOLDER, ignore_errors=True)
        made, installed = FOLDER / "made", FOLDER / "installed"
        for each in wheels:
            with zipfile.ZipFile(each) as archive:
                archive.extractall(installed)
        run_quietly(
            [node_with_jspi(), PROGRAM, PYODIDE, installed, made],
            what="making dist/start with Pyodide in Node",
            remedy="the lines above say why.",
        )
        files = []
        for name in NAMES:  # by content: not .gz, which some servers decompress
            path = made / f"{name}.bin"
            files.append(path.rename(FOLDER / f"{name}-{sha256_of(path)[:16]}.bin"))
        shutil.rmtree(made)
        shutil.rmtree(installed)
        stamp.write(key, files)
        say("made " + ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in files))
    found = [path for name in NAMES for path in FOLDER.glob(f"{name}-*.bin")]
    if len(found) != len(NAMES):
        raise SetupError(f"{FOLDER} is incomplete: remove it and run the command again.")
    return found
