// y[row] = x[row] / sqrt(mean(x[row] ** 2) + eps) * weight, row-major rows.
//
// bindings: 0 params · 1 x · 2 weight · last y
// dispatch: one invocation per row, workgroups spread over x and y; no workgroup memory (for fallback adapters)

struct Params {
  rows: u32,
  columns: u32,
  eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (row >= p.rows) { return; }
  let start = row * p.columns;
  var squares = 0f;
  for (var first = 0u; first < p.columns; first += 128u) {
    var run = 0f;
    for (var j = first; j < min(first + 128u, p.columns); j++) {
      let v = load_x(start + j);
      run += v * v;
    }
    squares += run;
  }
  let scale = 1f / sqrt(squares / f32(p.columns) + p.eps);
  for (var j = 0u; j < p.columns; j++) { store_y(start + j, load_x(start + j) * scale * load_weight(j)); }
}
