"""Guards of the build of the CPU device's kernels."""

from __future__ import annotations

import pytest

from scripts import kernels

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
    kernels.build_kernels()
    for name in kernels.MODULES:
        module = (kernels.FOLDER / f"{name}.wasm").read_bytes()
        assert kernels.sections(module) == [1, 2, 3, 4, 6, 7, 10] and not kernels.STACK.search(module)
