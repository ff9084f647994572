// y[row] = the position of the first maximum of x[row], or -1 if the row contains NaN.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one row per workgroup of `lanes`, spread over x and y

struct Params {
  rows: u32,
  columns: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

$scores

var<workgroup> best: atomic<u32>;
var<workgroup> position: atomic<u32>;

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= p.rows) { return; }
  let vectors = (p.columns + 3u) / 4u;
  var own = vec2<u32>(0u, ~0u);
  $hold
  $each
    for (var j = 0u; j < kept_vectors; j++) { // past the end, the last vector is loaded again
      let v = kept[j];
      let i = 4u * min(first + j * lanes, vectors - 1u);
      own = first_largest(own, vec2<u32>(float_key(v.x), i));
      own = first_largest(own, vec2<u32>(float_key(v.y), i + 1u));
      own = first_largest(own, vec2<u32>(float_key(v.z), i + 2u));
      own = first_largest(own, vec2<u32>(float_key(v.w), i + 3u));
    }
  }
  if (lane == 0u) { atomicStore(&position, ~0u); }
  atomicMax(&best, own.x);
  workgroupBarrier();
  let largest = atomicLoad(&best);
  if (own.x == largest) { atomicMin(&position, own.y); }
  workgroupBarrier();
  if (lane == 0u) { store_y(row, select(i32(atomicLoad(&position)), -1, largest == nan_key)); }
}
