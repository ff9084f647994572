"""WGSL for products of a few rows with quantised weights, which few_rows.py puts into its shader.

A lane multiplies a unit of 32 numbers of a weight, as packing.py reads it, with those of x. ``units_at`` returns the
latter, and ``product`` the sum. x is float ("exact"), or int8 in blocks of 32 ("fast"), which a workgroup stages after
the norm: then quants are multiplied with quants, and each sum of 16 or 32 of them with both scales.
"""

from __future__ import annotations

from ..packing import DECODERS

LANES = 128  # of a workgroup

# A unit of a weight. Formats without minima have zeros there, which no text below reads.
UNIT = """struct Unit { quants: array<vec4<u32>, 2>, factors: vec4<f32> }"""

EXACT = """struct Units {{ low: mat4x4<f32>, high: mat4x4<f32>, sums: vec2<f32> }}
fn widened(quants: u32) -> vec4<f32> {{
  return vec4<f32>((vec4<i32>(bitcast<i32>(quants)) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}}
fn dots(x: mat4x4<f32>, quants: vec4<u32>) -> f32 {{
  return dot(x[0], widened(quants.x)) + dot(x[1], widened(quants.y))
    + dot(x[2], widened(quants.z)) + dot(x[3], widened(quants.w));
}}
fn halves(x: Units, w: Unit) -> vec2<f32> {{ return vec2<f32>(dots(x.low, w.quants[0]), dots(x.high, w.quants[1])); }}
fn whole(x: Units, w: Unit) -> f32 {{ return dots(x.low, w.quants[0]) + dots(x.high, w.quants[1]); }}
fn sum_of(x: mat4x4<f32>) -> f32 {{ return dot(x[0] + x[1] + x[2] + x[3], vec4<f32>(1f)); }}
fn units_at(row: u32, unit: u32) -> Units {{
  let at = row * {count}u + 8u * unit;
  let low = mat4x4<f32>({x[0]}, {x[1]}, {x[2]}, {x[3]});
  let high = mat4x4<f32>({x[4]}, {x[5]}, {x[6]}, {x[7]});
  return Units(low, high, vec2<f32>(sum_of(low), sum_of(high)));
}}"""

# Word ``c`` of unit ``g`` of a row is staged at c * units + g: neighbouring lanes read neighbouring words.
FAST = """var<workgroup> staged: array<u32, 8u * {units}u>;
var<workgroup> staged_scales: array<f32, {units}>;
var<workgroup> staged_sums: array<f32, 2u * {units}u>; // of the halves of each unit, times its scale
struct Units {{ low: vec4<u32>, high: vec4<u32>, scale: f32, sums: vec2<f32> }}
fn dots(x: vec4<u32>, quants: vec4<u32>) -> i32 {{
  return dot4I8Packed(x.x, quants.x) + dot4I8Packed(x.y, quants.y)
    + dot4I8Packed(x.z, quants.z) + dot4I8Packed(x.w, quants.w);
}}
fn halves(x: Units, w: Unit) -> vec2<f32> {{
  return x.scale * vec2<f32>(f32(dots(x.low, w.quants[0])), f32(dots(x.high, w.quants[1])));
}}
fn whole(x: Units, w: Unit) -> f32 {{ return x.scale * f32(dots(x.low, w.quants[0]) + dots(x.high, w.quants[1])); }}
fn units_at(row: u32, unit: u32) -> Units {{
  const units = {each}u;
  let at = row * 8u * units + unit;
  let low = vec4<u32>(staged[at], staged[at + units], staged[at + 2u * units], staged[at + 3u * units]);
  let from_high = at + 4u * units;
  let high = vec4<u32>(
    staged[from_high], staged[from_high + units], staged[from_high + 2u * units], staged[from_high + 3u * units]);
  let own = row * units + unit;
  return Units(low, high, staged_scales[own], vec2<f32>(staged_sums[2u * own], staged_sums[2u * own + 1u]));
}}
fn quants_of(v: vec4<f32>, inverse: f32) -> u32 {{ return pack4xI8(vec4<i32>(round(v * inverse))); }}
fn sum_of(quants: u32) -> i32 {{ return dot4I8Packed(quants, 0x01010101u); }}"""

