// y[ids[i, j], j] = updates[i, j], or both combined (+, *, max, min), along one axis; y has the other elements already.
//
// bindings: 0 params · 1 ids · 2 updates · 3 y
// dispatch: one invocation per fibre (the elements along the axis), workgroups spread over x and y
//
// A fibre belongs to one invocation, which processes its indices in order: no update is lost, the last of two equal
// indices is used, and sums are equal in every run.

struct Params {
  fibres: u32,
  rank: u32,
  count: u32, // indices per fibre
  size: i32, // elements that the indices of a fibre choose from
  offsets: vec3<i32>, // of ids, updates, y
  first: i32, // of these elements, the one that y begins at
  steps: vec3<i32>, // along the axis
  length: i32, // elements per fibre of y
  shape: array<vec4<u32>, 2>,
  strides: array<vec4<i32>, 6>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let fibre = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (fibre >= p.fibres) { return; }
  var rest = fibre;
  var at = p.offsets;
  for (var axis = p.rank; axis > 1u; axis--) {
    let here = axis - 1u;
    let outer = rest / p.shape[here / 4u][here % 4u];
    let place = i32(rest - outer * p.shape[here / 4u][here % 4u]);
    at += place * vec3<i32>(p.strides[here / 4u][here % 4u], p.strides[2u + here / 4u][here % 4u],
                            p.strides[4u + here / 4u][here % 4u]);
    rest = outer;
  }
  at += i32(rest) * vec3<i32>(p.strides[0].x, p.strides[2].x, p.strides[4].x);
  for (var j = 0; j < i32(p.count); j++) {
    var id = load_ids(u32(at.x + j * p.steps.x));
    if (id < 0) { id += p.size; }
    if (id < 0 || id >= p.size) { continue; }
    id -= p.first;
    if (id < 0 || id >= p.length) { continue; }
    let slot = u32(at.z + id * p.steps.z);
    let value = load_updates(u32(at.y + j * p.steps.y));
    $store
  }
}
