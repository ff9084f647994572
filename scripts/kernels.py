"""Build of the CPU device's kernels: one unit of C, compiled to WebAssembly with relaxed SIMD and with plain SIMD.

.cache/venv/bin/python -m scripts.kernels
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from scripts import paths, pip
from scripts.console import SetupError, run, say
from scripts.stamps import Stamp, key_of
from scripts.tools import run_quietly

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SOURCES = paths.PACKAGE / "backends" / "cpu" / "wasm"
SOURCE = SOURCES / "kernels.c"
COMPILER_LOCK = paths.ROOT / "scripts" / "compiler.lock"
FOLDER = paths.CACHE / "kernels"

#: The features of each module, by its name. The first that an engine compiles is used.
MODULES = {"relaxed": "generic+simd128+relaxed_simd+bulk_memory", "plain": "generic+simd128+bulk_memory"}

#: global.set of the stack pointer, or global.get of it unless the value is dropped at once.
STACK = re.compile(rb"\x24\x80\x80\x80\x80\x00|\x23\x80\x80\x80\x80\x00(?!\x1a)", re.DOTALL)
DATA = 11  # the number of the section

_STAMP = Stamp(paths.STAMPS / "kernels.json", paths.CACHE)


def compiler() -> str:
    """Return the compiler as a requirement of a Python package."""
    return pip.lock_entry(COMPILER_LOCK, "ziglang").split()[0]


def are_built() -> bool:
    """Return True if the modules in .cache/kernels are of the same source and compiler."""
    return _STAMP.is_fresh(_key())


def build_kernels() -> None:
    """Compile the modules to .cache/kernels unless :func:`are_built`.

    The compiler is that of the running Python; if there is none, it is installed for the build and removed afterwards.

    Raises:
        SetupError: the compiler is missing or fails; or a module has data or uses a stack, either of which would
            overwrite Pyodide's memory.
    """
    if are_built():
        return
    _STAMP.clear()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    folder = paths.CACHE / "compiler"
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    modules = {FOLDER / f"{name}.wasm": cpu for name, cpu in MODULES.items()}
    try:
        if find_spec("ziglang") is None:
            if not paths.venv_python().is_file():
                raise SetupError(f"the compiler of the kernels is missing: install {compiler()}, or run 'make setup'.")
            pip.install_into(folder, COMPILER_LOCK)
            environment["PYTHONPATH"] = str(folder)
        for target, cpu in modules.items():
            _compile(target, cpu, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _STAMP.write(_key(), list(modules))
    say(f"built {FOLDER.relative_to(paths.ROOT)} ({sum(target.stat().st_size for target in modules) / 1e3:.0f} kB)")


def _key() -> str:
    return key_of(SOURCES, paths.ROOT / "scripts" / "kernels.py", COMPILER_LOCK)


def _compile(target: Path, cpu: str, environment: Mapping[str, str]) -> None:
    run_quietly(
        [
            *(sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", f"-mcpu={cpu}", "-O3"),
            *("-Wall", "-nostdlib", "-Wl,--no-entry", "-Wl,--import-memory", "-Wl,--strip-all"),
            *(SOURCE, "-o", target),
        ],
        what=f"compiling {SOURCE.name}",
        remedy="the lines above say why.",
        cwd=paths.ROOT,
        env=environment,
    )
    module = target.read_bytes()
    if DATA in sections(module) or STACK.search(module):
        target.unlink()
        raise SetupError(f"{SOURCE.name}: the module has data or uses the stack; both lie in Pyodide's memory.")


def sections(module: bytes) -> list[int]:
    """Return the numbers of the sections of a WebAssembly module, in order."""
    found, at = [], 8
    while at < len(module):
        found.append(module[at])
        at, size, shift = at + 1, 0, 0
        while True:
            byte = module[at]
            at, size, shift = at + 1, size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        at += size
    return found


def main() -> int:
    """Build the kernels."""
    build_kernels()
    return 0


if __name__ == "__main__":
    run(main)
