// y[r, n] = activation(sum over k of x[r, k] * b[k, n] + bias[n]) + residual[r, n] for a few rows r.
//
// bindings: 0 params · x · weight and bias of its norm, if there is one · b · bias and residual, where they are · last y
// dispatch: 16 columns a workgroup, spread over x and y
//
// As few_rows.wgsl, for one weight whose columns lie side by side. Four lanes have four columns each, and 64 slices a
// share of the depth.

struct Params {
  depth: u32,
  x_offset: u32, // in vectors of 4
  x_start: u32, // in elements
  columns: u32,
  eps: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const rows = ${rows}u;
const lanes = 256u;
const slices = 64u;

$norm
var<workgroup> partial: array<vec4<f32>, lanes * rows>; // [row][slice][column / 4]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let first = (group.y * groups.x + group.x) * 4u; // in fours of columns
  let side = lane % 4u;
  let column = min(first + side, p.columns / 4u - 1u);
  $stage
  $sums
  for (var k = lane / 4u; k < p.depth; k += slices) {
    let w = load4_b(k * (p.columns / 4u) + column);
    $add
  }
  $put
  workgroupBarrier();
  for (var half = lanes / 2u; half >= 4u; half /= 2u) {
    if (lane < half) {
      for (var r = 0u; r < rows; r++) { partial[r * lanes + lane] += partial[r * lanes + lane + half]; }
    }
    workgroupBarrier();
  }
  let row = lane / 4u;
  if (row >= rows || first + side >= p.columns / 4u) { return; }
  let total = partial[row * lanes + side];
  let at = row * (p.columns / 4u) + column;
  $store
}
