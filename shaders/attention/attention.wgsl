// y[b, h, q] = sum over k of softmax(query[b, h, q] . key[b, h, k] * scale + mask[b, h, q, k]) * value[b, h, k].
//
// bindings: 0 params · 1 query · 2 key · 3 value · 4 mask, where there is one · last y
// dispatch: one invocation a query: x over queries, y over heads, z over the batch
//
// One pass over the keys with a running maximum (Milakov and Gimelshein, 2018; Dao et al., 2022), so the scores are
// never in memory. head_dim is a constant of the pipeline; all four operands have stride 1 along it.

struct Params {
  queries: u32,
  keys: u32,
  scale: f32,
  lowest: f32, // minus infinity, which WGSL cannot spell
  q: vec4<i32>, // strides of batch, head, row; offset
  k: vec4<i32>,
  v: vec4<i32>,
  y: vec4<i32>,
  mask: vec4<i32>, // strides of batch, head, query, key
  mask_offset: i32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const D = ${head_dim}u;

@compute @workgroup_size($workgroup)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.queries) { return; }
  let at = vec4<i32>(i32(id.z), i32(id.y), i32(id.x), 1);
  let q_at = dot(at, p.q);
  let k_at = dot(at, vec4<i32>(p.k.xy, 0, p.k.w));
  let v_at = dot(at, vec4<i32>(p.v.xy, 0, p.v.w));
  let mask_at = p.mask_offset + dot(at.xyz, p.mask.xyz);
  var q: array<f32, D>;
  var sum: array<f32, D>;
  for (var d = 0u; d < D; d++) { q[d] = $query[q_at + i32(d)] * p.scale; }
  var largest = p.lowest;
  var total = 0f;
  for (var j = 0; j < i32(p.keys); j++) {
    var score = $mask_term;
    let key_row = k_at + j * p.k.z;
    for (var d = 0u; d < D; d++) { score += q[d] * $key[key_row + i32(d)]; }
    let value_row = v_at + j * p.v.z;
    if (score > largest) {
      let shrink = exp(largest - score);
      total = total * shrink + 1f;
      for (var d = 0u; d < D; d++) { sum[d] = sum[d] * shrink + $value[value_row + i32(d)]; }
      largest = score;
    } else {
      let weight = exp(score - largest);
      total += weight;
      for (var d = 0u; d < D; d++) { sum[d] += weight * $value[value_row + i32(d)]; }
    }
  }
  let y_at = dot(at, p.y);
  for (var d = 0u; d < D; d++) { $y[y_at + i32(d)] = sum[d] / total; }
}
