"""Reading weights of block formats in a shader: functions that widen numbers from the words of their storage.

A file that reads an operand of such a format has the uniform ``p.scales``, the first word after the quants.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...shapes import Shape, size_of

# By format, functions for an operand {name}: element i, and elements 4 * i to 4 * i + 3. `load_{name}_words` reads a
# word.
DECODERS: Mapping[str, Mapping[str, str]] = {
    "q8_0": {
        "load": """fn load_{name}(i: u32) -> f32 {{
  let quant = extractBits(bitcast<i32>(load_{name}_words(i / 4u)), i % 4u * 8u, 8u);
  return f32(quant) * scale_of_{name}(i / 32u);
}}""",
        "load4": """fn load4_{name}(i: u32) -> vec4<f32> {{
  let quants = vec4<i32>(bitcast<i32>(load_{name}_words(i))) << vec4<u32>(24u, 16u, 8u, 0u);
  return vec4<f32>(quants >> vec4<u32>(24u)) * scale_of_{name}(i / 8u);
}}""",
        "scale_of": """fn scale_of_{name}(block: u32) -> f32 {{
  return unpack2x16float(load_{name}_words(p.scales + block / 2u))[block % 2u];
}}""",
    },
}
QUANTS_PER_WORD = {"q8_0": 4}


def words_of_quants(packing: str, shape: Shape) -> int:
    """Return the words before the scales of a weight of ``shape``; 0 for a dense one."""
    return size_of(shape) // QUANTS_PER_WORD[packing] if packing else 0
