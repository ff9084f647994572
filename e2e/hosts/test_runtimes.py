"""The program of docs/hosts.md as printed: in Node with Dawn, in Deno and Bun, and with older Pyodides in Node.

redirect.mjs replaces the model hub by a server on this machine.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.hosts.conftest import check_devices
from scripts import hosts, paths
from scripts.tools import node_with_jspi

if TYPE_CHECKING:
    from collections.abc import Callable

REDIRECT = str(Path(__file__).with_name("redirect.mjs"))
PYODIDE = paths.NODE_MODULES / "pyodide"
OLD_NODE = "Node 24.21 (Pyodide 0.27.2 and 0.28.3)"


def node(*options: str) -> tuple[str, ...]:
    return (node_with_jspi(), "--import", REDIRECT, *options)


def deno() -> tuple[str, ...]:
    return (str(hosts.DENO), "run", "--allow-all", "--node-modules-dir=manual", "--preload", REDIRECT)


def bun() -> tuple[str, ...]:
    return (str(hosts.BUN), "--preload", REDIRECT)


@pytest.mark.parametrize(
    ("host", "pyodide", "command"),
    [
        ("Node 24.21 with Dawn (npm `webgpu` 0.6.2)", PYODIDE, partial(node, "--import", "./webgpu.mjs")),
        ("Deno 2.9.6", PYODIDE, deno),
        ("Bun 1.4.5", PYODIDE, bun),
        (OLD_NODE, hosts.NODE_MODULES / "pyodide-0.27", node),
        (OLD_NODE, hosts.NODE_MODULES / "pyodide-0.28", node),
    ],
    ids=["node with Dawn", "deno", "bun", "pyodide 0.27", "pyodide 0.28"],
)
def test_the_program_runs_as_printed(
    host: str,
    pyodide: Path,
    command: Callable[[], tuple[str, ...]],
    folder: Callable[[Path], None],
    run: Callable[..., str],
    repository: str,
) -> None:
    folder(pyodide)
    check_devices(run([*command(), "embed.mjs"], REPOSITORY=repository), host)
