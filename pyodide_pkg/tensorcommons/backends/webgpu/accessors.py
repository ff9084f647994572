"""Access to the elements of a value in a shader: functions written here for its dtype.

A kernel calls ``load_x(i)`` for element ``i`` of the storage and gets ``f32``, ``i32``, ``u32`` or ``bool``, whatever
the bytes are. float16 lies two in a word and bool four, so a writer of one element shares its word with the writers of
others. Hence four ways of access, chosen by the kernel (:data:`Access`):

=========== ========================================= ==================================================================
access      functions                                 for
=========== ========================================= ==================================================================
"elements"  ``load_x(i)``, ``store_x(i, value)``      any elements in any order; a packed store is one atomic
"words"     ``write_x(w)``                            a dense result: the invocation of word ``w`` writes its elements,
                                                      each from the file's own ``fn value_of_x(i: u32)``
"vectors"   ``load4_x(i)``, ``store4_x(i, value)``    elements ``4 * i`` to ``4 * i + 3`` as one vector
"eights"    ``bits_x(i)``                             eight float16 from ``8 * i`` on as they are, a ``vec4<u32>``
=========== ========================================= ==================================================================

A value that one binding cannot show (:mod:`.windows`) has several: each function then looks up in a uniform,
``windows``, in which of them its element lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from ..base import Operand
from . import packing as packed

Access: TypeAlias = Literal["elements", "words", "vectors", "eights"]

# Elements an index of each function counts; 0: those of a word.
_PER_INDEX = {"load": 1, "load4": 4, "bits": 8, "store": 1, "store4": 4, "write": 0}
BYTES = "vec4<u32>(0u, 8u, 16u, 24u)"  # where the four bools of a word begin, in bits


@dataclass(frozen=True)
class Buffer:
    """One storage buffer of a dispatch: its name in the shader, the value it shows, and how it is accessed.

    ``packing`` is the block format of a quantised weight (:mod:`.packing`), empty for a dense value; ``blocks`` is WGSL
    for the number of its blocks.
    """

    name: str
    operand: Operand
    access: Access = "elements"
    written: bool = False
    packing: str = ""
    blocks: str = "p.blocks"


@dataclass(frozen=True)
class Accessor:
    """The storage buffer variable ``variable`` of a shader, which holds elements of ``dtype`` in the way of ``access``.

    ``type`` is what an element is in registers: ``f32`` (float32, float16), ``i32``, ``u32`` or ``bool``. With several
    ``windows``, or one that begins before the value, ``first`` is the place of its numbers in ``windows``: how many
    elements lie before the value, then how many are in the windows up to each but the last.
    """

    variable: str
    dtype: str
    access: Access
    written: bool
    type: str
    lanes: int
    windows: int = 1
    first: int | None = None
    packing: str = ""
    blocks: str = ""

    @classmethod
    def of(cls, variable: str, buffer: Buffer, access: Access) -> Accessor:
        """Return the accessor of ``buffer``; ``access`` may be another one than the buffer's own."""
        if buffer.packing:  # words, from which its functions widen the elements
            return cls(variable, "uint32", "vectors", False, "u32", 1, packing=buffer.packing, blocks=buffer.blocks)
        dtype = buffer.operand.dtype
        assert dtype.wgsl is not None, f"{dtype} has no WGSL type; compile() refuses it"
        return cls(variable, dtype.name, access, buffer.written, dtype.wgsl, dtype.lanes)

    @property
    def variables(self) -> list[str]:
        """The variable of each window."""
        return [self.variable] if self.windows == 1 else [f"{self.variable}_{n}" for n in range(self.windows)]

    @property
    def _atomic(self) -> bool:
        return self.written and self.access == "elements" and self.lanes > 1

    @property
    def declared(self) -> str:
        """The element type of the buffer's array."""
        if self.lanes == 1:
            return f"vec4<{self.type}>" if self.access == "vectors" else self.type
        if self._atomic:
            return "atomic<u32>"
        words = {"vectors": "vec2<u32>", "eights": "vec4<u32>"} if self.lanes == 2 else {}
        return words.get(self.access, "u32")

    def functions(self, name: str, text: str) -> str:
        """Return the functions of operand ``name`` that ``text`` calls."""
        if self.packing:
            own = packed.functions(self.packing, name, text, self.blocks)
            return "\n".join([replace(self, packing="").functions(f"{name}_words", own), own])
        if self.first is not None:
            called = (verb for verb in _PER_INDEX if f"{verb}_{name}(" in text)
            return "\n".join(piece for verb in called for piece in self._windowed(verb, name, self.first))
        made = {
            "load": f"fn load_{name}(i: u32) -> {self.type} {{ return {self._load()}; }}",
            "load4": f"fn load4_{name}(i: u32) -> vec4<{self.type}> {{ {self._load4()} }}",
            "bits": f"fn bits_{name}(i: u32) -> vec4<u32> {{ return {self._bits()}; }}",
        }
        if self.written:
            if self.lanes == 1 or self._atomic:
                made["store"] = f"fn store_{name}(i: u32, value: {self.type}) {{ {self._store()} }}"
            if self.access == "vectors":
                made["store4"] = f"fn store4_{name}(i: u32, value: vec4<{self.type}>) {{ {self._store4()} }}"
            if self.access == "words":
                made["write"] = f"fn write_{name}(w: u32) {{ {self.variable}[w] = {self._word_of(name)}; }}"
        return "\n".join(function for verb, function in made.items() if f"{verb}_{name}(" in text)

    def _windowed(self, verb: str, name: str, first: int) -> Iterator[str]:
        """``verb`` for each window, and the function that finds the window of an index."""
        per = _PER_INDEX[verb] or self.lanes
        numbers = [f"windows[{n // 4}].{'xyzw'[n % 4]}" for n in range(first, first + self.windows)]
        base, *ends = (f"{number} / {per}u" if per > 1 else number for number in numbers)
        returned = {"load4": f"vec4<{self.type}>", "bits": "vec4<u32>", "load": self.type}.get(verb)
        given = {"store": self.type, "store4": f"vec4<{self.type}>", "write": self.declared}.get(verb)
        for n, variable in enumerate(self.variables):
            own = f"{verb}_{name}_{n}"
            if verb == "write":
                yield f"fn {own}(w: u32, word: {given}) {{ {variable}[w] = word; }}"
            else:
                yield replace(self, variable=variable, windows=1, first=None).functions(f"{name}_{n}", f"{own}(")
        value = "" if given is None else ", value"
        begin, end = ("return ", "") if returned else ("", " return;")
        lines = [f"let at = i + {base};"]
        if verb == "write":
            lines.append(f"let w = i; let value = {self._word_of(name)};")
        for n, stop in enumerate(ends):
            at = f"at - {ends[n - 1]}" if n else "at"
            lines.append(f"if (at < {stop}) {{ {begin}{verb}_{name}_{n}({at}{value});{end} }}")
        last = f"at - {ends[-1]}" if ends else "at"
        lines.append(f"{begin}{verb}_{name}_{len(ends)}({last}{value});")
        parameters = "i: u32" if given is None or verb == "write" else f"i: u32, value: {given}"
        result = f" -> {returned}" if returned else ""
        yield f"fn {verb}_{name}({parameters}){result} {{\n  {chr(10).join(lines).replace(chr(10), chr(10) + '  ')}\n}}"

    def _word(self) -> str:
        """The word, or for larger elements the element, that element ``i`` lies in."""
        if self.access == "vectors" and self.lanes < 4:
            return f"{self.variable}[i / 4u][i % 4u{' / 2u' if self.lanes == 2 else ''}]"
        return f"{self.variable}[i{f' / {self.lanes}u' if self.lanes > 1 else ''}]"

    def _load(self) -> str:
        word = f"atomicLoad(&{self._word()})" if self._atomic else self._word()
        if self.lanes == 1:
            return word
        if self.lanes == 2:
            return f"unpack2x16float({word} >> (i % 2u * 16u)).x"
        return f"(({word} >> (i % 4u * 8u)) & 0xffu) != 0u"

    def _load4(self) -> str:
        """Return WGSL that loads four elements: one vector where the buffer has vectors, else single words."""
        b, vectors = self.variable, self.access == "vectors"
        if self.lanes == 1:
            parts = ", ".join(f"{b}[4u * i + {j}u]" for j in range(4))
            return f"return {b}[i];" if vectors else f"return vec4<{self.type}>({parts});"
        if self.lanes == 2:
            word = f"let w = {b}[i];" if vectors else f"let w = vec2<u32>({b}[2u * i], {b}[2u * i + 1u]);"
            return f"{word} return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));"
        return f"return ((vec4<u32>({b}[i]) >> {BYTES}) & vec4<u32>(0xffu)) != vec4<u32>();"

    def _bits(self) -> str:
        if self.access == "eights":
            return f"{self.variable}[i]"
        return f"vec4<u32>({', '.join(f'{self.variable}[4u * i + {j}u]' for j in range(4))})"

    def _store(self) -> str:
        if self.lanes == 1:
            return f"{self._word()} = value;"
        bits, width = ("half_bits(value)", 16) if self.lanes == 2 else ("u32(value)", 8)
        # Only this invocation changes these bits: what they were, xor what they shall be, is all that has to change.
        return (
            f"let at = i % {self.lanes}u * {width}u; let word = &{self.variable}[i / {self.lanes}u]; "
            f"let old = (atomicLoad(word) >> at) & {hex(2**width - 1)}u; atomicXor(word, (old ^ {bits}) << at);"
        )

    def _store4(self) -> str:
        b = self.variable
        if self.lanes == 1:
            return f"{b}[i] = value;"
        if self.lanes == 2:
            return f"{b}[i] = vec2<u32>(half_pair(value.xy), half_pair(value.zw));"
        return f"{b}[i] = dot(vec4<u32>(value), vec4<u32>(1u, 0x100u, 0x10000u, 0x1000000u));"

    def _word_of(self, name: str) -> str:
        """The word ``w`` of a dense result, from the file's own values."""
        lanes = self.lanes
        values = [f"value_of_{name}({f'{lanes}u * w + {j}u' if lanes > 1 else 'w'})" for j in range(lanes)]
        if lanes == 1:
            return values[0]
        if lanes == 2:
            return f"half_pair(vec2<f32>({values[0]}, {values[1]}))"
        return " | ".join(f"(u32({value}) << {8 * j}u)" for j, value in enumerate(values))
