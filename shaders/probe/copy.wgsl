// y[i] = x[i], four elements at a time: the bandwidth that timings are compared with.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one invocation for `each` vectors of four elements, adjacent to those of adjacent invocations; workgroups
//           spread over x and y
//
// A software adapter takes longer to begin an invocation than to copy a vector, so `each` is more than 1 there.

struct Params {
  invocations: u32,
  each: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.invocations) { return; }
  for (var n = 0u; n < p.each; n++) {
    store4_y(n * p.invocations + i, load4_x(n * p.invocations + i));
  }
}
