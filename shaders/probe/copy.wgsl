// y[i] = x[i], four elements at a time: the bandwidth that timings are compared with.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one invocation a vector of four elements; workgroups spread over x and y

struct Params {
  vectors: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.vectors) { return; }
  store4_y(i, load4_x(i));
}
