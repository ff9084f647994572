// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware, where y is so small that whole tiles would leave most of the machine idle: a tile's depth is cut in
// slices, each the work of other invocations, whose sums are added up in workgroup memory at the end.

$product
$blocks

const slices = ${slices}u;
const lanes_x = ${tile_columns}u / 4u;
const tile_lanes = lanes_x * ${tile_rows}u / 4u;

// [block][row][slice], slices in an order of each row's own so that neighbours do not collide.
var<workgroup> partial: array<vec4<f32>, tile_lanes * 4u * slices>;

fn place_of(block: u32, row: u32, slice: u32) -> u32 {
  let i = block * 4u + row;
  return i * slices + (slice ^ (i % 8u));
}

@compute @workgroup_size(tile_lanes * slices)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let tiles = (p.rows + ${tile_rows}u - 1u) / ${tile_rows}u;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  if (batch >= p.batch) { return; }
  let slice = lane % slices;
  let row = item % tiles * ${tile_rows}u + lane / slices / lanes_x * 4u;
  let column = group.x * ${tile_columns}u + lane / slices % lanes_x * 4u;
  let a_start = start_of(batch, p.a_offset, p.a_strides);
  let b_start = start_of(batch, p.b_offset, p.b_strides);

  // Two blocks of each at a time, so that all that is read is under way together; past the depth they are zeros.
  var sums = mat4x4<f32>();
  for (var k = slice * 4u; k < p.depth; k += slices * 8u) {
    let a0 = block_a(a_start, row, k);
    let b0 = block_b(b_start, column, k);
    let a1 = block_a(a_start, row, k + slices * 4u);
    let b1 = block_b(b_start, column, k + slices * 4u);
    sums += b0 * transpose(a0) + b1 * transpose(a1);
  }
  let block = lane / slices;
  partial[place_of(block, 0u, slice)] = sums[0];
  partial[place_of(block, 1u, slice)] = sums[1];
  partial[place_of(block, 2u, slice)] = sums[2];
  partial[place_of(block, 3u, slice)] = sums[3];
  workgroupBarrier();
  if (lane < tile_lanes) { // an invocation a block
    var total = mat4x4<f32>();
    for (var s = 0u; s < slices; s++) {
      total += mat4x4<f32>(
        partial[place_of(lane, 0u, s)], partial[place_of(lane, 1u, s)],
        partial[place_of(lane, 2u, s)], partial[place_of(lane, 3u, s)]);
    }
    let first = item % tiles * ${tile_rows}u + lane / lanes_x * 4u;
    let side = group.x * ${tile_columns}u + lane % lanes_x * 4u;
    store_block(batch, first, side, total);
    for (var i = 0u; i < 4u; i++) { activate_stored(batch, first + i, side); }
  }
}
