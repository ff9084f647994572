// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware. A workgroup keeps slices of a and b, eight deep, in its memory, neighbouring rows of a side by side;
// an invocation has 8 x 8 of the tile's sums in registers. While a slice is multiplied, the next is on its way: first
// into registers, then into the other half of the memory, so a slice has one barrier.
//
// What is fetched and put is text and no function (FETCH and PUT of kernels/matmul.py): with
// functions the driver of the H200 waits for the loads at their return, 18 TFLOP/s instead of 27 at 1024.

$product
$blocks

const tile_rows = ${tile_rows}u;
const tile_columns = ${tile_columns}u;
const depth = 8u; // of a slice
const a_width = tile_rows / 4u; // vectors of one k in workgroup memory
const b_width = tile_columns / 4u;
const a_blocks = a_width * 2u; // of 4 x 4, that a slice has
const blocks = a_blocks + b_width * 2u; // no more than lanes
const lanes = tile_rows * tile_columns / 64u;

var<workgroup> a_slice: array<vec4<f32>, 2u * depth * a_width>;
var<workgroup> b_slice: array<vec4<f32>, 2u * depth * b_width>;

fn outer_product(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(b * a.x, b * a.y, b * a.z, b * a.w);
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tiles = (p.rows + tile_rows - 1u) / tile_rows;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  if (batch >= p.batch) { return; }
  let row = item % tiles * tile_rows;
  let column = group.x * tile_columns;
  let a_start = start_of(batch, p.a_offset, p.a_strides);
  let b_start = start_of(batch, p.b_offset, p.b_strides);
  // 32 lanes have 32 x 64 sums, two rows of lanes in turn: so their reads of workgroup memory do not collide.
  let warp = lane / 32u;
  let x = warp % (tile_columns / 64u) * 16u + lane / 2u % 8u;
  let y = warp / (tile_columns / 64u) * 8u + lane / 16u % 2u * 2u + lane % 2u;

  // The block of 4 x 4 that this lane brings of every slice, of a or of b: its k / 4, and its row or column / 4.
  // Neighbouring lanes take neighbours in memory.
  let of_b = lane - a_blocks;
  let a_from = select(vec2<u32>(lane / a_width, lane % a_width), vec2<u32>(lane % 2u, lane / 2u), a_by_depth);
  let b_from = select(vec2<u32>(of_b / b_width, of_b % b_width), vec2<u32>(of_b % 2u, of_b / 2u), b_by_depth);
  let a_to = a_from.x * 4u * a_width + a_from.y;
  let b_to = b_from.x * 4u * b_width + b_from.y;

  var sums: array<mat4x4<f32>, 4>;
  var next: mat4x4<f32>;
  var half = 0u;
  $fetch_first
  $put
  for (var k = 0u; k < p.depth; k += depth) {
    workgroupBarrier();
    $fetch_next
    let a_at = half * depth * a_width + y;
    let b_at = half * depth * b_width + x;
    for (var d = 0u; d < depth; d++) {
      let a0 = a_slice[a_at + d * a_width]; let a1 = a_slice[a_at + d * a_width + 4u];
      let b0 = b_slice[b_at + d * b_width]; let b1 = b_slice[b_at + d * b_width + 8u];
      sums[0] += outer_product(a0, b0); sums[1] += outer_product(a0, b1);
      sums[2] += outer_product(a1, b0); sums[3] += outer_product(a1, b1);
    }
    half = 1u - half;
    $put
  }
  for (var i = 0u; i < 4u; i++) {
    store_block(batch, row + y * 4u + i / 2u * 16u, column + x * 4u + i % 2u * 32u, sums[i]);
  }
  for (var i = 0u; i < 16u; i++) {
    activate_stored(batch, row + y * 4u + i / 8u * 16u + i % 4u, column + x * 4u + i / 4u % 2u * 32u);
  }
}
