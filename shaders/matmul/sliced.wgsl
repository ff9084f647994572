// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a tile of y a workgroup: x over columns, y and z over rows and batch
//
// For hardware, where y is so small that whole tiles would leave most of the machine idle: a tile's depth is cut in
// slices, each the work of other invocations, which add up their sums in workgroup memory at the end.

$product

const slices = ${slices}u;
const lanes_x = ${tile_columns}u / 4u;
const tile_lanes = lanes_x * ${tile_rows}u / 4u;

var<workgroup> partial: array<mat4x4<f32>, tile_lanes * slices / 2u>;

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

  var sums = mat4x4<f32>();
  for (var k = slice * 4u; k < p.depth; k += slices * 4u) {
    sums += block_b(b_start, column, k) * transpose(block_a(a_start, row, k));
  }
  // The upper half of the slices hands its sums to the lower half, until one is left.
  let at = lane / slices * (slices / 2u) + slice;
  for (var half = slices / 2u; half > 0u; half /= 2u) {
    if (slice >= half && slice < 2u * half) { partial[at - half] = sums; }
    workgroupBarrier();
    if (slice < half) { sums += partial[at]; }
    workgroupBarrier();
  }
  if (slice == 0u) { store_block(batch, row, column, sums); }
}
