// y = activation(a @ b + bias) + residual: a (rows, depth) row-major, b (depth, columns) row-major or column-major.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: a 16 x 16 tile of y per invocation: x over columns, y and z over rows
//
// For adapters where workgroup memory and barriers cost more than they save (SwiftShader: a matmul of 512 takes 60 ms
// like this, 250 with 4 x 4 tiles, over 650 with barriers). Everything stays in registers: four rows of a and four
// columns of b are 4 x 4 matrices, and one matrix product adds 4 steps of depth to 16 sums. depth is a multiple of 4.

$product
$columns_of_b

// Offsets of four rows from `first` on, in vectors. Rows past the end repeat the last one; their sums are never stored.
fn starts_of_a(first: u32) -> vec4<u32> {
  return u32(p.a_offset) / 4u + four_from(first, p.rows) * (p.depth / 4u);
}
fn rows_of_a(at: vec4<u32>, k: u32) -> mat4x4<f32> {
  let i = at + k;
  return mat4x4<f32>(load4_a(i.x), load4_a(i.y), load4_a(i.z), load4_a(i.w));
}

@compute @workgroup_size(4, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = (id.z * groups.y + id.y) * 16u;
  let column = id.x * 16u;
  if (row >= p.rows || column >= p.columns) { return; }
  var c00 = mat4x4<f32>(); var c01 = mat4x4<f32>(); var c02 = mat4x4<f32>(); var c03 = mat4x4<f32>();
  var c10 = mat4x4<f32>(); var c11 = mat4x4<f32>(); var c12 = mat4x4<f32>(); var c13 = mat4x4<f32>();
  var c20 = mat4x4<f32>(); var c21 = mat4x4<f32>(); var c22 = mat4x4<f32>(); var c23 = mat4x4<f32>();
  var c30 = mat4x4<f32>(); var c31 = mat4x4<f32>(); var c32 = mat4x4<f32>(); var c33 = mat4x4<f32>();
  let x0 = starts_of_a(row); let x1 = starts_of_a(row + 4u);
  let x2 = starts_of_a(row + 8u); let x3 = starts_of_a(row + 12u);
  let w0 = starts_of_b(column); let w1 = starts_of_b(column + 4u);
  let w2 = starts_of_b(column + 8u); let w3 = starts_of_b(column + 12u);
  for (var k = 0u; k < p.depth / 4u; k++) {
    let b0 = columns_of_b(w0, k);
    let b1 = columns_of_b(w1, k);
    let b2 = columns_of_b(w2, k);
    let b3 = columns_of_b(w3, k);
    let a0 = rows_of_a(x0, k);
    c00 += b0 * a0; c01 += b1 * a0; c02 += b2 * a0; c03 += b3 * a0;
    let a1 = rows_of_a(x1, k);
    c10 += b0 * a1; c11 += b1 * a1; c12 += b2 * a1; c13 += b3 * a1;
    let a2 = rows_of_a(x2, k);
    c20 += b0 * a2; c21 += b1 * a2; c22 += b2 * a2; c23 += b3 * a2;
    let a3 = rows_of_a(x3, k);
    c30 += b0 * a3; c31 += b1 * a3; c32 += b2 * a3; c33 += b3 * a3;
  }
  // One copy of the epilogue in a loop instead of sixteen, which would take longer to compile than to run.
  var tile = array<mat4x4<f32>, 16>(c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33);
  for (var t = 0u; t < 16u; t++) { store_block(0u, row + t / 4u * 4u, column + t % 4u * 4u, tile[t]); }
}
