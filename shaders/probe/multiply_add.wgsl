// y[i] = the sum of 8 vectors v of four elements after `iterations` times v = v * a + b, where v, a and b are made of x[i].
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one invocation per element; workgroups spread over x and y
//
// The vectors are independent, so the time is that of the multiply-adds: 32 per iteration.

struct Params {
  items: u32,
  iterations: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.items) { return; }
  let a = vec4<f32>(0.5f + 0.25f * load_x(i));
  let b = vec4<f32>(1f, 2f, 3f, 4f);
  var v0 = a;
  var v1 = a + 1f;
  var v2 = a + 2f;
  var v3 = a + 3f;
  var v4 = a + 4f;
  var v5 = a + 5f;
  var v6 = a + 6f;
  var v7 = a + 7f;
  for (var n = 0u; n < p.iterations; n++) {
    v0 = fma(v0, a, b);
    v1 = fma(v1, a, b);
    v2 = fma(v2, a, b);
    v3 = fma(v3, a, b);
    v4 = fma(v4, a, b);
    v5 = fma(v5, a, b);
    v6 = fma(v6, a, b);
    v7 = fma(v7, a, b);
  }
  store_y(i, dot(((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7)), vec4<f32>(1f)));
}
