"""Shader text: a file of ``shaders/`` with its bindings, element access and variables filled in.

In a file, ``$name`` is a variable; one that is not given is an error, never an empty string. Where the file says
``$bindings`` stand the declarations of its buffers, because three things about them are known only when a plan is made:
the dtype of a value, whether a buffer that is read is also written in the same dispatch (all values of the arena share
one), and whether two operands are one value. So a file never indexes a buffer: it calls ``load_x(i)`` and
``store_y(i, value)``, which :mod:`.elements` writes for the dtype at hand. A function of the files in
:data:`FUNCTIONS` that a file calls comes along by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template

from ..base import Place
from .elements import Buffer, Elements

FUNCTIONS = (
    "elementwise/numbers",
    "elementwise/transcendental",
    "elementwise/activation",
    "reduction/states",
    "convolution/window",
)


@dataclass(frozen=True)
class Dispatch:
    """One dispatch before it has a pipeline: shader file, variables, uniform bytes, buffers and workgroup counts.

    ``loops`` is the most iterations that an invocation takes, of all its loops together; a loop of n takes n + 1, as
    the check that ends it is one. Kernels say it on software adapters; those of constant loops, fewer than 1,024, 0.
    """

    shader: str
    variables: Mapping[str, str]
    params: bytes
    buffers: tuple[Buffer, ...]
    groups: tuple[int, int, int]
    loops: int = 0


@cache
def source(path: str) -> str:
    """The text of ``shaders/<path>.wgsl``: from the installed package, or from the checkout's ``shaders/``."""
    packaged = resources.files("tensorcommons").joinpath("shaders", f"{path}.wgsl")
    if packaged.is_file():
        return packaged.read_text("utf-8")
    return (Path(__file__).parents[4] / "shaders" / f"{path}.wgsl").read_text("utf-8")


@cache
def library() -> dict[str, str]:
    """Every function and constant in the files of :data:`FUNCTIONS` by its name, with the comment above it."""
    found: dict[str, str] = {}
    for path in FUNCTIONS:
        comment: list[str] = []
        piece: list[str] = []
        for line in source(path).splitlines():
            if not piece and not re.match(r"(fn|const|var)\b", line):
                comment = [*comment, line] if line.startswith("//") else []
                continue
            piece.append(line)
            text = "\n".join(piece)
            if text.count("{") == text.count("}"):
                name = re.match(r"(?:fn|const|var<private>) (\w+)", text)
                assert name is not None and name[1] not in found, f"{path}: {text}"
                found[name[1]] = "\n".join([*comment, text])
                comment, piece = [], []
    return found


def used_functions(text: str) -> Iterator[str]:
    """The pieces of the library that ``text`` needs, each once, with what they need in turn."""
    waiting, seen = [text], set()
    while waiting:
        for name in re.findall(r"\b[a-z]\w*\b", waiting.pop()):
            if name in library() and name not in seen:
                seen.add(name)
                waiting.append(library()[name])
    return (piece for name, piece in library().items() if name in seen)


def compose(dispatch: Dispatch) -> tuple[str, str, list[Place]]:
    """The shader's text, its bindings by letter ("u" uniform, "r" read, "w" written) and their places in order."""
    written = {_buffer_of(buffer.operand.place) for buffer in dispatch.buffers if buffer.written}
    bindings: list[tuple[Place, Elements, bool]] = []
    names: dict[str, Elements] = {}
    for buffer in dispatch.buffers:
        place = buffer.operand.place
        # Operands that are one value are one binding: two that could be written must not overlap. It holds vectors
        # only if all of them read vectors.
        twins = [b for b in dispatch.buffers if not b.written and not buffer.written and b.operand.place == place]
        known = next((elements for at, elements, own in bindings if twins and at == place and not own), None)
        if known is None:
            access = "elements" if any(b.access != buffer.access for b in twins) else buffer.access
            known = Elements.of(f"buffer_{len(bindings)}", buffer, access)
            bindings.append((place, known, buffer.written))
        names[buffer.name] = known
    letters, declarations = "u", []
    for number, (place, elements, _) in enumerate(bindings, 1):
        shared = _buffer_of(place) in written
        letters += "w" if shared else "r"
        shown = ", ".join(name for name, known in names.items() if known is elements)
        declarations.append(
            f"@group(0) @binding({number}) var<storage, {'read_write' if shared else 'read'}> {elements.variable}: "
            f"array<{elements.declared}>; // {shown}: {elements.dtype}"
        )
    variables = dict(dispatch.variables)
    for name, elements in names.items():
        variables |= {f"type_{name}": elements.type, f"lanes_{name}": f"{elements.lanes}u"}
    for _ in range(2):  # a variable may hold others
        variables = {key: Template(value).safe_substitute(variables) for key, value in variables.items()}
    body = Template(source(dispatch.shader)).substitute(variables, bindings="$bindings")
    functions = [elements.functions(name, body) for name, elements in names.items()]
    preamble = "\n".join([*declarations, *filter(None, functions)])
    preamble = "\n".join([preamble, *used_functions(preamble + body)])
    return Template(body).substitute(bindings=preamble), letters, [place for place, _, _ in bindings]


def _buffer_of(place: Place) -> tuple[str, int]:
    return place.kind, place.index
