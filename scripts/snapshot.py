"""Files for a fast start of Python in the page: a snapshot of its memory, and compiled modules.

Pyodide's options for snapshots are private (``_makeSnapshot``, ``_loadSnapshot``), so they are used with the pinned
version only, and web/python.js starts without them where they fail. A pinned Node makes both (scripts/snapshot.mjs):
it supports JSPI, which suspends WebAssembly, like browsers. Python detects JSPI only at its start, and a snapshot of a
Python without it hangs when it is suspended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import say
from scripts.stamps import Stamp, key_of
from scripts.tools import node_with_jspi, run_quietly

if TYPE_CHECKING:
    from pathlib import Path

PYODIDE = paths.NODE_MODULES / "pyodide"
PACKAGES = paths.DOWNLOADS / "pyodide"
PROGRAM = paths.ROOT / "scripts" / "snapshot.mjs"
FOLDER = paths.DIST / "start"


def make_start(wheel: Path) -> tuple[Path, Path]:
    """Update the snapshot and the compiled modules of the wheel and NumPy; gives their paths.

    Raises:
        SetupError: Node or Pyodide failed; their output is printed before.
    """
    snapshot = FOLDER / "memory.bin"  # not .gz, which some servers decompress
    bytecode = FOLDER / "bytecode.zip"
    pyodide = key_of(PROGRAM, PYODIDE / "pyodide.asm.wasm", PYODIDE / "pyodide.asm.mjs", PYODIDE / "python_stdlib.zip")
    _make("memory", snapshot, key=pyodide)
    _make("bytecode", bytecode, snapshot, wheel, key=key_of(pyodide, wheel, *sorted(PACKAGES.glob("numpy-*.whl"))))
    return snapshot, bytecode


def _make(what: str, target: Path, *given: Path, key: str) -> None:
    stamp = Stamp(paths.STAMPS / f"start-{what}.json", paths.ROOT)
    if stamp.is_fresh(key):
        return
    stamp.clear()
    FOLDER.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.new")
    run_quietly(
        [node_with_jspi(), PROGRAM, what, PYODIDE, PACKAGES, fresh, *given],
        what=f"making {target.relative_to(paths.ROOT)} with Pyodide in Node",
        remedy="the lines above say why.",
    )
    fresh.replace(target)
    stamp.write(key, [target])
    say(f"made {target.relative_to(paths.ROOT)} ({target.stat().st_size / 1e6:.1f} MB)")
