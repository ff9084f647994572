// y[b, h, q] = sum over k of softmax(query[b, h, q] . key[b, g, k] * scale + mask[b, h, q, k]) * value[b, g, k], where
// g = h / sharing.
//
// bindings: 0 params · 1 query · 2 key · 3 value · 4 mask, if there is one · last y
// dispatch: 4 queries and 32 dimensions of the values per invocation: x over queries, y and z over heads, batch and
//           dimensions; values wider than 32 compute their scores once for each 32
//
// One pass over the keys, four at a time, with a running maximum (Milakov and Gimelshein, 2018; Dao et al., 2022): the
// scores are never in memory. All state is in named variables, so in registers: an array indexed by a loop variable
// made this 10 times slower on SwiftShader. Four vectors are the columns of a matrix: `transpose(keys) * queries` is 16
// scores, `values * weights` is the weighted sum for four queries.

$common

@compute @workgroup_size($workgroup)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let first = id.x * 4u;
  let item = id.z * groups.y + id.y;
  let chunk = item / (p.heads * p.batch) * 32u;
  if (first >= p.queries || chunk >= p.value_dim) { return; }
  let at = vec4<i32>(i32(item / p.heads % p.batch), i32(item % p.heads), 0, 1);
  let rows = min(vec4<i32>(i32(first)) + vec4<i32>(0, 1, 2, 3), vec4<i32>(i32(p.queries) - 1));
  let query_rows = vec4<i32>(dot(at, p.q)) + rows * p.q.z;
  let shared_at = vec4<i32>(at.x, at.y / p.sharing, 0, 1);
  let key_start = vec4<i32>(dot(shared_at, p.k));
  let value_start = vec4<i32>(dot(shared_at, p.v));
  let end = i32(seen_by(first + 3u));

  var largest = vec4<f32>(lowest);
  var total = vec4<f32>();
  var y0 = mat4x4<f32>(); var y1 = mat4x4<f32>(); var y2 = mat4x4<f32>(); var y3 = mat4x4<f32>();
  var y4 = mat4x4<f32>(); var y5 = mat4x4<f32>(); var y6 = mat4x4<f32>(); var y7 = mat4x4<f32>();
  for (var j = 0; j < end; j += 4) {
    let keys = min(vec4<i32>(j) + vec4<i32>(0, 1, 2, 3), vec4<i32>(i32(p.keys) - 1));
    let key_rows = key_start + keys * p.k.z;
    var scores = mat4x4<f32>();
    for (var d = 0u; d < p.head_dim; d += 4u) {
      scores += transpose(four_keys(key_rows, d)) * four_queries(query_rows, d);
    }
    scores = masked(scores, at, rows, u32(j));
    let seen = max(largest, vec4<f32>(
      largest_of(scores[0]), largest_of(scores[1]), largest_of(scores[2]), largest_of(scores[3])));
    let shrink = exp(largest - seen);
    let weights = mat4x4<f32>(
      exp(scores[0] - seen.x), exp(scores[1] - seen.y), exp(scores[2] - seen.z), exp(scores[3] - seen.w));
    largest = seen;
    total = total * shrink + vec4<f32>(1f) * weights;
    let value_rows = value_start + keys * p.v.z;
    y0 = columns_times(y0, shrink) + four_values(value_rows, chunk) * weights;
    y1 = columns_times(y1, shrink) + four_values(value_rows, chunk + 4u) * weights;
    y2 = columns_times(y2, shrink) + four_values(value_rows, chunk + 8u) * weights;
    y3 = columns_times(y3, shrink) + four_values(value_rows, chunk + 12u) * weights;
    y4 = columns_times(y4, shrink) + four_values(value_rows, chunk + 16u) * weights;
    y5 = columns_times(y5, shrink) + four_values(value_rows, chunk + 20u) * weights;
    y6 = columns_times(y6, shrink) + four_values(value_rows, chunk + 24u) * weights;
    y7 = columns_times(y7, shrink) + four_values(value_rows, chunk + 28u) * weights;
  }
  let divide = shares(total);
  var sums = array<mat4x4<f32>, 8>(y0, y1, y2, y3, y4, y5, y6, y7);
  for (var c = 0u; c < 8u; c++) { store(at, first, chunk + c * 4u, columns_times(sums[c], divide)); }
}
