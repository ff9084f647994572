// y[b, h, q] = (sum over s of w[s] * sums[s]) / (sum over s of w[s] * total[s]), where w[s] = exp(largest[s] - the largest
// of them); for the parts s of the keys, as few_queries.wgsl writes them. Without keys the result is 0.
//
// bindings: 0 params · 1 x, the parts · 2 y
// dispatch: a workgroup a query and head, spread over x and y

$head
struct Params {
  queries: u32,
  heads: u32,
  items: u32, // workgroups
  parts: u32,
  y: vec4<i32>, // strides of batch, head, row; offset
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lanes = ${lanes}u;
const wide = ${wide}u; // fours of dimensions
const shares = lanes / wide;
const lowest = -3.4028234e38f;

var<workgroup> partial: array<f32, lanes>;
var<workgroup> sums: array<vec4<f32>, lanes>;
var<workgroup> totals: array<f32, shares>;
$reductions

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32$builtins) {
  let item = group.y * groups.x + group.x;
  if (item >= p.items) { return; }
  let start = item * p.parts * (wide + 1u);
  var largest = lowest;
  for (var i = lane; i < p.parts; i += lanes) { largest = max(largest, load4_x(start + i * (wide + 1u) + wide).x); }
  largest = largest_over_lanes(largest, lane$team);
  let share = lane / wide;
  let four = lane % wide;
  var sum = vec4<f32>();
  var total = 0f;
  if (share < shares) {
    for (var i = share; i < p.parts; i += shares) {
      let part = start + i * (wide + 1u);
      let found = load4_x(part + wide);
      let weight = exp(found.x - largest);
      total += found.y * weight;
      sum += select(load4_x(part + four) * weight, vec4<f32>(), found.y == 0f); // no key: nothing was written
    }
    if (four == 0u) { totals[share] = total; }
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (lane >= wide) { return; }
  var result = vec4<f32>();
  total = 0f;
  for (var i = 0u; i < shares; i++) { result += sums[i * wide + lane]; total += totals[i]; }
  result = select(result / total, vec4<f32>(), total == 0f);
  let at = vec4<i32>(i32(item / p.queries / p.heads), i32(item / p.queries % p.heads), i32(item % p.queries), 1);
  store4_y(u32(dot(at, p.y)) / 4u + lane, result);
}
