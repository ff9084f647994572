// y[i] = f(a[i], b[i]) over all elements, with NumPy broadcasting and any strides.
//
// bindings: 0 params · then a, b (as many as f takes) · y
// dispatch: one invocation an element, workgroups spread over x and y where one axis cannot hold them
//
// operand 0 is y, 1 is a, 2 is b; `shape` has its leading axes merged by the host, innermost axis last.

struct Params {
  size: u32,
  rank: u32,
  offsets: vec4<u32>,
  shape: array<vec4<u32>, 2>,
  strides: array<vec4<i32>, 6>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

$functions

fn index_of(operand: u32, element: u32) -> u32 {
  var rest = element;
  var at = i32(p.offsets[operand]);
  for (var back = 1u; back <= p.rank; back++) {
    let axis = p.rank - back;
    let size = p.shape[axis / 4u][axis % 4u];
    at += i32(rest % size) * p.strides[operand * 2u + axis / 4u][axis % 4u];
    rest /= size;
  }
  return u32(at);
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (i >= p.size) { return; }
  $y[$index_y] = $expression;
}
