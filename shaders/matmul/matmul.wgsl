// y[..., m, n] = activation(sum over k of a[..., m, k] * b[..., k, n] + bias[n]), any strides, leading axes merged to one.
//
// bindings: 0 params · 1 a · 2 b · 3 bias, where there is one · last y
// dispatch: a 4 x 4 tile of y an invocation: x over columns, y and z over rows and batch
//
// The general product: it takes every layout, so transposed operands and odd sizes need no copy.

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
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size(4, 4)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_id) lane: vec3<u32>) {
  let tiles = (p.rows + 15u) / 16u;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  let row = (item % tiles * 4u + lane.y) * 4u;
  let column = (group.x * 4u + lane.x) * 4u;
  if (batch >= p.batch || row >= p.rows || column >= p.columns) { return; }
  let outer = i32(batch / p.batch_inner);
  let inner = i32(batch % p.batch_inner);
  let a_start = p.a_offset + outer * p.a_strides.x + inner * p.a_strides.y;
  let b_start = p.b_offset + outer * p.b_strides.x + inner * p.b_strides.y;
  let m = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(p.rows - 1u));
  let n = min(vec4<u32>(column, column + 1u, column + 2u, column + 3u), vec4<u32>(p.columns - 1u));
  let a_at = vec4<i32>(a_start) + vec4<i32>(m) * p.a_strides.z;
  let b_at = vec4<i32>(b_start) + vec4<i32>(n) * p.b_strides.w;
  var sums = mat4x4<f32>();
  for (var k = 0; k < i32(p.depth); k++) {
    let ka = vec4<u32>(a_at + k * p.a_strides.w);
    let kb = vec4<u32>(b_at + k * p.b_strides.z);
    let b = vec4<f32>(load_b(kb.x), load_b(kb.y), load_b(kb.z), load_b(kb.w));
    sums += mat4x4<f32>(b * load_a(ka.x), b * load_a(ka.y), b * load_a(ka.z), b * load_a(ka.w));
  }
  for (var i = 0u; i < 4u && row + i < p.rows; i++) {
    for (var j = 0u; j < 4u && column + j < p.columns; j++) {
      let at = (batch * p.rows + row + i) * p.columns + column + j;
      store_y(at, activate(p.activation, sums[i][j] + $bias_term));
    }
  }
}
