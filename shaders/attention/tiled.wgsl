// y[b, h, q] = sum over k of softmax(query[b, h, q] . key[b, g, k] * scale + mask[b, h, q, k]) * value[b, g, k], where
// g = h / sharing.
//
// bindings: 0 params · 1 query · 2 key · 3 value · 4 mask, if there is one · last y
// dispatch: 32 queries and 64 dimensions of the values per workgroup: x over queries, y and z over heads, batch and
//           dimensions; values wider than 64 compute their scores once for each 64
//
// For hardware. One pass over the keys, 64 at a time, with a running maximum (Milakov and Gimelshein, 2018; Dao et al.,
// 2022): no score leaves the workgroup. An invocation has the scores of 4 queries and 4 keys, then 4 dimensions of the
// same queries' sums, of a share of the keys where values have fewer than 64 dimensions. Queries and keys come through
// workgroup memory in slices, as do the weights of the keys; values are read in place, eight in flight
// together.

$common

const depth = 16u; // of a slice
const wide = ${wide}u; // fours of dimensions
const share = 4u * wide; // keys of 64 in the sums of one lane

// Little memory lets several workgroups share a processor: the memory of the keys is reused for their weights. One
// vector of padding avoids bank conflicts; `place_of` gives the order of a slice's dimensions.
var<workgroup> q_slice: array<array<vec4<f32>, 17>, 8>; // [query / 4][dimension]
var<workgroup> k_slice: array<array<vec4<f32>, 17>, 32>; // [key / 4][dimension]; [query / 4 * 4 + key / 16][key % 16]
var<workgroup> partial: array<vec4<f32>, 16u * 8u>; // [key / 4][query / 4]
$skip_memory

fn outer_product(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(b * a.x, b * a.y, b * a.z, b * a.w);
}
// Those of one lane's vector are apart, to avoid bank conflicts between adjacent lanes.
fn place_of(dimension: u32) -> u32 { return dimension / 4u * 2u + dimension % 2u + dimension % 4u / 2u * 8u; }
fn four_rows(first: u32, count: u32) -> vec4<i32> {
  return vec4<i32>(min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(count - 1u)));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tile = group.x * 32u;
  let item = group.z * groups.y + group.y;
  let chunk = item / (p.heads * p.batch) * 64u;
  if (chunk >= p.value_dim) { return; }
  let at = vec4<i32>(i32(item / p.heads % p.batch), i32(item % p.heads), 0, 1);
  let shared_at = vec4<i32>(at.x, at.y / p.sharing, 0, 1);
  let query_start = vec4<i32>(dot(at, p.q));
  let key_start = vec4<i32>(dot(shared_at, p.k));
  let value_start = dot(shared_at, p.v);
  let y = lane / 16u; // of the fours of queries
  let x = lane % 16u; // of the fours of keys, then of dimensions
  let side = chunk + x % wide * 4u; // its dimensions
  let first = tile + y * 4u;
  let rows = four_rows(first, p.queries);
  let end = seen_by(tile + 31u);

  var largest = vec4<f32>(lowest);
  var total = vec4<f32>();
  var sums = mat4x4<f32>();
  var is_first = true;
  for (var j = 0u; j < end; j += 64u) {
    $skip
    var scores = mat4x4<f32>();
    for (var d = 0u; d < p.head_dim; d += depth) {
      workgroupBarrier();
      for (var b = lane; b < 6u * depth; b += 128u) { // blocks of 4 x 4
        let i = b / (depth / 4u);
        let near = b % (depth / 4u); // in the slice, in fours: adjacent lanes read adjacent memory
        if (i >= 8u) {
          let keys = four_rows(j + (i - 8u) * 4u, p.keys);
          let block = transpose(four_keys(key_start + keys * p.k.z, d + near * 4u));
          let to = &k_slice[i - 8u];
          for (var n = 0u; n < 4u; n++) { (*to)[place_of(near * 4u + n)] = block[n]; }
        } else if (is_first || p.head_dim > depth) {
          let queries = four_rows(tile + i * 4u, p.queries);
          let block = transpose(four_queries(query_start + queries * p.q.z, d + near * 4u));
          let to = &q_slice[i];
          for (var n = 0u; n < 4u; n++) { (*to)[place_of(near * 4u + n)] = block[n]; }
        }
      }
      workgroupBarrier();
      let q_own = &q_slice[y];
      let k_own = &k_slice[x];
      for (var i = 0u; i < depth; i++) { scores += outer_product((*q_own)[i], (*k_own)[i]); }
    }
    is_first = false;
    scores = masked(scores, at, rows, j + x * 4u);

    partial[x * 8u + y] = vec4<f32>(
      largest_of(scores[0]), largest_of(scores[1]), largest_of(scores[2]), largest_of(scores[3]));
    workgroupBarrier();
    var seen = largest;
    for (var i = 0u; i < 16u; i++) { seen = max(seen, partial[i * 8u + y]); }
    let shrink = exp(largest - seen);
    largest = seen;
    let powers = transpose(mat4x4<f32>(
      exp(scores[0] - seen.x), exp(scores[1] - seen.y), exp(scores[2] - seen.z), exp(scores[3] - seen.w)));
    total = total * shrink + powers[0] + powers[1] + powers[2] + powers[3]; // of this lane's keys alone
    let to = &k_slice[y * 4u + x / 4u];
    let own = x % 4u * 4u;
    (*to)[own] = powers[0]; (*to)[own + 1u] = powers[1]; (*to)[own + 2u] = powers[2]; (*to)[own + 3u] = powers[3];
    workgroupBarrier();
    sums = columns_times(sums, shrink);
    if (side < p.value_dim) {
      let begin = x / wide * share;
      for (var i = begin; i < min(begin + share, end - j); i += 16u) {
        let weight = &k_slice[y * 4u + i / 16u];
        $add_values
      }
    }
  }
  workgroupBarrier();
  partial[x * 8u + y] = total;
  workgroupBarrier();
  total = vec4<f32>();
  for (var i = 0u; i < 16u; i++) { total += partial[i * 8u + y]; }
  // Add the sums of other lanes for the same dimensions, through the memory of the weights.
  let mine = &k_slice[lane / 4u];
  let own = lane % 4u * 4u;
  (*mine)[own] = sums[0]; (*mine)[own + 1u] = sums[1]; (*mine)[own + 2u] = sums[2]; (*mine)[own + 3u] = sums[3];
  workgroupBarrier();
  if (x >= wide) { return; }
  for (var other = lane + wide; other < y * 16u + 16u; other += wide) {
    let theirs = &k_slice[other / 4u];
    let i = other % 4u * 4u;
    sums += mat4x4<f32>((*theirs)[i], (*theirs)[i + 1u], (*theirs)[i + 2u], (*theirs)[i + 3u]);
  }
  store(at, first, side, columns_times(sums, shares(total)));
}
