"""Shader text: a file of ``shaders/`` with its bindings, element access and variables filled in.

In a file, ``$name`` is a variable; one that is not given is an error, never an empty string. Where the file says
``$bindings`` stand the declarations of its buffers, because three things about them are known only when a plan is made:
the dtype of a value, whether a buffer that is read is also written in the same dispatch (all values of the arena share
one), and whether two operands are one value. So a file never indexes a buffer: it calls ``load_x(i)`` and
``store_y(i, value)``, which :mod:`.accessors` writes for the dtype at hand. A function of the files in
:data:`FUNCTIONS` that a file calls comes along by itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from itertools import accumulate
from pathlib import Path
from string import Template

from ..base import Place
from .accessors import Accessor, Buffer
from .windows import UNLIMITED, Windows

FUNCTIONS = (
    "elementwise/numbers",
    "elementwise/transcendental",
    "elementwise/activation",
    "reduction/states",
    "matmul/int8",
    "convolution/window",
)


@dataclass(frozen=True)
class Dispatch:
    """One dispatch before it has a pipeline: shader file, variables, uniform bytes, buffers and workgroup counts.

    ``loops`` is the most iterations that an invocation takes, of all its loops together; a loop of n takes n + 1, as
    the check that ends it is one. Kernels set it for software adapters; with constant loops below 1,024 it is 0.
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


@dataclass(frozen=True)
class Binding:
    """One value that a dispatch binds: in the way of ``elements``, in ``windows`` of (offset, bytes)."""

    place: Place
    elements: Accessor
    written: bool
    windows: tuple[tuple[int, int], ...]


def bindings_of(dispatch: Dispatch, windows: Windows) -> tuple[list[Binding], dict[str, int]]:
    """The values that ``dispatch`` binds, and the number of that of each of its buffers, by name."""
    bindings: list[Binding] = []
    numbers: dict[str, int] = {}
    for buffer in dispatch.buffers:
        place = buffer.operand.place
        # Operands that are one value are one binding: two that could be written must not overlap. It holds vectors
        # only if all of them read vectors.
        twins = [b for b in dispatch.buffers if not b.written and not buffer.written and b.operand.place == place]
        known = next((n for n, b in enumerate(bindings) if twins and b.place == place and not b.written), None)
        if known is None:
            access = "elements" if any(b.access != buffer.access for b in twins) else buffer.access
            known = len(bindings)
            elements = Accessor.of(f"buffer_{known}", buffer, access)
            bindings.append(Binding(place, elements, buffer.written, tuple(windows.of(place))))
        numbers[buffer.name] = known
    return bindings, numbers


def _numbered(bindings: list[Binding]) -> tuple[list[Binding], bytes]:
    """Return ``bindings`` whose elements refer to numbered windows, and these numbers, for a uniform.

    Where one of them needs numbers all have them, so that the parts of a step are few pipelines.
    """
    numbers: list[int] = []
    result = []
    if all(binding.windows[0][0] == binding.place.offset and len(binding.windows) == 1 for binding in bindings):
        return bindings, b""
    for binding in bindings:
        elements = replace(binding.elements, windows=len(binding.windows), first=len(numbers))
        lengths = [nbytes for _, nbytes in binding.windows[:-1]]
        before = binding.place.offset - binding.windows[0][0]
        numbers += [n // (4 // elements.lanes) for n in (before, *accumulate(lengths))]
        result.append(replace(binding, elements=elements))
    return result, struct.pack(f"<{len(numbers)}I", *numbers)


def compose(dispatch: Dispatch, windows: Windows = UNLIMITED) -> tuple[str, str, list[Place], bytes]:
    """The shader's text, its bindings by letter ("u" uniform, "r" read, "w" written), the places of those that are not
    uniforms in order, and the bytes of the second uniform, which comes last, if there is one."""
    written = {_buffer_of(buffer.operand.place) for buffer in dispatch.buffers if buffer.written}
    found, numbers = bindings_of(dispatch, windows)
    found, table = _numbered(found)
    places = [
        replace(binding.place, offset=offset, nbytes=nbytes) for binding in found for offset, nbytes in binding.windows
    ]
    kinds = tuple((binding.elements, _buffer_of(binding.place) in written) for binding in found)
    given = tuple(dispatch.variables.items()), tuple(numbers.items()), kinds, -(-len(table) // 16)
    code, letters = _composed(dispatch.shader, *given)
    return code, letters, places, table


@lru_cache(1024)
def _composed(
    shader: str,
    given: tuple[tuple[str, str], ...],
    numbers: tuple[tuple[str, int], ...],
    bindings: tuple[tuple[Accessor, bool], ...],
    vectors: int,
) -> tuple[str, str]:
    """Compose the text and the letters of a dispatch: the layers of a model differ in places and parameters alone.

    ``given`` are its variables, ``numbers`` those of the bindings of its buffers, by name; a binding is shared with one
    that is written or not. The second uniform has so many ``vectors``.
    """
    names = {name: bindings[number][0] for name, number in numbers}
    letters, declarations = "u", list[str]()
    for number, (elements, shared) in enumerate(bindings):
        shown = ", ".join(name for name, own in numbers if own == number)
        for variable in elements.variables:
            mode = "read_write" if shared else "read"
            declarations.append(
                f"@group(0) @binding({len(letters)}) var<storage, {mode}> {variable}: array<{elements.declared}>; "
                f"// {shown}: {elements.dtype}"
            )
            letters += "w" if shared else "r"
    if vectors:
        declarations.append(f"@group(0) @binding({len(letters)}) var<uniform> windows: array<vec4<u32>, {vectors}>;")
        letters += "u"
    variables = dict(given)
    for name, elements in names.items():
        variables |= {f"type_{name}": elements.type, f"lanes_{name}": f"{elements.lanes}u"}
    for _ in range(2):  # a variable may hold others
        variables = {key: Template(value).safe_substitute(variables) for key, value in variables.items()}
    body = Template(source(shader)).substitute(variables, bindings="$bindings")
    functions = [elements.functions(name, body) for name, elements in names.items()]
    preamble = "\n".join([*declarations, *filter(None, functions)])
    preamble = "\n".join([preamble, *used_functions(preamble + body)])
    return Template(body).substitute(bindings=preamble), letters


def _buffer_of(place: Place) -> tuple[str, int]:
    return place.kind, place.index
