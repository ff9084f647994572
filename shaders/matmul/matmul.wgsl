// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]) + residual[..., m, n], any strides.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a 4 x 4 tile of y per invocation: x over columns, y and z over rows and batch
//
// The general product: it supports every layout, so transposed operands and odd sizes need no copy.

$product
$blocks

@compute @workgroup_size(4, 4)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_id) lane: vec3<u32>) {
  let tiles = (p.rows + 15u) / 16u;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  let row = (item % tiles * 4u + lane.y) * 4u;
  let column = (group.x * 4u + lane.x) * 4u;
  if (batch >= p.batch || row >= p.rows || column >= p.columns) { return; }
  let a_start = start_of(batch, p.a_offset, p.a_strides);
  let b_start = start_of(batch, p.b_offset, p.b_strides);
  var sums = mat4x4<f32>();
  for (var k = 0u; k < p.depth; k += 4u) {
    sums += block_b(b_start, column, k) * transpose(block_a(a_start, row, k));
  }
  store_block(batch, row, column, sums);
}
