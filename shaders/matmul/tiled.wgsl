// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware. A workgroup keeps a slice of a and b, eight deep, in its memory; an invocation has some blocks of 4 x 4
// of the tile's sums in registers. While a slice is multiplied, the next is on its way to registers.
//
// The checks that a browser adds decide here, too: an index that it cannot prove to be inside of an array costs a
// minimum, and one for every vector that is multiplied would take a fifth of the time. So four neighbouring rows (or
// columns) at all eight depths are an array of their own: a lane finds its few once a slice, and the rest are constants.

$product

const lanes_x = $x_lanes; // of a warp, eight by four: with two rows in turn, their reads of workgroup memory do not collide
const lanes_y = $y_lanes;
const warps_x = ${tile_columns}u / (lanes_x * 4u * $wide);

// [four rows of a, then four columns of b][depth]; the ninth keeps neighbours from colliding.
var<workgroup> slices: array<array<vec4<f32>, 9>, $columns_in_memory>;

fn outer_product(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(b * a.x, b * a.y, b * a.z, b * a.w);
}

@compute @workgroup_size($lanes)
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
  let slice = lane / $tile_lanes;
  let warp = lane % $tile_lanes / (lanes_x * lanes_y);
  let own = lane % (lanes_x * lanes_y);
  let x = warp % warps_x * lanes_x * $wide + own / 2u % lanes_x;
  let y = warp / warps_x * lanes_y * $high + own / (2u * lanes_x) * 2u + own % 2u;

  $places
  var sums: array<mat4x4<f32>, $high * $wide>;
  $fetch_first
  for (var k = 0u; k < p.depth; k += $step) {
    $put
    workgroupBarrier();
    $fetch_next
    $own_columns
    for (var d = 0u; d < 8u; d++) {
      $multiply
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < $high * $wide; i++) {
    store_block(batch, row + (y + i / $wide * lanes_y) * 4u, column + (x + i % $wide * lanes_x) * 4u, sums[i]);
  }
  for (var i = 0u; i < $high * $wide * 4u; i++) {
    let block = i / 4u;
    let m = row + (y + block / $wide * lanes_y) * 4u + i % 4u;
    activate_stored(batch, m, column + (x + block % $wide * lanes_x) * 4u);
  }
}
