"""Types of the wheel: mypy --strict passes a user's program against the installed wheel, and finds a wrong call."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from scripts import paths

PROGRAM = """
import asyncio
from typing import Any

import numpy as np

import tensorcommons as tc


def progress(event: dict[str, Any]) -> None:
    print(event["status"])


async def main() -> float:
    devices: tc.Devices = await tc.open_devices(["cpu"])
    manager = tc.TensorSharingManager(max_memory_mb=64, devices=devices)
    a: tc.Tensor = tc.asarray(np.ones((2, 3), np.float32), device=devices.choose())
    b = tc.nn.functional.relu(a @ tc.permute_dims(a, (1, 0)) - 1.5)
    values: np.ndarray[Any, Any] = await b.read()
    model: tc.Model = await tc.from_pretrained("./model", manager=manager, progress_callback=progress)
    pipe = await tc.pipeline("feature-extraction", model, manager=manager)
    try:
        print(await pipe(["text"]), manager.report().saved_bytes + 1, model.explain().upper())
    except tc.errors.TensorCommonsError as error:
        print(error)
    model.unload()
    return float(values.sum())


asyncio.run(main())
"""
WRONG = """
import tensorcommons as tc

manager = tc.TensorSharingManager(max_memory_mb="much")
manager.report().saved_bites
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel):
    """Virtual environment with the wheel, and the NumPy of the tests' environment."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", with_pip=False)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "numpy.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.fixture(scope="module")
def said(installed):
    """The lines of mypy about each program, in one run."""
    (installed / "right.py").write_text(PROGRAM)
    (installed / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-version=3.12"]
    command += [f"--cache-dir={paths.CACHE / 'mypy-user'}", "--python-executable", installed / "venv/bin/python"]
    command += ["right.py", "wrong.py"]
    ended = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert "(checked 2 source files)" in ended.stdout, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


def test_a_users_program_passes_mypy_strict(said):
    assert all(line.startswith(("wrong.py:", "Found ")) for line in said), said


def test_a_wrong_call_is_found(said):
    assert any('argument "max_memory_mb"' in line.lower() for line in said), said
    assert any('no attribute "saved_bites"' in line for line in said), said
