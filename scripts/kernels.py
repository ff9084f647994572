"""Build of the CPU device's kernels: one unit of C, compiled to WebAssembly with relaxed SIMD and with plain SIMD.

.cache/venv/bin/python -m scripts.kernels
"""

from __future__ import annotations

import re
import shutil

from scripts import paths, pip
from scripts.console import SetupError, run, say
from scripts.stamps import Stamp, key_of
from scripts.tools import run_quietly

SOURCES = paths.PACKAGE / "backends" / "cpu" / "wasm"
SOURCE = SOURCES / "kernels.c"
COMPILER_LOCK = paths.ROOT / "scripts" / "compiler.lock"
FOLDER = paths.CACHE / "kernels"

#: The features of each module, by its name. The first that an engine compiles is used.
MODULES = {"relaxed": "generic+simd128+relaxed_simd+bulk_memory", "plain": "generic+simd128+bulk_memory"}

#: global.set of the stack pointer, or global.get of it unless the value is dropped at once.
STACK = re.compile(rb"\x24\x80\x80\x80\x80\x00|\x23\x80\x80\x80\x80\x00(?!\x1a)", re.DOTALL)
DATA = 11  # the number of the section


def build_kernels() -> None:
    """Compile the modules to .cache/kernels unless those there are of the same source and compiler.

    The compiler is installed for that, and removed afterwards.

    Raises:
        SetupError: a module has data or uses a stack; either would overwrite Pyodide's memory.
    """
    modules = {FOLDER / f"{name}.wasm": cpu for name, cpu in MODULES.items()}
    stamp = Stamp(paths.STAMPS / "kernels.json", paths.CACHE)
    key = key_of(SOURCES, paths.ROOT / "scripts" / "kernels.py", COMPILER_LOCK)
    if stamp.is_fresh(key):
        return
    stamp.clear()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    compiler = paths.CACHE / "compiler"
    pip.install_into(compiler, COMPILER_LOCK)
    environment = {
        "PYTHONPATH": str(compiler),
        "ZIG_GLOBAL_CACHE_DIR": str(compiler),
        "ZIG_LOCAL_CACHE_DIR": str(compiler),
    }
    for target, cpu in modules.items():
        run_quietly(
            [
                *(paths.venv_python(), "-m", "ziglang", "cc", "-target", "wasm32-freestanding", f"-mcpu={cpu}", "-O3"),
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
    shutil.rmtree(compiler)
    stamp.write(key, list(modules))
    say(f"built {FOLDER.relative_to(paths.ROOT)} ({sum(target.stat().st_size for target in modules) / 1e3:.0f} kB)")


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
