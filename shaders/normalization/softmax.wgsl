// y[row] = exp(x[row] - max) / sum(exp(x[row] - max)), or its logarithm, row-major rows.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one invocation per row, workgroups spread over x and y; no workgroup memory (for fallback adapters)

struct Params {
  rows: u32,
  columns: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (row >= p.rows) { return; }
  let start = row * p.columns;
  var largest = load_x(start);
  for (var j = 1u; j < p.columns; j++) { largest = max(largest, load_x(start + j)); }
  var sum = 0f;
  for (var first = 0u; first < p.columns; first += 128u) {
    var run = 0f;
    for (var j = first; j < min(first + 128u, p.columns); j++) {
      let v = op_exp(load_x(start + j) - largest);
      $keep
      run += v;
    }
    sum += run;
  }
  let total = $total;
  for (var j = 0u; j < p.columns; j++) { store_y(start + j, $result); }
}
