"""Guards of the build of the CPU device's kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from scripts import kernels, paths

HEADER = b"\0asm\1\0\0\0"


def test_sections_are_listed_in_their_order():
    long = bytes(300)
    assert kernels.sections(HEADER + b"\x01\x00" + b"\x0a\xac\x02" + long + b"\x0b\x01\x00") == [1, 10, 11]


@pytest.mark.parametrize(
    ("code", "uses"),
    [
        (b"\x23\x80\x80\x80\x80\x00\x1a", False),  # global.get, drop
        (b"\x23\x80\x80\x80\x80\x00\x41", True),  # global.get, i32.const
        (b"\x24\x80\x80\x80\x80\x00\x1a", True),  # global.set
    ],
)
def test_a_use_of_the_stack_is_found(code, uses):
    assert bool(kernels.STACK.search(HEADER + code)) is uses


def test_the_modules_have_neither_data_nor_a_stack():
    if not kernels.are_built():
        pytest.skip("the kernels are not built: run 'python -m scripts.kernels'")
    for name in kernels.MODULES:
        module = (kernels.FOLDER / f"{name}.wasm").read_bytes()
        assert kernels.sections(module) == [1, 2, 3, 4, 6, 7, 10] and not kernels.STACK.search(module)


def test_the_compiler_is_a_requirement_of_a_build_in_a_fresh_checkout(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(paths.ROOT / name, tmp_path)
    for folder in (paths.ROOT / "scripts", kernels.SOURCES):
        shutil.copytree(folder, tmp_path / folder.relative_to(paths.ROOT))
    ask = "from hatchling.build import get_requires_for_build_wheel; print(get_requires_for_build_wheel())"
    command = [sys.executable, "-c", ask]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert answer.strip() == f"['{kernels.compiler()}']" and kernels.compiler().startswith("ziglang==")
