"""Reading weights of block formats in a shader: functions that widen numbers from the words of their storage.

A format is seen as int8 quants with a scale, and in some formats a minimum, for each 16 or 32 of them:
``number = quant * scale - minimum``. The functions of an operand {name} count in units of 32 numbers:

============================== =========================================================================================
``quants_{name}(unit)``        its quants, four to a word in their order, as ``array<vec4<u32>, 2>``
``factors_{name}(unit)``       the scales of its first and its last 16 numbers, then their minima
``word_{name}(unit, j)``       word j (0 to 7) of its quants
``own_{name}(sixteen)``        what ``numbers_{name}(word, own)`` needs to make numbers of a word of these 16 quants
``load4_{name}(i)``            numbers ``4 * i`` to ``4 * i + 3``; ``load_{name}(i)`` is number ``i``
``load4_{name}_words(i)``      a vector of the storage, ``load_{name}_words(i)`` a word (:mod:`.accessors`)
============================== =========================================================================================

Quants that are signed in fewer than 8 bits are in the upper bits of a byte, as the quant times a power of two that
the scale is divided by: the sign takes one xor then, and the product has the same bits. The fields of a storage begin
at multiples of the number of blocks of the weight, which the shader has in its uniform (``Buffer.blocks``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...shapes import Shape, size_of


@dataclass(frozen=True)
class Decoder:
    """The WGSL of a format whose blocks have ``size`` numbers.

    ``quants`` are the statements of a function of ``unit`` and ``j``, which returns the quants of word ``j`` of the
    unit (0 to 7) as a ``u32``, or for j = 0 and 4 those of four words as a ``vec4<u32>``: such is {T}. {load}(i) reads
    so many words at word i, {word}(i) one, and {steps} are 0, 4, 8 and 12 for the four words. ``factors`` are the
    statements of a function of ``unit``; {half}(i) reads float16 number i of the storage. {blocks} is the number of
    blocks. ``group`` is the number of quants that share a scale; with ``minima`` they have minima. ``own`` are the
    statements of a function of ``sixteen``, which returns two numbers, by default scale and minimum. ``widen`` are
    those of a function that makes four numbers of the ``word`` of their quants and these two. Without ``integers`` the
    quants are not int8, so only ``numbers`` reads them.
    """

    size: int
    quants: str
    factors: str
    group: int = 32
    minima: bool = False
    own: str = ""
    widen: str = ""
    integers: bool = True


# Four quants as numbers.
SIGNED = "vec4<f32>((vec4<i32>(bitcast<i32>(word)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u))"


def _nibbles(address: str, shift: str) -> str:
    return f"(({{load}}({address}) >> {{T}}({shift})) & {{T}}(0x0f0f0f0fu))"


def _crumbs(address: str, shift: str) -> str:
    return f"(({{load}}({address}) >> {{T}}({shift})) & {{T}}(0x03030303u))"


def _bits(address: str, shift: str) -> str:
    return f"(({{load}}({address}) >> {{T}}({shift})) & {{T}}(0x01010101u))"


def _symmetric(quants: str) -> str:
    """Return quants in the upper bits of their bytes, less half of what these hold."""
    return f"return ({quants}) ^ {{T}}(0x80808080u);"


def _one(scale: str, minimum: str = "") -> str:
    """Return the factors of a block of 32 numbers."""
    low = f"let m = -{minimum}; return vec4<f32>(d, d, m, m);" if minimum else "return vec4<f32>(d, d, 0f, 0f);"
    return f"let d = {scale}; {low}"


def _six_bits(start: int, halves: int) -> str:
    """Return the factors of Q4_K and Q5_K: ``start`` words and ``halves`` float16 for each block lie before them."""
    return f"""let g = unit % 8u;
  let at = {{blocks}} * {start}u + unit / 8u * 3u;
  let a = {{word}}(at) >> (g % 4u * 8u);
  let b = {{word}}(at + 1u) >> (g % 4u * 8u);
  let c = {{word}}(at + 2u) >> (g % 4u * 8u);
  let scale = select(a & 63u, (c & 15u) | ((a >> 2u) & 48u), g > 3u);
  let minimum = select(b & 63u, ((c >> 4u) & 15u) | ((b >> 2u) & 48u), g > 3u);
  let s = {{half}}({{blocks}} * {halves}u + unit / 8u) * f32(scale);
  let m = {{half}}({{blocks}} * {halves + 1}u + unit / 8u) * f32(minimum);
  return vec4<f32>(s, s, m, m);"""


# Quants 0 to 15 of a block of 32 are the low halves of 16 bytes, 16 to 31 the high halves.
LEGACY = _nibbles("unit * 4u + j % 4u", "j / 4u * 4u")
# The fifth bits of four quants, spread to their bytes.
FIFTHS = """let fifths = ({T}({word}({blocks} * 4u + unit)) >> ({T}(j * 4u) + {steps})) & {T}(15u);
  let upper = (fifths * 0x00204081u) & {T}(0x01010101u);
  """
# Two units have the low and the high halves of 32 bytes.
HALVES = _nibbles("unit / 2u * 8u + j", "unit % 2u * 4u")
# Four units have two bits each of 32 bytes.
QUARTERS = _crumbs("unit / 4u * 8u + j", "unit % 4u * 2u")
# The levels of IQ4_NL by quants, four to a word (formats/legacy_quants.py).
LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _levels() -> Iterator[str]:
    words = [sum((LEVELS[4 * n + k] & 0xFF) << (8 * k) for k in range(4)) for n in range(4)]
    w0, w1, w2, w3 = (f"{{T}}({word}u)" for word in words)
    yield f"let all = {LEGACY};"
    for k in range(4):
        yield f"let n{k} = (all >> {{T}}({8 * k}u)) & {{T}}(15u);"
        four = f"select(select({w0}, {w1}, n{k} > {{T}}(3u)), select({w2}, {w3}, n{k} > {{T}}(11u)), n{k} > {{T}}(7u))"
        yield f"let level{k} = (({four} >> ((n{k} & {{T}}(3u)) * 8u)) & {{T}}(255u)) << {{T}}({8 * k}u);"
    yield "return level0 | level1 | level2 | level3;"


# Four numbers of e4m3, whose exponents have a bias of 7 (float32: 127): normal ones, subnormal ones and NaN.
E4M3 = """let bytes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
  let size = bytes & vec4<u32>(127u);
  let bits = select((size << vec4<u32>(20u)) + 0x3c000000u, vec4<u32>(0x7fc00000u), size == vec4<u32>(127u));
  let number = select(bitcast<vec4<f32>>(bits), vec4<f32>(size) * 0.001953125f, size < vec4<u32>(8u));
  return select(number, -number, bytes > vec4<u32>(127u)) * own.x;"""


def _groups() -> Iterator[tuple[str, Decoder]]:
    """Yield the formats of formats/groups.py."""
    for kind, size, (end, width) in itertools.product(
        ("int4", "int8", "fp8"), (32, 64, 128), {"": 2, "_bf16": 2, "_f32": 4}.items()
    ):
        nbytes = size // 2 if kind == "int4" else size
        block = f"unit / {size // 32}u"
        scale = f"{{half}}({{blocks}} * {nbytes // 2}u + {block})"
        if end == "_bf16":
            at = f"{{blocks}} * {nbytes // 2}u + {block}"
            scale = f"bitcast<f32>(({{word}}(({at}) / 2u) >> (({at}) % 2u * 16u)) << 16u)"
        elif end:
            scale = f"bitcast<f32>({{word}}({{blocks}} * {nbytes // 4}u + {block}))"
        quants = f"return {LEGACY};" if kind == "int4" else "return {load}(unit * 8u + j);"
        if kind == "fp8":
            yield f"fp8_g{size}{end}", Decoder(size, quants, _one(scale), widen=E4M3, integers=False)
            continue
        zero = f"""let at = {{blocks}} * {nbytes + width}u + {block};
  let zero = f32(extractBits(bitcast<i32>({{word}}(at / 4u)), at % 4u * 8u, 8u));
  """
        factors = f"{zero}let s = {scale};\n  return vec4<f32>(s, s, s * zero, s * zero);"
        # The product with the difference has the bits of NumPy also where the scale is a float32.
        own = f"let unit = sixteen / 2u;\n  {zero}return vec2<f32>({scale}, zero);"
        widen = f"return ({SIGNED} - own.y) * own.x;"
        yield f"{kind}_g{size}{end}", Decoder(size, quants, factors, minima=True, own=own, widen=widen)


DECODERS: Mapping[str, Decoder] = {
    "q4_0": Decoder(
        32,
        _symmetric("({load}(unit * 4u + j % 4u) << {T}(4u - j / 4u * 4u)) & {T}(0xf0f0f0f0u)"),
        _one("{half}({blocks} * 8u + unit) * 0.0625f"),
    ),
    "q4_1": Decoder(
        32,
        f"return {LEGACY};",
        _one("{half}({blocks} * 8u + unit)", "{half}({blocks} * 9u + unit)"),
        minima=True,
    ),
    "q5_0": Decoder(
        32,
        FIFTHS + _symmetric(f"({LEGACY} << {{T}}(3u)) | (upper << {{T}}(7u))"),
        _one("{half}({blocks} * 10u + unit) * 0.125f"),
    ),
    "q5_1": Decoder(
        32,
        FIFTHS + f"return {LEGACY} | (upper << {{T}}(4u));",
        _one("{half}({blocks} * 10u + unit)", "{half}({blocks} * 11u + unit)"),
        minima=True,
    ),
    "q8_0": Decoder(32, "return {load}(unit * 8u + j);", _one("{half}({blocks} * 16u + unit)")),
    "q2_k": Decoder(
        256,
        f"return {QUARTERS};",
        """let all = {word}({blocks} * 16u + unit / 2u) >> (unit % 2u * 16u);
  let two = vec2<u32>(all, all >> 8u);
  let s = {half}({blocks} * 40u + unit / 8u) * vec2<f32>(two & vec2<u32>(15u));
  let m = {half}({blocks} * 41u + unit / 8u) * vec2<f32>((two >> vec2<u32>(4u)) & vec2<u32>(15u));
  return vec4<f32>(s, m);""",
        group=16,
        minima=True,
    ),
    "q3_k": Decoder(
        256,
        _symmetric(
            f"({QUARTERS} << {{T}}(5u)) | ({_bits('{blocks} * 16u + unit / 8u * 8u + j', 'unit % 8u')} << {{T}}(7u))"
        ),
        """let g = unit % 8u;
  let at = {blocks} * 24u + unit / 8u * 3u;
  let low = {word}(at + g % 4u / 2u) >> (g % 2u * 16u + g / 4u * 4u);
  let high = {word}(at + 2u) >> (g % 2u * 16u + g / 2u * 2u);
  let upper = (vec2<u32>(high, high >> 8u) & vec2<u32>(3u)) << vec2<u32>(4u);
  let two = (vec2<u32>(low, low >> 8u) & vec2<u32>(15u)) | upper;
  let d = {half}({blocks} * 54u + unit / 8u) * 0.03125f;
  return vec4<f32>(d * vec2<f32>(vec2<i32>(two) - 32), 0f, 0f);""",
        group=16,
    ),
    "q4_k": Decoder(256, f"return {HALVES};", _six_bits(32, 70), minima=True),
    "q5_k": Decoder(
        256,
        f"return {HALVES} | ({_bits('{blocks} * 32u + unit / 8u * 8u + j', 'unit % 8u')} << {{T}}(4u));",
        _six_bits(40, 86),
        minima=True,
    ),
    "q6_k": Decoder(
        256,
        _symmetric(
            f"({_nibbles('unit / 4u * 16u + unit % 2u * 8u + j', 'unit % 4u / 2u * 4u')} << {{T}}(2u))"
            f" | ({_crumbs('{blocks} * 32u + unit / 4u * 8u + j', 'unit % 4u * 2u')} << {{T}}(6u))"
        ),
        """let all = bitcast<i32>({word}({blocks} * 48u + unit / 2u) >> (unit % 2u * 16u));
  let two = (vec2<i32>(all) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u);
  let d = {half}({blocks} * 104u + unit / 8u) * 0.25f;
  return vec4<f32>(d * vec2<f32>(two), 0f, 0f);""",
        group=16,
    ),
    "iq4_nl": Decoder(32, "\n  ".join(_levels()), _one("{half}({blocks} * 8u + unit)")),
    **dict(_groups()),
}
# Scale and minimum of sixteen numbers, by the quants that share them.
OWN = {
    32: "return factors_{name}(sixteen / 2u).xz;",
    16: """let factors = factors_{name}(sixteen / 2u);
  return select(factors.xz, factors.yw, sixteen % 2u > 0u);""",
}
# By the name of a function, its text; those that it calls follow it.
FUNCTIONS = {
    "load": "fn load_{name}(i: u32) -> f32 {{ return load4_{name}(i / 4u)[i % 4u]; }}",
    "load4": """fn load4_{name}(i: u32) -> vec4<f32> {{
  return numbers_{name}(word_{name}(i / 8u, i % 8u), own_{name}(i / 4u));
}}""",
    "numbers": """fn numbers_{name}(word: u32, own: vec2<f32>) -> vec4<f32> {{
  {numbers}
}}""",
    "own": """fn own_{name}(sixteen: u32) -> vec2<f32> {{
  {own}
}}""",
    "quants": """fn quants_{name}(unit: u32) -> array<vec4<u32>, 2> {{
  return array<vec4<u32>, 2>(sixteen_{name}(unit, 0u), sixteen_{name}(unit, 4u));
}}""",
    "word": """fn word_{name}(unit: u32, j: u32) -> u32 {{
  {word}
}}""",
    "sixteen": """fn sixteen_{name}(unit: u32, j: u32) -> vec4<u32> {{
  {sixteen}
}}""",
    "factors": """fn factors_{name}(unit: u32) -> vec4<f32> {{
  {factors}
}}""",
    "half": """fn half_{name}(i: u32) -> f32 {{ return unpack2x16float(load_{name}_words(i / 2u))[i % 2u]; }}""",
    "four": """fn four_{name}(i: u32) -> vec4<u32> {{ return load4_{name}_words(i / 4u); }}""",
}


def blocks_of(packing: str, shape: Shape) -> int:
    """Return the number of blocks of a weight of ``shape``; 0 for a dense one."""
    return size_of(shape) // DECODERS[packing].size if packing else 0


def functions(packing: str, name: str, text: str, blocks: str) -> str:
    """Return the functions of operand ``name`` that ``text`` calls, and those that they call.

    ``blocks`` is WGSL for the number of blocks of the weight.
    """
    decoder, written = DECODERS[packing], list[str]()
    common = {"blocks": blocks, "word": f"load_{name}_words", "half": f"half_{name}"}
    one = {**common, "T": "u32", "load": f"load_{name}_words", "steps": "0u"}
    four = {**common, "T": "vec4<u32>", "load": f"four_{name}", "steps": "vec4<u32>(0u, 4u, 8u, 12u)"}
    parts = {
        "word": decoder.quants.format(**one),
        "sixteen": decoder.quants.format(**four),
        "factors": decoder.factors.format(**common),
        "own": (decoder.own or OWN[decoder.group]).format(**common, name=name),
        "numbers": decoder.widen or f"return {SIGNED} * own.x{' - own.y' if decoder.minima else ''};",
    }
    for function, piece in FUNCTIONS.items():
        if f"{function}_{name}(" in "\n".join([text, *written]):
            written.append(piece.format(name=name, **parts))
    return "\n".join(written)
