// y[n, i, j, c, a, b] = x[n, c, i * stride + a * dilation - padding, ...], 0 outside: a convolution's windows as rows.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one invocation for `taps` elements of a window of one channel, workgroups spread over x and y: on hardware
//           one, so that adjacent invocations write adjacent elements

struct Params {
  items: u32, // invocations with work
  channels: u32,
  out: vec2<u32>,
  kernel: vec2<i32>,
  stride: vec2<i32>,
  padding: vec2<i32>,
  dilation: vec2<i32>,
  size: vec2<i32>, // of the image
  offset: i32,
  taps: i32,
  strides: vec4<i32>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (i >= p.items) { return; }
  let size = p.kernel.x * p.kernel.y;
  let window = i / u32(size / p.taps);
  let first = i32(i % u32(size / p.taps)) * p.taps;
  let pixel = window / p.channels;
  let row = pixel / p.out.y;
  let corner = vec2<i32>(vec2<u32>(row % p.out.x, pixel % p.out.y)) * p.stride - p.padding;
  let base = p.offset + i32(row / p.out.x) * p.strides.x + i32(window % p.channels) * p.strides.y;
  var a = first / p.kernel.y;
  var b = first % p.kernel.y;
  for (var n = 0u; n < u32(p.taps); n++) {
    let y = corner.x + a * p.dilation.x;
    let x = corner.y + b * p.dilation.y;
    var value = 0f;
    if (y >= 0 && x >= 0 && y < p.size.x && x < p.size.y) {
      value = load_x(u32(base + y * p.strides.z + x * p.strides.w));
    }
    store_y(i * u32(p.taps) + n, value);
    b++;
    if (b == p.kernel.y) {
      b = 0;
      a++;
    }
  }
}
