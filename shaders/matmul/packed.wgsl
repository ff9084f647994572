// y = activation(a @ b + bias) + residual: a (rows, depth) row-major, b (depth, columns) of a block format.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: eight columns of ${tile_rows} rows of y per invocation: x over columns, y and z over rows
//
// For adapters where workgroup memory does not pay, as linear.wgsl and row.wgsl. The scale and the minimum of 16 numbers are
// read once.
// Eight columns, not sixteen: the functions of block formats are long, and each call is inlined. depth is a multiple
// of 32.

$product

@compute @workgroup_size(4, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = (id.z * groups.y + id.y) * ${tile_rows}u;
  let column = id.x * 8u;
  if (row >= p.rows || column >= p.columns) { return; }
  let vectors = p.depth / 4u;
  let w0 = u32(p.b_offset) / 4u + four_from(column, p.columns) * vectors;
  let w1 = u32(p.b_offset) / 4u + four_from(column + 4u, p.columns) * vectors;
  $starts
  for (var first = 0u; first < vectors; first += 4u) {
    let own00 = own_b((w0.x + first) / 4u);
    let own01 = own_b((w0.y + first) / 4u);
    let own02 = own_b((w0.z + first) / 4u);
    let own03 = own_b((w0.w + first) / 4u);
    let own10 = own_b((w1.x + first) / 4u);
    let own11 = own_b((w1.y + first) / 4u);
    let own12 = own_b((w1.z + first) / 4u);
    let own13 = own_b((w1.w + first) / 4u);
    for (var k = first; k < first + 4u; k++) {
      let unit0 = (w0 + k) / 8u;
      let j0 = (w0 + k) % 8u;
      let b0 = transpose(mat4x4<f32>(
        numbers_b(word_b(unit0.x, j0.x), own00),
        numbers_b(word_b(unit0.y, j0.y), own01),
        numbers_b(word_b(unit0.z, j0.z), own02),
        numbers_b(word_b(unit0.w, j0.w), own03)));
      let unit1 = (w1 + k) / 8u;
      let j1 = (w1 + k) % 8u;
      let b1 = transpose(mat4x4<f32>(
        numbers_b(word_b(unit1.x, j1.x), own10),
        numbers_b(word_b(unit1.y, j1.y), own11),
        numbers_b(word_b(unit1.z, j1.z), own12),
        numbers_b(word_b(unit1.w, j1.w), own13)));
      $add
    }
  }
  $store
}
