"""Types of the wheel: mypy --strict passes a user's program against the installed wheel, and finds a wrong call."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from scripts import paths
from scripts.wheel import build_wheel

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
def installed(tmp_path_factory):
    """Virtual environment with the wheel, and the NumPy of the tests' environment."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", with_pip=False)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(build_wheel()) as wheel:
        wheel.extractall(packages)
    (packages / "numpy.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def mypy(installed, program):
    (installed / "program.py").write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-version=3.12"]
    command += [f"--cache-dir={paths.CACHE / 'mypy-user'}", "--python-executable", installed / "venv/bin/python"]
    ended = subprocess.run([*command, "program.py"], cwd=installed, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_a_users_program_passes_mypy_strict(installed):
    assert mypy(installed, PROGRAM).startswith("Success")


def test_a_wrong_call_is_found(installed):
    said = mypy(installed, WRONG)
    assert 'argument "max_memory_mb"' in said.lower(), said
    assert 'no attribute "saved_bites"' in said
