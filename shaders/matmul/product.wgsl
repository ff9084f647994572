// Sizes and epilogue of every product, included by the others of this folder.
//
// Layouts and dtypes decide how results are written when a plan is made; kernels/matmul.py inserts the code.

struct Params {
  rows: u32,
  columns: u32,
  depth: u32,
  batch_inner: u32, // batch index = outer * batch_inner + inner
  a_strides: vec4<i32>, // outer, inner, row, depth
  b_strides: vec4<i32>, // outer, inner, depth, column
  a_offset: i32,
  b_offset: i32,
  activation: u32,
  batch: u32,
  stride: u32, // from one row of y to the next
  blocks: u32, // of a quantised b
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn start_of(batch: u32, offset: i32, strides: vec4<i32>) -> i32 {
  return offset + i32(batch / p.batch_inner) * strides.x + i32(batch % p.batch_inner) * strides.y;
}
fn four_from(first: u32, count: u32) -> vec4<u32> {
  return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(count - 1u));
}

// [i][j]: y at rows `row` + i and columns `column` + j, as far as it has them.
fn store_block(batch: u32, row: u32, column: u32, sums: mat4x4<f32>) {
  if (column >= p.columns) { return; }
  for (var i = 0u; i < 4u; i++) { // constant: otherwise `sums` is spilled from registers on hardware
    if (row + i < p.rows) {
      let at = (batch * p.rows + row + i) * p.stride + column;
      $store_row
    }
  }
}

// The activation of four columns of one row, applied after hardware stored them: in `store_block` it is so long that
// loops do not unroll and the sums are spilled from registers (2 TFLOP/s instead of 36).
fn activate_stored(batch: u32, row: u32, column: u32) {
  if (row >= p.rows || column >= p.columns) { return; }
  let at = (batch * p.rows + row) * p.stride + column;
  $activate_stored
}

// Four columns of one row.
fn store_four(batch: u32, row: u32, column: u32, total: vec4<f32>) {
  if (row >= p.rows || column >= p.columns) { return; }
  let at = (batch * p.rows + row) * p.stride + column;
  $store_four
}
