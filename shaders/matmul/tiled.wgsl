// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware. A workgroup keeps slices of a and b, eight deep, in its memory; an invocation has some blocks of 4 x 4
// of the tile's sums in registers. While slices are multiplied, the next ones are loaded to registers. For small
// products several slices are multiplied in parallel, each by separate invocations, and summed at the end.
//
// The bounds checks of browsers matter here: an index that cannot be proven to be inside of an array costs a
// minimum, and one for every multiplied vector would take a fifth of the time. So four adjacent rows (or
// columns) at all eight depths are a separate array: a lane indexes its few once per slice, and the rest are constants.

$product

const lanes_x = $x_lanes; // of a warp, eight by four: with two rows in turn, their reads of workgroup memory have no bank conflicts
const lanes_y = $y_lanes;
const warps_x = ${tile_columns}u / (lanes_x * 4u * $wide);
const tile_lanes = $tile_lanes; // that share a slice
const lanes = tile_lanes * ${slices}u;

// [four rows of a, then four columns of b][depth]; the ninth avoids bank conflicts.
var<workgroup> slices: array<array<vec4<f32>, 9>, $columns_in_memory>;

fn outer_product(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(b * a.x, b * a.y, b * a.z, b * a.w);
}

// Offsets of the blocks of a lane in the tile, in fours.
fn corner_of(own: u32) -> vec2<u32> {
  let warp = own / (lanes_x * lanes_y);
  let at = own % (lanes_x * lanes_y);
  return vec2<u32>(warp % warps_x * lanes_x * $wide + at / 2u % lanes_x,
                   warp / warps_x * lanes_y * $high + at / (2u * lanes_x) * 2u + at % 2u);
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tiles = (p.rows + ${tile_rows}u - 1u) / ${tile_rows}u;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  if (batch >= p.batch) { return; }
  let row = item % tiles * ${tile_rows}u;
  let column = group.x * ${tile_columns}u;
  let a_start = start_of(batch, p.a_offset, p.a_strides);
  let b_start = start_of(batch, p.b_offset, p.b_strides);
  let slice = lane / tile_lanes;
  let own = corner_of(lane % tile_lanes);

  $places
  var sums: array<mat4x4<f32>, $high * $wide>;
  $add_products
  $store
}
