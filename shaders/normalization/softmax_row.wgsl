// y[row] = exp(x[row] - max) / sum(exp(x[row] - max)), or its logarithm, row-major rows; a workgroup a row, for hardware.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: as in rows.wgsl
//
// One pass keeps a running maximum and the sum relative to it (Milakov and Gimelshein, 2018), a second one writes.

struct Params {
  rows: u32,
  columns: u32,
}
$rows

const lowest = -3.4028234e38f;

fn power(v: vec4<f32>, i: u32) -> vec4<f32> {
  let nan = vec4<bool>(is_nan(v.x), is_nan(v.y), is_nan(v.z), is_nan(v.w));
  return select(vec4<f32>(), select(exp(v), v, nan), inside(i));
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= p.rows) { return; }
  let count = (p.columns + 3u) / 4u;
  $steps
  $keep
  var largest = lowest;
  var sum = 0f;
  for (var j = 0u; j < steps; j++) {
    let i = lane + j * lanes;
    if (i < count) {
      let v = $again;
      let seen = select(vec4<f32>(lowest), v, inside(i));
      let most = max(largest, max(max(seen.x, seen.y), max(seen.z, seen.w)));
      sum = sum * exp(largest - most) + dot(power(v - most, i), vec4<f32>(1f));
      largest = most;
    }
  }
  let top = largest_over_lanes(largest, lane);
  let sum_over_all = sum_over_lanes(sum * exp(largest - top), lane);
  let total = $total;
  for (var j = 0u; j < steps; j++) {
    let i = lane + j * lanes;
    if (i < count) {
      put(row, i, $result);
    }
  }
}
