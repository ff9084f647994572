// y[i, j] = x[ids[i, j], j] along one axis, all three through any strides.
//
// bindings: 0 params · 1 x · 2 ids · 3 y
// dispatch: one invocation per word of y (one element, or those that share 4 bytes) or, if rows are in vectors of four,
//           a vector; workgroups spread over x and y
//
// operand 0 is x without the indexed axis, 1 is ids. An index out of range gives `nothing`. If x is a part
// of the choices, only elements of this part are written.

struct Params {
  size: u32, // elements of y, or vectors
  wrap: u32, // 1 if a negative index counts from the end
  choices: i32, // size of the axis
  stride: i32, // of the axis
  offsets: vec2<i32>,
  nothing: u32, // NaN or 0, as bits
  first: i32, // first of the choices in x, and their number
  count: i32,
  blocks: u32, // of a quantised x
  shape: array<vec4<u32>, 2>,
  strides: array<vec4<i32>, 4>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

// Offset in x of the element of y, or of the first of four; -1 for an index out of range, -2 for one of another part.
fn place_of(i: u32) -> i32 {
  var rest = i;
  var at = p.offsets;
  $offsets
  var id = load_ids(u32(at.y));
  if (id < 0 && p.wrap != 0u) { id += p.choices; }
  if (id < 0 || id >= p.choices) { return select(-2, -1, p.first == 0); }
  return select(-2, at.x + (id - p.first) * p.stride, id >= p.first && id - p.first < p.count);
}

fn value_of_y(i: u32) -> $type_y {
  if (i >= p.size) { return $type_y(); }
  let place = place_of(i);
  if (place < 0) { return $nothing; }
  return load_x(u32(place));
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let word = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (word * $lanes >= p.size) { return; }
  $write
}
