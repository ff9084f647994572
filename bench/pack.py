"""Archive of the contest for a machine with only a GPU: dist/bench.tar.xz, or the given path.

    python -m bench.pack [FILE]

Unpacked anywhere, `./run [GROUP ...]` there prints tables and writes dawn.json; `./run --conformance` checks every op,
`./run --cases MODULE ...` checks the models whose folders (as in .cache/models) are in `models/`.
Equal inputs give equal content.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from bench import dawn, setup
from scripts import paths
from scripts.case_files import case_files
from scripts.console import SetupError, megabytes, run, say
from scripts.lock import one_at_a_time
from scripts.site import PYODIDE_FILES
from scripts.tools import run_quietly
from scripts.wheel import build_wheel

LIMIT = 60_000_000  # maximum bytes of the archive, so that it can be sent as an attachment
RUN = """#!/bin/sh
# ./run [GROUP ...]: the contest on this machine's Vulkan; see README.md
here=$(dirname "$(readlink -f "$0")")
exec "$here/node" "$here/dawn.mjs" "$@"
"""


def fill(folder: Path, wheel: Path) -> None:
    """Copy the files of a run, and write their paths to layout.json."""

    def place(path: Path) -> str:
        """Copy a file or folder of this checkout; gives its path in the archive."""
        for root, name in ((setup.NODE_MODULES, "npm"), (paths.NODE_MODULES, "npm"), (paths.ROOT, "python")):
            if path.is_relative_to(root):
                return f"{name}/{path.relative_to(root)}".removesuffix("/.")
        raise ValueError(path)

    described = dawn.layout(place, wheel)
    described |= {"python": "python", "models": "models", "result": "dawn.json"}
    dawn_files = [setup.NODE_MODULES / "webgpu" / name for name in ("package.json", "index.js", "LICENSE", "README.md")]
    dawn_files.append(setup.NODE_MODULES / "webgpu" / "dist" / "linux-x64" / "dawn.node")
    pyodide = [paths.NODE_MODULES / "pyodide" / name for name in (*PYODIDE_FILES, "package.json")]
    wheels = [paths.ROOT / str(name).removeprefix("python/") for name in described["wheels"]]
    python = sorted({*setup.python_files(), *case_files()})
    for source in (*dawn_files, *pyodide, *wheels, *setup.peer_files(), *python):
        if source.is_file():
            target = folder / place(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for name in ("dawn.mjs", "session.mjs", "README.md"):
        shutil.copyfile(setup.BENCH / name, folder / name)
    shutil.copytree(setup.BENCH / "peers", folder / "peers")
    (folder / "layout.json").write_text(json.dumps(described, indent=1))
    (folder / "run").write_text(RUN)
    shutil.copyfile(setup.node(), folder / "node")
    strip = shutil.which("strip")
    if strip:  # a third of it is symbols
        run_quietly([strip, folder / "node"], what="stripping node", remedy="remove 'strip' from PATH and try again.")
    for name in ("run", "node"):
        (folder / name).chmod(0o755)


def pack(target: Path) -> None:
    """Write the archive."""
    with one_at_a_time():
        setup.ensure_peers()
        wheel = build_wheel()
    if not setup.node().is_absolute():
        raise SetupError("the archive is for Linux x86-64 and is made there: the pinned Node is not installed here.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=setup.RESULTS) as name:
        folder = Path(name) / "bench"
        folder.mkdir()
        fill(folder, wheel)
        say(f"packing {megabytes(sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()))} …")
        with tarfile.open(target, "w:xz", preset=6) as archive:
            archive.add(folder, ".", filter=_plain)
    size = target.stat().st_size
    say(f"{target}: {megabytes(size)}")
    if size > LIMIT:
        raise SetupError(f"{target.name} passes {megabytes(LIMIT)}: leave something out in bench/pack.py.")


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove the time and the owner of an entry."""
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> int:
    """Pack to the given path."""
    pack(Path(sys.argv[1]) if len(sys.argv) > 1 else paths.DIST / "bench.tar.xz")
    return 0


if __name__ == "__main__":
    run(main)
