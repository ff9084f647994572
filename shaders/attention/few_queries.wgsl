// y[b, h, q] = sum over k of softmax(query[b, h, q] . key[b, g, k] * scale + mask[b, h, q, k]) * value[b, g, k], where
// g = h / sharing; for a few queries. query may be rotated first, as rotary_embedding.wgsl does it.
//
// bindings: 0 params · query · key · value · mask, if there is one · cos, sin, positions, if query is rotated · last y
// dispatch: a workgroup a query and head, spread over x and y
//
// For hardware. Keys come ${lanes} at a time, one a lane, with a running maximum; then neighbouring lanes have
// neighbouring dimensions of the values, and each group of ${wide} lanes a share of the keys.

$head
struct Params {
  queries: u32,
  keys: u32,
  heads: u32,
  batch: u32,
  q: vec4<i32>, // strides of batch, head, row; offset
  k: vec4<i32>,
  v: vec4<i32>,
  y: vec4<i32>,
  mask: vec4<i32>, // strides of batch, head, query, key
  places: vec4<i32>, // of positions: strides of batch, head, row; offset
  mask_offset: i32,
  scale: f32,
  minus_infinity: f32, // not expressible in WGSL
  sharing: i32, // heads of the query that share one of the keys and values
  causal: u32, // 0, or the number of keys that the first query attends to
  half: u32, // of the rotated dimensions
  table_rows: i32,
  nan: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lanes = ${lanes}u;
const dims = ${dims}u;
const wide = ${wide}u; // fours of dimensions of the values
const shares = lanes / wide;
const lowest = -3.4028234e38f;

var<workgroup> turned: array<f32, dims>;
var<workgroup> weights: array<f32, lanes>;
var<workgroup> partial: array<f32, lanes>;
var<workgroup> parts: array<vec4<f32>, lanes>;

fn query_of(at: vec4<i32>, d: u32) -> f32 {
  let start = dot(at, p.q);
  let value = load_query(u32(start + i32(d)));
  $rotate
}
$reductions

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32$builtins) {
  let item = group.y * groups.x + group.x;
  if (item >= p.batch * p.heads * p.queries) { return; }
  let row = item % p.queries;
  let at = vec4<i32>(i32(item / p.queries / p.heads), i32(item / p.queries % p.heads), i32(row), 1);
  let shared_at = vec4<i32>(at.x, at.y / p.sharing, 0, 1);
  let key_start = dot(shared_at, p.k);
  let value_start = dot(shared_at, p.v);
  let end = select(p.keys, min(p.keys, row + p.causal), p.causal > 0u);
  for (var d = lane; d < dims; d += lanes) { turned[d] = query_of(at, d); }
  workgroupBarrier();

  var largest = lowest;
  var total = 0f;
  var sum = vec4<f32>();
  for (var j = 0u; j < end; j += lanes) {
    let key = j + lane;
    var score = p.minus_infinity;
    if (key < end) {
      $masked
      if (added > p.minus_infinity || is_nan(added)) {
        let base = u32(key_start + i32(key) * p.k.z) / 4u;
        var product = 0f;
        for (var d = 0u; d < dims / 4u; d++) {
          product += dot(vec4<f32>(turned[4u * d], turned[4u * d + 1u], turned[4u * d + 2u], turned[4u * d + 3u]), load4_key(base + d));
        }
        score = product * p.scale + added;
      }
    }
    let top = max(largest, largest_over_lanes(score, lane$team));
    let shrink = exp(largest - top);
    largest = top;
    let weight = exp(score - top);
    weights[lane] = weight;
    total = total * shrink + weight;
    workgroupBarrier();
    sum *= shrink;
    if (lane < shares * wide) {
      let count = min(lanes, end - j);
      for (var i = lane / wide; i < count; i += shares * ${ahead}u) {
        $add_values
      }
    }
    workgroupBarrier();
  }
  total = sum_over_lanes(total, lane$team);
  parts[lane] = sum;
  workgroupBarrier();
  if (lane >= wide) { return; }
  var result = vec4<f32>();
  for (var i = 0u; i < shares; i++) { result += parts[i * wide + lane]; }
  result = select(result / total, vec4<f32>(), total == 0f);
  store4_y(u32(dot(at, p.y)) / 4u + lane, result);
}
