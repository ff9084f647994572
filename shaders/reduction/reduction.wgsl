// y[i] = reduce over j of x[i, j]: i counts the kept elements, j the reduced ones, both through any strides.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one invocation a result, workgroups spread over x and y
//
// Sums are taken in runs of 128 that are then added up, so that a row of 100,000 keeps its digits.

struct Params {
  kept: u32,
  reduced: u32,
  kept_rank: u32,
  reduced_rank: u32,
  offset: i32,
  start: f32, // 0, or an infinity that WGSL cannot spell
  factor: f32, // 1 / reduced for a mean, else 1
  shape: array<vec4<u32>, 4>, // two vectors for the kept axes, two for the reduced ones
  strides: array<vec4<i32>, 4>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn offset_of(first: u32, rank: u32, element: u32) -> i32 {
  var rest = element;
  var at = 0;
  for (var back = 1u; back <= rank; back++) {
    let axis = first + rank - back;
    let size = p.shape[axis / 4u][axis % 4u];
    at += i32(rest % size) * p.strides[axis / 4u][axis % 4u];
    rest /= size;
  }
  return at;
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (i >= p.kept) { return; }
  let base = p.offset + offset_of(0u, p.kept_rank, i);
  var total = p.start;
  for (var first = 0u; first < p.reduced; first += 128u) {
    var run = p.start;
    for (var j = first; j < min(first + 128u, p.reduced); j++) {
      run = $combine(run, load_x(u32(base + offset_of(8u, p.reduced_rank, j))));
    }
    total = $combine(total, run);
  }
  store_y(i, total * p.factor);
}
