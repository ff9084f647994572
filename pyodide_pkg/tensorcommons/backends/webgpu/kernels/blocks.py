"""Reading the operands of a product four by four, by what lies side by side: "depth", "across", or neither."""

from __future__ import annotations

# [k][i] is element i of row (or column) `first` at depth `depth` + k.
BLOCKS = {
    "depth": """if (depth >= p.depth) {{ return mat4x4<f32>(); }}
  let at = vec4<u32>(vec4<i32>(start + i32(depth)) + vec4<i32>(four_from({first}, {count})) * {across}) / 4u;
  return transpose(mat4x4<f32>(load4_{name}(at.x), load4_{name}(at.y), load4_{name}(at.z), load4_{name}(at.w)));""",
    "across": """if (depth >= p.depth) {{ return mat4x4<f32>(); }}
  let corner = u32(start + i32(min({first}, {count} - 4u)) + i32(depth) * {along}) / 4u;
  let at = vec4<u32>(corner) + vec4<u32>(0u, 1u, 2u, 3u) * u32({along} / 4);
  return mat4x4<f32>(load4_{name}(at.x), load4_{name}(at.y), load4_{name}(at.z), load4_{name}(at.w));""",
    "elements": """let side = vec4<i32>(start) + vec4<i32>(four_from({first}, {count})) * {across};
  var block: mat4x4<f32>;
  for (var k = 0u; k < 4u; k++) {{
    if (depth + k < p.depth) {{
      let at = vec4<u32>(side + i32(depth + k) * {along});
      block[k] = vec4<f32>(load_{name}(at.x), load_{name}(at.y), load_{name}(at.z), load_{name}(at.w));
    }}
  }}
  return block;""",
}
# "elements" without a loop: each step of depth as a line.
_STEP = """if (depth + {k}u < p.depth) {{{{
    let at = vec4<u32>(side + i32(depth + {k}u) * {{along}});
    block[{k}] = vec4<f32>(load_{{name}}(at.x), load_{{name}}(at.y), load_{{name}}(at.z), load_{{name}}(at.w));
  }}}}"""
BLOCKS["written out"] = "\n  ".join(
    [
        "let side = vec4<i32>(start) + vec4<i32>(four_from({first}, {count})) * {across};",
        "var block: mat4x4<f32>;",
        *(_STEP.format(k=k) for k in range(4)),
        "return block;",
    ]
)
# What linear.wgsl and row.wgsl know of b, all of it in vectors: where four columns begin, and [k][j], column j at depth
# 4k + i, from there.
COLUMNS = {
    "depth": """fn starts_of_b(first: u32) -> vec4<u32> {
  return u32(p.b_offset) / 4u + four_from(first, p.columns) * (p.depth / 4u);
}
fn columns_of_b(at: vec4<u32>, k: u32) -> mat4x4<f32> {
  let i = at + k;
  return transpose(mat4x4<f32>(load4_b(i.x), load4_b(i.y), load4_b(i.z), load4_b(i.w)));
}""",
    "across": """fn starts_of_b(first: u32) -> vec4<u32> {
  let start = u32(p.b_offset) / 4u + min(first, p.columns - 4u) / 4u;
  return vec4<u32>(start) + vec4<u32>(0u, 1u, 2u, 3u) * (u32(p.b_strides.z) / 4u);
}
fn columns_of_b(at: vec4<u32>, k: u32) -> mat4x4<f32> {
  let i = at + k * u32(p.b_strides.z);
  return mat4x4<f32>(load4_b(i.x), load4_b(i.y), load4_b(i.z), load4_b(i.w));
}""",
}
