// y[b, h, q] = sum over k of softmax(query[b, h, q] . key[b, g, k] * scale + mask[b, h, q, k]) * value[b, g, k], where
// g = h / sharing; for a few queries. query may be rotated first, as rotary_embedding.wgsl does it. Keys and values may
// be in pages (paging/rows.wgsl has their order), of which only those are read that a query attends to.
//
// bindings: 0 params · query · key · value · mask, if there is one, or table · cos, sin, positions, if query is rotated
//           · last y
// dispatch: a workgroup a part of the keys, query and head, spread over x and y. With several parts, y has for each the
//           weighted sum of its values, its largest score and the sum of its weights: combine.wgsl adds them up
//
// For hardware. Keys come ${lanes} at a time, with a running maximum. Four lanes share a key, so that neighbouring lanes
// read neighbouring memory, and each lane adds up the score of one key; then neighbouring lanes have neighbouring
// dimensions of the values, and each group of ${wide} lanes a share of the keys.

$head
struct Params {
  queries: u32,
  heads: u32,
  items: u32, // workgroups
  parts: u32,
  q: vec4<i32>, // strides of batch, head, row; offset
  k: vec4<i32>,
  v: vec4<i32>,
  y: vec4<i32>,
  mask: vec4<i32>, // strides of batch, head, query, key; or of rows and columns of the table, and its offset
  places: vec4<i32>, // of positions: strides of batch, head, row; offset
  mask_offset: i32,
  scale: f32,
  minus_infinity: f32, // not expressible in WGSL
  sharing: i32, // heads of the query that share one of the keys and values
  keys: i32, // or tokens in the pages of a row of the table
  span: i32, // keys of a part
  causal: i32, // 0, or the number of keys that the first query attends to
  half: u32, // of the rotated dimensions
  table_rows: i32,
  nan: f32,
  window: i32, // 0, or the number of keys that a query attends to
  pages: i32,
  size: i32, // tokens of a page
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lanes = ${lanes}u;
const dims = ${dims}u;
const fours = dims / 4u;
const wide = ${wide}u; // fours of dimensions of the values
const shares = lanes / wide;
const apart = lanes + 8u; // from a quarter of a score to the next: other banks of memory
const lowest = -3.4028234e38f;

var<workgroup> turned: array<f32, dims>;
var<workgroup> rows: array<i32, lanes>; // of the keys among all rows of keys; below 0: nothing is read
var<workgroup> quarters: array<f32, 4u * apart>; // of the scores
var<workgroup> weights: array<f32, lanes>;
var<workgroup> partial: array<f32, lanes>;
var<workgroup> sums: array<vec4<f32>, lanes>;
var<workgroup> range: vec2<i32>;

fn query_of(at: vec4<i32>, d: u32) -> f32 {
  let start = dot(at, p.q);
  let value = load_query(u32(start + i32(d)));
  $rotate
}
// The first key that the query attends to, and the one after the last.
fn range_of(at: vec4<i32>) -> vec2<i32> {
  $range
}
$reductions

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32$builtins) {
  let item = group.y * groups.x + group.x;
  if (item >= p.items) { return; }
  let part = i32(item % p.parts);
  let index = item / p.parts;
  let row = index % p.queries;
  let at = vec4<i32>(i32(index / p.queries / p.heads), i32(index / p.queries % p.heads), i32(row), 1);
  let shared_at = vec4<i32>(at.x, at.y / p.sharing, 0, 1);
  let key_start = dot(shared_at, p.k);
  let value_start = dot(shared_at, p.v);
  if (lane == 0u) { range = range_of(at); }
  let whole = workgroupUniformLoad(&range);
  let first = max(whole.x, part * p.span);
  let end = min(whole.y, (part + 1) * p.span);
  $empty
  for (var d = lane; d < dims; d += lanes) { turned[d] = query_of(at, d); }
  workgroupBarrier();
  let quarter = lane % 4u;
  $turned

  var largest = lowest;
  var total = 0f;
  var sum = vec4<f32>();
  for (var j = first / i32(lanes) * i32(lanes); j < end; j += i32(lanes)) {
    let key = j + i32(lane);
    var added = p.minus_infinity; // to the score
    rows[lane] = -1;
    if (key >= first && key < end) {
      $seen
    }
    workgroupBarrier();
    $score
    workgroupBarrier();
    var score = added;
    if (rows[lane] >= 0) {
      let far = 2u * apart + lane;
      score += (quarters[lane] + quarters[apart + lane] + quarters[far] + quarters[far + apart]) * p.scale;
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
      let count = u32(min(i32(lanes), end - j));
      for (var i = lane / wide; i < count; i += shares * ${ahead}u) {
        $add_values
      }
    }
    workgroupBarrier();
  }
  total = sum_over_lanes(total, lane$team);
  sums[lane] = sum;
  workgroupBarrier();
  if (lane >= wide) { return; }
  var result = vec4<f32>();
  for (var i = 0u; i < shares; i++) { result += sums[i * wide + lane]; }
  $store
}
