// y = x rounded to int8 in blocks of 32 numbers, as floats: scale * round(x / scale), where scale is max|x| / 127.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: four numbers per invocation, spread over x and y

struct Params {
  count: u32, // vectors of 4, whole blocks
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lanes = 128u;
var<workgroup> largest: array<u32, lanes>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * lanes + lane;
  let v = load4_x(min(i, p.count - 1u));
  largest[lane] = int8_magnitude(v);
  workgroupBarrier();
  var most = 0u;
  for (var k = 0u; k < 8u; k++) { most = max(most, largest[lane / 8u * 8u + k]); }
  let scale = int8_scale(most);
  if (i < p.count) { store4_y(i, round(v * int8_inverse(scale)) * scale); }
}