# Eight neighbouring lanes have a block. Lanes beyond the row compute numbers that nothing stores.
STAGE_FAST = """for (var j = 0u; j < {turns}u; j++) {{
    let i = lane + j * lanes;
    let v = {value};
    var most = int8_magnitude(v);
    most = max(most, subgroupShuffleXor(most, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    most = max(most, subgroupShuffleXor(most, 4u));
    let scale = int8_scale(most);
    let quants = quants_of(v, int8_inverse(scale));
    var sum = sum_of(quants);
    sum += subgroupShuffleXor(sum, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    if (i < count) {{
      staged[(row * 8u + i % 8u) * (count / 8u) + i / 8u] = quants;
      if (i % 4u == 0u) {{ staged_sums[(row * count + i) / 4u] = scale * f32(sum); }}
      if (i % 8u == 0u) {{ staged_scales[(row * count + i) / 8u] = scale; }}
    }}
  }}"""
# The same where no subgroups of 32 are known: a lane has a block.
STAGE_ALONE = """for (var unit = lane; unit < count / 8u; unit += lanes) {{
    var most = 0u;
    for (var c = 0u; c < 8u; c++) {{
      let i = 8u * unit + c;
      most = max(most, int8_magnitude({value}));
    }}
    let scale = int8_scale(most);
    let inverse = int8_inverse(scale);
    var sums = vec2<i32>();
    for (var c = 0u; c < 8u; c++) {{
      let i = 8u * unit + c;
      let quants = quants_of({value}, inverse);
      staged[(row * 8u + c) * (count / 8u) + unit] = quants;
      sums[c / 4u] += sum_of(quants);
    }}
    let own = row * (count / 8u) + unit;
    staged_scales[own] = scale;
    staged_sums[2u * own] = scale * f32(sums.x);
    staged_sums[2u * own + 1u] = scale * f32(sums.y);
  }}"""


def staged_bytes(rows: int, depth: int) -> int:
    """Return the bytes of workgroup memory of x in int8."""
    return rows * depth // 32 * (32 + 4 + 8)


def declarations(rows: int, depth: int, *, fast: bool, x: str) -> str:
    """Return the declarations of units of x (rows, depth) and their products.

    ``x`` is WGSL for vector ``{at}`` of float x, of which "fast" has none.
    """
    units = depth // 32
    if fast:
        return f"{UNIT}\n{FAST.format(units=rows * units, each=units)}"
    return f"{UNIT}\n{EXACT.format(count=depth // 4, x=[x.format(at=f'at + {c}u') for c in range(8)])}"


def stage(depth: int, value: str, *, subgroups: bool) -> str:
    """Return the statements that quantise vectors ``value`` (of ``i``) of a row; with ``subgroups`` of 32 lanes."""
    return (STAGE_FAST if subgroups else STAGE_ALONE).format(value=value, turns=-(-depth // (4 * LANES)))


def unit(name: str, place: str) -> str:
    """Return WGSL for the unit ``place`` of the weight ``name``."""
    return f"Unit(quants_{name}({place}), factors_{name}({place}))"


def product(packing: str, x: str, w: str) -> str:
    """Return WGSL for the product of units ``x`` and ``w``, of a weight of the format ``packing``."""
    decoder = DECODERS[packing]
    if decoder.group == 16:
        total, less = f"dot(halves({x}, {w}), {w}.factors.xy)", f"dot({x}.sums, {w}.factors.zw)"
    else:
        total, less = f"whole({x}, {w}) * {w}.factors.x", f"({x}.sums.x + {x}.sums.y) * {w}.factors.z"
    return f"({total} - {less})" if decoder.minima else total
