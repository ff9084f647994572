// y[..., m, n] = sum over k of a[..., m, k] * b[..., k, n] of int32 or uint32, which wraps around; any strides.
//
// bindings: 0 params · 1 a · 2 b · 3 y
// dispatch: a 4 x 4 tile of y per invocation: x over columns, y and z over rows and batch

struct Params { // as in product.wgsl
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
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

alias Four = vec4<$type_y>;

fn start_of(batch: u32, offset: i32, strides: vec4<i32>) -> i32 {
  return offset + i32(batch / p.batch_inner) * strides.x + i32(batch % p.batch_inner) * strides.y;
}
fn four_from(first: u32, count: u32) -> vec4<i32> {
  return vec4<i32>(min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(count - 1u)));
}

@compute @workgroup_size(4, 4)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_id) lane: vec3<u32>) {
  let tiles = (p.rows + 15u) / 16u;
  let item = group.z * groups.y + group.y;
  let batch = item / tiles;
  let row = (item % tiles * 4u + lane.y) * 4u;
  let column = (group.x * 4u + lane.x) * 4u;
  if (batch >= p.batch || row >= p.rows || column >= p.columns) { return; }
  let a_at = start_of(batch, p.a_offset, p.a_strides) + four_from(row, p.rows) * p.a_strides.z;
  let b_at = start_of(batch, p.b_offset, p.b_strides) + four_from(column, p.columns) * p.b_strides.w;
  var sums = array<Four, 4>(Four(), Four(), Four(), Four());
  for (var k = 0u; k < p.depth; k++) {
    let i = vec4<u32>(a_at + i32(k) * p.a_strides.w);
    let j = vec4<u32>(b_at + i32(k) * p.b_strides.z);
    let b = Four(load_b(j.x), load_b(j.y), load_b(j.z), load_b(j.w));
    sums[0] += load_a(i.x) * b;
    sums[1] += load_a(i.y) * b;
    sums[2] += load_a(i.z) * b;
    sums[3] += load_a(i.w) * b;
  }
  for (var r = 0u; r < min(4u, p.rows - row); r++) {
    for (var c = 0u; c < min(4u, p.columns - column); c++) {
      store_y((batch * p.rows + row + r) * p.stride + column + c, sums[r][c]);
    }
  }
}
