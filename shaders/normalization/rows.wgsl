// Shared by kernels with a workgroup per row, included by the files of this folder that end in _row. For hardware.
//
// dispatch: one row per workgroup of `lanes`, spread over x and y
//
// A row is read as vectors of four: by way of vectors where its length allows, else element by element. Up to `kept`
// vectors per lane stay in registers (`steps` is a constant then, so the loops unroll); longer rows are read again,
// from a cache as a rule.

@group(0) @binding(0) var<uniform> p: Params;
$bindings

const lanes = ${lanes}u;
const kept_vectors = ${kept}u;

var<workgroup> partial: array<f32, lanes>;

fn inside(i: u32) -> vec4<bool> { return vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.columns); }

fn value_of(row: u32, i: u32) -> vec4<f32> {
  $value
}
fn put(row: u32, i: u32, v: vec4<f32>) {
  $put
}

fn sum_over_lanes(v: f32, lane: u32) -> f32 {
  workgroupBarrier();
  partial[lane] = v;
  workgroupBarrier();
  for (var half = lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  return partial[0];
}
fn largest_over_lanes(v: f32, lane: u32) -> f32 {
  workgroupBarrier();
  partial[lane] = v;
  workgroupBarrier();
  for (var half = lanes / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  return partial[0];
}
