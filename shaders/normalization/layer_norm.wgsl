// y[row] = (v - mean(v)) / sqrt(var(v) + eps) * weight + bias, where v = x[row], or x[row] + residual[row].
// A row that is a sum of rows of tables, or of parts, is summed as it is read: see graph/embedding_norm.py.
//
// bindings: 0 params · 1 x · 2 weight · 3 bias · 4 residual, if there is one · last y
// dispatch: one invocation per row, workgroups spread over x and y; no workgroup memory (for fallback adapters)
//
// The first element of the row is subtracted before summing, and the mean before squaring: a large mean loses no
// digits, although float32 has a step of 1e-3 at 1e4.

struct Params {
  rows: u32,
  columns: u32,
  eps: f32,
  $more
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings
$functions
@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (row >= p.rows) { return; }
  let start = row * p.columns;
  let shift = $first;
  var sum = 0f;
  for (var first = 0u; first < p.columns; first += 128u) {
    var run = 0f;
    for (var j = first; j < min(first + 128u, p.columns); j++) {
      let v = $value - shift;
      $keep
      run += v;
    }
    sum += run;
  }
  let mean = sum / f32(p.columns);
  var squares = 0f;
  for (var first = 0u; first < p.columns; first += 128u) {
    var run = 0f;
    for (var j = first; j < min(first + 128u, p.columns); j++) {
      let v = $again - mean;
      run += v * v;
    }
    squares += run;
  }
  let scale = 1f / sqrt(squares / f32(p.columns) + p.eps);
  for (var j = 0u; j < p.columns; j++) {
    store_y(start + j, ($again - mean) * scale * load_weight(j) + load_bias(j));
  }
}
