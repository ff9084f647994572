// Shared by both kernels of attention: sizes, rows of the operands, the mask, the result.

struct Params {
  queries: u32,
  keys: u32,
  head_dim: u32, // of queries and keys
  batch: u32,
  q: vec4<i32>, // strides of batch, head, row; offset
  k: vec4<i32>,
  v: vec4<i32>,
  y: vec4<i32>,
  mask: vec4<i32>, // strides of batch, head, query, key
  mask_offset: i32,
  scale: f32,
  minus_infinity: f32, // not expressible in WGSL
  heads: u32,
  sharing: i32, // heads of the query that share one of the keys and values
  causal: u32, // 0, or the number of keys that the first query attends to
  value_dim: u32, // of values and results
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lowest = -3.4028234e38f;

// Dimensions d to d + 3 of the row that begins at element `row`; zeros past the end.
fn query_at(row: i32, d: u32) -> vec4<f32> { $query }
fn key_at(row: i32, d: u32) -> vec4<f32> { $key }
fn value_at(row: i32, d: u32) -> vec4<f32> { $value }

fn four_queries(rows: vec4<i32>, d: u32) -> mat4x4<f32> {
  return mat4x4<f32>(query_at(rows.x, d), query_at(rows.y, d), query_at(rows.z, d), query_at(rows.w, d));
}
fn four_keys(rows: vec4<i32>, d: u32) -> mat4x4<f32> {
  return mat4x4<f32>(key_at(rows.x, d), key_at(rows.y, d), key_at(rows.z, d), key_at(rows.w, d));
}
fn four_values(rows: vec4<i32>, d: u32) -> mat4x4<f32> {
  return mat4x4<f32>(value_at(rows.x, d), value_at(rows.y, d), value_at(rows.z, d), value_at(rows.w, d));
}
fn largest_of(v: vec4<f32>) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
fn columns_times(m: mat4x4<f32>, s: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(m[0] * s.x, m[1] * s.y, m[2] * s.z, m[3] * s.w);
}

// Factors of the sums of four queries; a query without keys has a total of 0 and gets 0.
fn shares(total: vec4<f32>) -> vec4<f32> { return select(vec4<f32>(1f) / total, vec4<f32>(), total == vec4<f32>()); }

// Number of keys that the query of row `row` attends to.
fn seen_by(row: u32) -> u32 { return select(p.keys, min(p.keys, row + p.causal), p.causal > 0u); }

// Scores [query][key] of queries `rows` and keys from `first` on: scaled, masked, minus infinity past the last key.
fn masked(products: mat4x4<f32>, at: vec4<i32>, rows: vec4<i32>, first: u32) -> mat4x4<f32> {
  var scores = products * p.scale;
  let here = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
  let keys = vec4<i32>(min(here, vec4<u32>(p.keys - 1u)));
  $mask
  for (var i = 0; i < 4; i++) {
    scores[i] = select(vec4<f32>(p.minus_infinity), scores[i], here < vec4<u32>(seen_by(u32(rows[i]))));
  }
  return scores;
}

// Dimensions d to d + 3 of queries first to first + 3, as far as they exist.
fn store(at: vec4<i32>, first: u32, d: u32, sums: mat4x4<f32>) {
  if (d >= p.value_dim) { return; }
  for (var i = 0u; i < 4u; i++) { // constant: otherwise `sums` is spilled from registers on hardware
    if (first + i < p.queries) {
      let row = u32(dot(vec4<i32>(at.xy, i32(first + i), 1), p.y)) + d;
      $store
    }
  }
}
