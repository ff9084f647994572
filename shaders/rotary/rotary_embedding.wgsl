// y[..., s, :] is x[..., s, :], each pair (a, b) rotated to (a cos - b sin, b cos + a sin) by the row of position s.
//
// bindings: 0 params · 1 x · 2 cos · 3 sin · 4 positions, if given · last y
// dispatch: one invocation per word of y (one element, or those that share 4 bytes), workgroups spread over x and y
//
// In `strides`, operand 0 is x and operand 1 positions, both without the last axis of x. Without positions, the index
// of a token is that of its row in the tables.

struct Params {
  count: u32, // elements of y
  columns: u32,
  half: u32, // dimensions / 2
  rows: i32, // of the tables
  interleaved: u32,
  offsets: vec2<i32>,
  step: i32, // of the last axis of x
  nan: f32,
  shape: array<vec4<u32>, 2>,
  strides: array<vec4<i32>, 4>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn value_of_y(i: u32) -> f32 {
  if (i >= p.count) { return 0f; }
  let d = i % p.columns;
  var rest = i / p.columns;
  var at = p.offsets;
  $offsets
  let value = load_x(u32(at.x + i32(d) * p.step));
  if (d >= 2u * p.half) { return value; }
  let position = $position;
  if (position < 0 || position >= p.rows) { return p.nan; }
  var k = d % p.half;
  var second = d >= p.half;
  var other = select(d + p.half, k, second);
  if (p.interleaved != 0u) {
    k = d / 2u;
    second = d % 2u == 1u;
    other = d ^ 1u;
  }
  let row = u32(position) * p.half + k;
  let turned = load_x(u32(at.x + i32(other) * p.step)) * load_sin(row);
  return value * load_cos(row) + select(-turned, turned, second);
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let word = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (word * $lanes_y >= p.count) { return; }
  write_y(word);
}
