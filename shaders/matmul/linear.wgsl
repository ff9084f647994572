// y = activation(x @ weight.T + bias): x (rows, depth), weight (columns, depth), y (rows, columns), all row-major.
//
// bindings: 0 params · 1 x · 2 weight · 3 bias, where there is one · last y
// dispatch: a 16 x 16 tile of y an invocation: x over columns, y and z over rows
//
// For adapters where workgroup memory and barriers cost more than they save (SwiftShader: a matmul of 512 takes 60 ms
// like this, 250 with 4 x 4 tiles, over 650 with barriers). Everything stays in registers: four rows of x and four of
// weight are 4 x 4 matrices, and one matrix product adds 4 steps of depth to 16 sums. depth is a multiple of 4.

struct Params {
  rows: u32,
  columns: u32,
  depth4: u32,
  activation: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

// Where four rows from `first` on begin. Rows past the end repeat the last one; their sums are never stored.
fn starts(first: u32, count: u32) -> vec4<u32> {
  return min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(count - 1u)) * p.depth4;
}
fn rows_of_x(at: vec4<u32>, k: u32) -> mat4x4<f32> {
  let i = at + k;
  return mat4x4<f32>(load4_x(i.x), load4_x(i.y), load4_x(i.z), load4_x(i.w));
}
fn columns_of_weight(at: vec4<u32>, k: u32) -> mat4x4<f32> {
  let i = at + k;
  return transpose(mat4x4<f32>(load4_weight(i.x), load4_weight(i.y), load4_weight(i.z), load4_weight(i.w)));
}

fn store(row: u32, column: u32, sums: mat4x4<f32>) {
  for (var i = 0u; i < 4u && row + i < p.rows; i++) {
    for (var j = 0u; j < 4u && column + j < p.columns; j++) {
      store_y((row + i) * p.columns + column + j, activate(p.activation, sums[i][j] + $bias_term));
    }
  }
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
  let x0 = starts(row, p.rows); let x1 = starts(row + 4u, p.rows);
  let x2 = starts(row + 8u, p.rows); let x3 = starts(row + 12u, p.rows);
  let w0 = starts(column, p.columns); let w1 = starts(column + 4u, p.columns);
  let w2 = starts(column + 8u, p.columns); let w3 = starts(column + 12u, p.columns);
  for (var k = 0u; k < p.depth4; k++) {
    let b0 = columns_of_weight(w0, k);
    let b1 = columns_of_weight(w1, k);
    let b2 = columns_of_weight(w2, k);
    let b3 = columns_of_weight(w3, k);
    let a0 = rows_of_x(x0, k);
    c00 += b0 * a0; c01 += b1 * a0; c02 += b2 * a0; c03 += b3 * a0;
    let a1 = rows_of_x(x1, k);
    c10 += b0 * a1; c11 += b1 * a1; c12 += b2 * a1; c13 += b3 * a1;
    let a2 = rows_of_x(x2, k);
    c20 += b0 * a2; c21 += b1 * a2; c22 += b2 * a2; c23 += b3 * a2;
    let a3 = rows_of_x(x3, k);
    c30 += b0 * a3; c31 += b1 * a3; c32 += b2 * a3; c33 += b3 * a3;
  }
  // One copy of the epilogue in a loop, not sixteen: compiling it takes longer than running it.
  var tile = array<mat4x4<f32>, 16>(c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33);
  for (var t = 0u; t < 16u; t++) { store(row + t / 4u * 4u, column + t % 4u * 4u, tile[t]); }
}
