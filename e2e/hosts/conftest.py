"""The hosts of docs/hosts.md: their programs, and a folder as the reader of that page makes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from e2e.page.driver import MINILM
from scripts import chromium, hosts, paths
from scripts.models import link_or_copy
from scripts.serve import serve
from tests import documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

TEXT = (paths.ROOT / "docs" / "hosts.md").read_text("utf-8")
PROGRAMS = documents.files("docs/hosts.md", "Node, Deno and Bun")
KERNELS = re.compile(r"\bcpu (\(|is )WebAssembly with (relaxed )?SIMD, NumPy ")
ANYWHERE = {"Access-Control-Allow-Origin": "*"}
SECONDS = 900  # for a program on a busy machine; pytest ends a test after 1200


def check_devices(text: str, host: str) -> None:
    """Check the last lines of a program: the devices of its host in the table, a value of each, the CPU's kernels."""
    (devices,) = re.findall(rf"^\| {re.escape(host)} \| ([^|]+) \|", TEXT, re.MULTILINE)
    kinds = set(devices.lower().split(", "))
    explained, norms = text.splitlines()[-2:]
    assert set(norms.split(", ")) == {f"{kind} 1.0000" for kind in kinds}, text
    assert set(re.findall(r"; (\w+) is missing", explained)) == {"webgpu", "webnn", "cpu"} - kinds, text
    assert KERNELS.search(explained), text


@pytest.fixture(scope="session")
def installed() -> Path:
    """The folder of the hosts' npm packages."""
    if not (hosts.NODE_MODULES / "pyodide-0.27" / "package.json").is_file():
        pytest.skip("the hosts are not installed: run 'python -m scripts.hosts'")
    return hosts.NODE_MODULES


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Run a program in the test's folder, on the npm Chromium's software adapter; gives what it prints."""

    def ran(command: Sequence[str | Path], **env: str) -> str:
        if not shutil.which(command[0]) and not chromium.runs_here():
            pytest.skip(f"{command[0]} is not installed: npm has it for Linux x86-64 only")
        answer = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **chromium.software_vulkan(), "NO_COLOR": "1", **env},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert answer.returncode == 0, f"code {answer.returncode}\n{answer.stdout[-4000:]}\n{answer.stderr[-4000:]}"
        return answer.stdout

    return ran


@pytest.fixture(scope="session")
def manifest(site_folder: Path) -> dict[str, object]:
    """The manifest of the built site."""
    found: dict[str, object] = json.loads((site_folder / "manifest.json").read_text())
    return found


@pytest.fixture
def folder(tmp_path: Path, site_folder: Path, manifest: dict[str, str], installed: Path) -> Callable[[Path], None]:
    """Fill the test's folder: the wheel, a Pyodide with NumPy, and the programs of the page."""
    numpy = next((site_folder / "vendor" / "pyodide").glob("numpy-*.whl"))

    def fill(pyodide: Path) -> None:
        own = () if any(pyodide.glob("numpy-*.whl")) else (numpy,)
        for path in (*pyodide.iterdir(), *own):
            if path.is_file():
                link_or_copy(path, tmp_path / "node_modules" / "pyodide" / path.name)
        for name in ("ws", "webgpu"):
            (tmp_path / "node_modules" / name).symlink_to(installed / name)
        shutil.copy(site_folder / manifest["wheel"], tmp_path)
        (tmp_path / "package.json").write_text('{"dependencies": {"pyodide": "*", "webgpu": "*"}}')
        for name, text in PROGRAMS.items():
            (tmp_path / name).write_text(text)

    return fill


@pytest.fixture(scope="session")
def repository() -> Iterator[str]:
    """The address of MiniLM on this machine."""
    with serve(paths.MODELS, headers=ANYWHERE) as url:
        yield f"{url}{MINILM}/"
