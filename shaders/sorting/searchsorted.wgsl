// y[i] = the number of elements of the sorted x that are less than values[i], or not greater, by bisection.
//
// bindings: 0 params · 1 x · 2 values · 3 y
// dispatch: one invocation for each element of y, workgroups spread over x and y

struct Params {
  count: u32, // of values
  size: u32, // of x
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn key_of_x(i: u32) -> u32 { let x = load_x(i); return $key; }
fn key_of_value(i: u32) -> u32 { let x = load_values(i); return $key; }

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (i >= p.count) { return; }
  let wanted = key_of_value(i);
  var low = 0u;
  var high = p.size;
  while (low < high) {
    let half = (low + high) / 2u;
    if (key_of_x(half) $before wanted) { low = half + 1u; } else { high = half; }
  }
  store_y(i, i32(low));
}
