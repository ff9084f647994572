"""Shader text: a file of ``shaders/`` with its bindings and variables filled in.

In a file, ``$name`` is a variable or the buffer of that name. The buffers' declarations are made here and stand where
the file says ``$bindings``, because two things about them are known only when a plan is made: whether a buffer that is
read is also written in the same dispatch (all values of the arena share one), and whether two operands are one value.
A variable that is not given is an error, never an empty string.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template

from ..base import Operand, Place


@dataclass(frozen=True)
class Buffer:
    """One storage buffer of a dispatch: its name in the shader, its element type and the value it shows."""

    name: str
    element: str
    operand: Operand
    written: bool = False


@dataclass(frozen=True)
class Dispatch:
    """One dispatch before it has a pipeline: shader file, variables, uniform bytes, buffers and workgroup counts."""

    shader: str
    variables: Mapping[str, str]
    params: bytes
    buffers: tuple[Buffer, ...]
    groups: tuple[int, int, int]


@cache
def source(path: str) -> str:
    """The text of ``shaders/<path>.wgsl``: from the installed package, or from the checkout's ``shaders/``."""
    packaged = resources.files("tensorcommons").joinpath("shaders", f"{path}.wgsl")
    if packaged.is_file():
        return packaged.read_text("utf-8")
    return (Path(__file__).parents[4] / "shaders" / f"{path}.wgsl").read_text("utf-8")


def compose(dispatch: Dispatch) -> tuple[str, str, list[Place]]:
    """The shader's text, its bindings by letter ("u" uniform, "r" read, "w" written) and their places in order."""
    written = {_buffer_of(buffer.operand.place) for buffer in dispatch.buffers if buffer.written}
    names: dict[str, str] = {}
    places: list[tuple[Place, str]] = []
    letters = "u"
    declarations = []
    for buffer in dispatch.buffers:
        place = buffer.operand.place
        if not buffer.written and (place, buffer.element) in places:
            names[buffer.name] = f"buffer_{places.index((place, buffer.element))}"
            continue
        name = f"buffer_{len(places)}"
        shared = _buffer_of(place) in written
        access = "read_write" if shared else "read"
        declarations.append(
            f"@group(0) @binding({len(places) + 1}) var<storage, {access}> {name}: array<{buffer.element}>;"
            f" // {buffer.name}"
        )
        letters += "w" if shared else "r"
        names[buffer.name] = name
        places.append((place, buffer.element))
    variables = {"bindings": "\n".join(declarations), **names}
    for key, value in dispatch.variables.items():
        variables[key] = Template(value).substitute(variables)
    return Template(source(dispatch.shader)).substitute(variables), letters, [place for place, _ in places]


def _buffer_of(place: Place) -> tuple[str, int]:
    return place.kind, place.index
