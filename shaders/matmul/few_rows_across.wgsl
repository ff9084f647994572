// y[r, n] = activation(sum over k of x[r, k] * b[k, n] + bias[n]) + residual[r, n] for a few rows r.
//
// bindings: 0 params · x · weight and bias of its norm, if there is one · b · bias and residual, where they are · last y
// dispatch: 4 * ${fours} columns a workgroup, spread over x and y
//
// As few_rows.wgsl, for one weight whose columns lie side by side. ${fours} lanes have four columns each, and each such group
// of lanes is a slice with a share of the depth.

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
const fours = ${fours}u;
const slices = lanes / fours;

$norm
var<workgroup> partial: array<vec4<f32>, lanes * rows>; // [row][slice][column / 4]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let first = (group.y * groups.x + group.x) * fours; // in fours of columns
  let side = lane % fours;
  let column = min(first + side, p.columns / 4u - 1u);
  $stage
  $sums
  for (var k = lane / fours; k < p.depth; k += slices * ${ahead}u) {
    $add
  }
  $put
  workgroupBarrier();
  for (var half = lanes / 2u; half >= fours; half /= 2u) {
    if (lane < half) {
      for (var r = 0u; r < rows; r++) { partial[r * lanes + lane] += partial[r * lanes + lane + half]; }
    }
    workgroupBarrier();
  }
  let row = lane / fours;
  if (row >= rows || first + side >= p.columns / 4u) { return; }
  let total = partial[row * lanes + side];
  let at = row * (p.columns / 4u) + column;
  $store
}
