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
from scripts.models import link_or_copy
from scripts.tools import node_with_jspi

if TYPE_CHECKING:
    from collections.abc import Callable

REDIRECT = str(Path(__file__).with_name("redirect.mjs"))
PYODIDE = paths.NODE_MODULES / "pyodide"
DAWN = "Node 24.21 with Dawn (npm `webgpu` 0.6.2)"
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
        (DAWN, PYODIDE, partial(node, "--import", "./webgpu.mjs")),
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


#: A call of Python that cannot be suspended, since it does not come from runPythonAsync.
BLOCKING = """
try {
  pyodide.runPython("tc.ones(3, device='webgpu').numpy()");
} catch (error) {
  console.log(error.message.trim().split("\\n").at(-1));
}
"""


def test_pyodide_0_26(
    folder: Callable[[Path], None], run: Callable[..., str], repository: str, tmp_path: Path, installed: Path
) -> None:
    folder(installed / "pyodide-0.26")
    numpy = next((installed / "pyodide-0.27").glob("numpy-*.whl"))  # the ABI of both is pyodide_2024_0
    link_or_copy(numpy, tmp_path / numpy.name)
    program = (tmp_path / "embed.mjs").read_text()
    assert program.count('"numpy"') == 1
    (tmp_path / "embed.mjs").write_text(program.replace('"numpy"', f'"./{numpy.name}"') + BLOCKING)
    printed = run([*node("--import", "./webgpu.mjs"), "embed.mjs"], REPOSITORY=repository).strip()
    *before, message = printed.splitlines()
    assert message.endswith("so .numpy() cannot wait for the device: use `await tensor.read()`"), printed
    check_devices("\n".join(before), DAWN)
