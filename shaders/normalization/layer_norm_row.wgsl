// y[row] = (v - mean(v)) / sqrt(var(v) + eps) * weight + bias, where v = x[row], or x[row] + residual[row]; a workgroup
// a row, for hardware.
// A row that is a sum of rows of tables, or of parts, is summed as it is read: see graph/embedding_norm.py.
//
// bindings: 0 params · 1 x · 2 weight · 3 bias · 4 residual, if there is one · last y
// dispatch: as in rows.wgsl
//
// The first element of the row is subtracted before summing, and the mean before squaring: see layer_norm.wgsl.

struct Params {
  rows: u32,
  columns: u32,
  eps: f32,
  $more
}
$rows
$functions
fn total_of(v: vec4<f32>, i: u32) -> f32 { return dot(select(vec4<f32>(), v, inside(i)), vec4<f32>(1f)); }
fn weight_of(i: u32) -> vec4<f32> {
  $weight
}
fn bias_of(i: u32) -> vec4<f32> {
  $bias
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= p.rows) { return; }
  let count = (p.columns + 3u) / 4u;
  $steps
  $keep
  let first = value_of(row, 0u).x;
  var sum = 0f;
  for (var j = 0u; j < steps; j++) {
    let i = lane + j * lanes;
    if (i < count) {
      sum += total_of($again - first, i);
    }
  }
  let shift = sum_over_lanes(sum, lane) / f32(p.columns);
  var squares = 0f;
  for (var j = 0u; j < steps; j++) {
    let i = lane + j * lanes;
    if (i < count) {
      let v = $again - first - shift;
      squares += total_of(v * v, i);
    }
  }
  let scale = 1f / sqrt(sum_over_lanes(squares, lane) / f32(p.columns) + p.eps);
  for (var j = 0u; j < steps; j++) {
    let i = lane + j * lanes;
    if (i < count) {
      put(row, i, ($again - first - shift) * scale * weight_of(i) + bias_of(i));
    }
  }
}
