// y[n, o, i, j] = bias[o] + sum over c, a, b of x[n, c, i * stride + a * dilation - padding, ...] * weight[o, c, a, b]
//
// bindings: 0 params · 1 x · 2 weight · 3 bias, if there is one · last y
// dispatch: four adjacent pixels of eight channels per invocation, workgroups spread over x and y
//
// Nothing is unfolded in memory. Twelve loads per tap serve 32 products, and all values stay in registers.

struct Params {
  pixels: u32, // of a channel of y
  out_width: u32,
  out: u32, // channels of y in a group
  groups: u32,
  batch: u32,
  channels: u32, // of x in a group
  kernel: vec2<u32>,
  stride: vec2<i32>,
  padding: vec2<i32>,
  dilation: vec2<i32>,
  up: vec2<i32>, // distance of the image's elements, with zeros between
  size: vec2<i32>, // of the image
  x_offset: i32,
  weight_offset: i32,
  x_strides: vec4<i32>,
  weight_strides: vec4<i32>,
  taken: u32, // channels of this dispatch; y has the partial sums of earlier ones
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn taps(base: i32, rows: vec4<i32>, columns: vec4<i32>) -> vec4<f32> {
  let at = window_taps(base, rows, columns);
  let i = vec4<u32>(max(at, vec4<i32>()));
  return select(vec4<f32>(), vec4<f32>(load_x(i.x), load_x(i.y), load_x(i.z), load_x(i.w)), at >= vec4<i32>());
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let item = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  let quads = (p.pixels + 3u) / 4u;
  let tiles = (p.out + 7u) / 8u; // of channels
  if (item >= quads * tiles * p.groups * p.batch) { return; }
  let first = item % quads * 4u;
  let own = item / quads % (tiles * p.groups) / tiles; // group of channels
  let channel = item / quads % tiles * 8u; // within it
  let n = item / quads / (tiles * p.groups);
  let rows = window_rows(first);
  let columns = window_columns(first);
  let x_base = p.x_offset + i32(n) * p.x_strides.x + i32(own * p.channels) * p.x_strides.y;
  let o = vec4<i32>(vec4<u32>(own * p.out) + min(vec4<u32>(channel, channel + 1u, channel + 2u, channel + 3u), vec4<u32>(p.out - 1u)));
  let o4 = vec4<i32>(vec4<u32>(own * p.out) + min(vec4<u32>(channel + 4u, channel + 5u, channel + 6u, channel + 7u), vec4<u32>(p.out - 1u)));
  let w_low = p.weight_offset + o * p.weight_strides.x;
  let w_high = p.weight_offset + o4 * p.weight_strides.x;
  var low = mat4x4<f32>(); // columns are channels, rows are pixels
  var high = mat4x4<f32>();
  for (var c = 0; c < i32(p.taken); c++) {
    var run_low = mat4x4<f32>();
    var run_high = mat4x4<f32>();
    for (var a = 0; a < i32(p.kernel.x); a++) {
      for (var b = 0; b < i32(p.kernel.y); b++) {
        let v = taps(x_base + c * p.x_strides.y, rows + a * p.dilation.x, columns + b * p.dilation.y);
        let w = c * p.weight_strides.y + a * p.weight_strides.z + b * p.weight_strides.w;
        let i = vec4<u32>(w_low + w);
        let j = vec4<u32>(w_high + w);
        run_low += mat4x4<f32>(v * load_weight(i.x), v * load_weight(i.y), v * load_weight(i.z), v * load_weight(i.w));
        run_high += mat4x4<f32>(v * load_weight(j.x), v * load_weight(j.y), v * load_weight(j.z), v * load_weight(j.w));
      }
    }
    low += run_low;
    high += run_high;
  }
  var tile = array<mat4x4<f32>, 2>(low, high);
  for (var i = 0u; i < 8u && channel + i < p.out; i++) {
    let k = own * p.out + channel + i;
    let start = (n * p.groups * p.out + k) * p.pixels;
    for (var j = 0u; j < 4u && first + j < p.pixels; j++) {
      store_y(start + first + j, tile[i / 4u][i % 4u][j] + $bias);
    }
  }
}
