"""The program of docs/hosts.md as printed: in Node with Dawn, in Deno and Bun, and with older Pyodides in Node.

redirect.mjs replaces the model hub by a server on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts import hosts, paths
from scripts.tools import node_with_jspi

if TYPE_CHECKING:
    from collections.abc import Callable

REDIRECT = str(Path(__file__).with_name("redirect.mjs"))
NODE = (node_with_jspi(), "--import", REDIRECT)
DENO = (str(hosts.DENO), "run", "--allow-all", "--node-modules-dir=manual", "--preload", REDIRECT)
PYODIDE = paths.NODE_MODULES / "pyodide"


@pytest.mark.parametrize(
    ("pyodide", "command", "webgpu"),
    [
        pytest.param(PYODIDE, (*NODE, "--import", "./webgpu.mjs"), True, id="node with Dawn"),
        pytest.param(PYODIDE, DENO, True, id="deno"),
        pytest.param(PYODIDE, (str(hosts.BUN), "--preload", REDIRECT), False, id="bun"),
        pytest.param(hosts.NODE_MODULES / "pyodide-0.27", NODE, False, id="pyodide 0.27"),
        pytest.param(hosts.NODE_MODULES / "pyodide-0.28", NODE, False, id="pyodide 0.28"),
    ],
)
def test_the_program_runs_as_printed(
    pyodide: Path,
    command: tuple[str, ...],
    webgpu: bool,
    folder: Callable[[Path], None],
    run: Callable[..., str],
    repository: str,
) -> None:
    folder(pyodide)
    explained, result = run([*command, "embed.mjs"], REPOSITORY=repository).splitlines()[-2:]
    assert ("webgpu is missing" not in explained) == webgpu, explained
    assert "(WebAssembly with" in explained or "cpu is WebAssembly with" in explained, explained
    assert result == "(384,) 1.0000"
