// y[b, i, a] = sum over t of weights[i, t] * x[b, starts[i] + t, a], all row-major.
//
// bindings: 0 params · 1 x · 2 starts · 3 weights · 4 y
// dispatch: one invocation per word of y (one element, or those that share 4 bytes), workgroups spread over x and y

struct Params {
  count: u32, // elements of y
  out: u32,
  size: u32, // of the axis in x
  after: u32, // elements of the axes after it
  taps: u32,
  first: u32, // taps of this dispatch; y has the partial sum of an earlier one
  end: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn value_of_y(i: u32) -> f32 {
  if (i >= p.count) { return 0f; }
  let place = i / p.after % p.out;
  let start = (i / (p.after * p.out) * p.size + u32(load_starts(place))) * p.after + i % p.after;
  var sum = $before;
  for (var t = p.first; t < p.end; t++) { sum += load_weights(place * p.taps + t) * load_x(start + t * p.after); }
  return sum;
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let word = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (word * $lanes_y >= p.count) { return; }
  write_y(word);
}
