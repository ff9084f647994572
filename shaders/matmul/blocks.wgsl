// The operands of a product in blocks of 4 x 4, included by those that compute without subgroup matrices.
//
// Layouts and dtypes decide how they are read when a plan is made; kernels/matmul.py inserts the code.

// [k][i]: rows `row` + i of a at depth `depth` + k. Rows past the end repeat the last one, which is never stored; past
// the depth all is zero.
fn block_a(start: i32, row: u32, depth: u32) -> mat4x4<f32> {
  $block_a
}

// [k][j]: columns `column` + j of b at depth `depth` + k.
fn block_b(start: i32, column: u32, depth: u32) -> mat4x4<f32> {
  $block_b
}
