// y[r, n] = activation(sum over k of x[r, k] * b[n, k] + bias[n]) + residual[r, n] for a few rows r.
//
// bindings: 0 params · x · the weight of the norm, if there is one · weights · their biases and residual, where they are
//           · last y
// dispatch: 4 teams of 32 lanes a workgroup, ${per} columns a team; x and y over the columns of all weights
//
// For hardware: each weight is read once, by neighbouring lanes, and multiplied with every row. x may be the RMS norm of
// what is bound: each workgroup then normalises the rows itself, with the bits of rms_norm_row.wgsl, which takes less
// time than a dispatch. Of several weights (`row_products`), each has its own workgroups and its own part of y. Of two
// gated ones, y is activation(first product) * second product.

$head
struct Params {
  depth: u32, // in vectors of ${width}
  x_offset: u32, // in vectors of 4
  eps: f32,
  row: u32, // the first row of a quantised weight that is multiplied
  parts: array<vec4<u32>, ${parts}>, // of each weight: first workgroup, columns, start of its part of y, row stride there
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const rows = ${rows}u;
const per = ${per}u;
const lanes = 128u;

$norm
$units
$reduction

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32$builtins) {
  let item = group.y * groups.x + group.x;
  $which
  let part = p.parts[which];
  let slice = $slice;
  $early
  $turns
  let column = ($first * 4u + $team) * per;
  $loads
  $stage
  $sums
  $loops
  $reduce
  let row = slice / per;
  let n = column + slice % per;
  if (slice < rows * per && n < part.y) {
    let at = part.z + row * part.w + n;
    $store
  }
  $turned
}
