// y = activation(a @ b + bias) + residual for one row: a (1, depth), b (depth, columns) row-major or column-major.
//
// bindings: 0 params · 1 a · 2 b · bias and residual, where they are · last y
// dispatch: 16 columns per invocation
//
// For every token of a decoder, on adapters where workgroup memory does not pay: linear.wgsl would multiply
// sixteen rows and discard fifteen. depth is a multiple of 4.

$product
$columns_of_b

@compute @workgroup_size(4, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let column = id.x * 16u;
  if (column >= p.columns) { return; }
  let vectors = p.depth / 4u;
  let start = u32(p.a_offset) / 4u;
  let w0 = starts_of_b(column); let w1 = starts_of_b(column + 4u);
  let w2 = starts_of_b(column + 8u); let w3 = starts_of_b(column + 12u);
  var s0 = vec4<f32>(); var s1 = vec4<f32>(); var s2 = vec4<f32>(); var s3 = vec4<f32>();
  for (var k = 0u; k < vectors; k++) {
    let a = load4_a(start + k);
    s0 += columns_of_b(w0, k) * a;
    s1 += columns_of_b(w1, k) * a;
    s2 += columns_of_b(w2, k) * a;
    s3 += columns_of_b(w3, k) * a;
  }
  var tile = array<vec4<f32>, 4>(s0, s1, s2, s3);
  let nothing = vec4<f32>();
  for (var t = 0u; t < 4u; t++) { store_block(0u, 0u, column + t * 4u, mat4x4<f32>(tile[t], nothing, nothing, nothing)); }
}
