// y[i] = f(a[i], b[i], ...) over all elements, with NumPy broadcasting, any strides and any dtypes.
//
// bindings: 0 params · then the operands of f, each value once · last y
// dispatch: one invocation a word of y (packed dtypes have 2 or 4 elements in it) or, where y is a part of something, an
//           element, or four elements where all operands are dense or one number; workgroups spread over x and y
//
// operand 0 is y; `shape` has its leading axes merged by the host, innermost axis last.

struct Params {
  items: u32, // invocations that have work
  rank: u32,
  shape: array<vec4<u32>, 2>,
  places: array<Place, $operands>,
  constants: array<vec4<u32>, $numbers>,
}
struct Place {
  strides: array<vec4<i32>, 2>,
  offset: i32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

// A product inside of a chain, as it would be in memory: a compiler may not see through this and make a * b + c one
// operation that rounds once, so that a chain gives bit for bit what its ops give one by one. `rank` is at most 8.
fn rounded(x: f32) -> f32 { return select(x, 0f, p.rank > 8u); }

fn formula($parameters) -> $type_y { return $expression; }

fn value_of_y(i: u32) -> $type_y {
  ${coordinates}return formula($values);
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (i >= p.items) { return; }
  $write
}
