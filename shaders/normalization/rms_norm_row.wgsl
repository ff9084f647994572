// y[row] = x[row] / sqrt(mean(x[row] ** 2) + eps) * weight, row-major rows; a workgroup a row, for hardware.
//
// bindings: 0 params · 1 x · 2 weight · last y
// dispatch: as in rows.wgsl

struct Params {
  rows: u32,
  columns: u32,
  eps: f32,
}
$rows

fn weight_of(i: u32) -> vec4<f32> {
  $weight
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= p.rows) { return; }
  let count = (p.columns + 3u) / 4u;
  $steps
  $keep
  var squares = 0f;
  for (var j = 0u; j < steps; j++) {
    let i = lane + j * lanes;
    if (i < count) {
      let v = select(vec4<f32>(), $again, inside(i));
      squares += dot(v, v);
    }
  }
  let scale = 1f / sqrt(sum_over_lanes(squares, lane) / f32(p.columns) + p.eps);
  for (var j = 0u; j < steps; j++) {
    let i = lane + j * lanes;
    if (i < count) {
      put(row, i, $again * scale * weight_of(i));
    }
  }
}
