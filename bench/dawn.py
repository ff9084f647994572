"""Node on Dawn: the contest (`make bench-dawn`, or python -m bench.dawn [GROUP ...]), `make conformance`, `make cases`.

Runs on the GPU of the system's Vulkan, else on the software adapter of the npm Chromium. The
work itself is in dawn.mjs, which needs no Python on the host; bench/pack.py packs it for other machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import setup
from scripts import chromium, paths
from scripts.console import run, say
from scripts.lock import one_at_a_time
from scripts.pins import load_pins
from scripts.pure import pure_wheels
from scripts.setup import PINS_FILE
from scripts.wheel import build_wheel

RUNNER = setup.BENCH / "dawn.mjs"


def layout(place: Callable[[Path], str], wheel: Path) -> dict[str, Any]:
    """Return the layout for dawn.mjs; ``place`` gives the path of a file of this checkout."""
    npm = setup.NODE_MODULES
    return {
        "imports": {
            **{name: place(npm / path) for name, path in setup.IMPORTS.items()},
            "webgpu": place(npm / "webgpu" / "index.js"),
        },
        "node_modules": place(npm),
        "pyodide": place(paths.NODE_MODULES / "pyodide"),
        "wheels": [
            *(place(paths.DOWNLOADS / pin.path) for pin in load_pins(PINS_FILE) if "/numpy-" in pin.path),
            *map(place, (*pure_wheels(), wheel)),
        ],
        "versions": setup.versions(),
    }


def environment() -> dict[str, str]:
    """Return the environment of a process that finds an adapter: that of the system, else the software adapter."""
    found = subprocess.run([setup.node(), RUNNER, "--probe"], env=_here(), capture_output=True, text=True, check=False)
    if found.returncode == 0:
        say(f"adapter: {found.stdout.strip()}")
        return _here()
    say("the system's Vulkan offers no adapter: the software adapter of the npm Chromium it is")
    return _here() | chromium.software_vulkan()


def _here() -> dict[str, str]:
    return {**os.environ, "BENCH_LAYOUT": str(setup.RESULTS / "layout.json")}


def main() -> int:
    """Set up, find the adapter and run; a failed contestant is in the report and does not fail the command."""
    with one_at_a_time():
        setup.ensure_peers()
        wheel = build_wheel()
    described = {
        **layout(str, wheel),
        "python": str(paths.ROOT),
        "models": str(paths.MODELS),
        "result": str(setup.RESULTS / "dawn.json"),
    }
    (setup.RESULTS / "layout.json").write_text(json.dumps(described, indent=1))
    return subprocess.run([setup.node(), RUNNER, *sys.argv[1:]], env=environment(), check=False).returncode


if __name__ == "__main__":
    run(main)
