// y[n, c, i, j] = bias[c] + sum over a, b of x[n, c, i * stride + a * dilation - padding, ...] * weight[c, 0, a, b]
//
// bindings: 0 params · 1 x · 2 weight · 3 bias, if there is one · last y
// dispatch: four adjacent pixels of one channel per invocation, workgroups spread over x and y
//
// conv2d.wgsl for groups with one channel of y each (of x there may be several).

struct Params {
  pixels: u32,
  out_width: u32,
  out: u32, // 1
  groups: u32,
  batch: u32,
  channels: u32,
  kernel: vec2<u32>,
  stride: vec2<i32>,
  padding: vec2<i32>,
  dilation: vec2<i32>,
  up: vec2<i32>,
  size: vec2<i32>,
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
  if (item >= quads * p.groups * p.batch) { return; }
  let first = item % quads * 4u;
  let k = item / quads % p.groups;
  let n = item / quads / p.groups;
  let rows = window_rows(first);
  let columns = window_columns(first);
  let base = p.x_offset + i32(n) * p.x_strides.x + i32(k * p.channels) * p.x_strides.y;
  var sum = vec4<f32>();
  for (var c = 0; c < i32(p.taken); c++) {
    for (var a = 0; a < i32(p.kernel.x); a++) {
      for (var b = 0; b < i32(p.kernel.y); b++) {
        let w = p.weight_offset + i32(k) * p.weight_strides.x + c * p.weight_strides.y + a * p.weight_strides.z
          + b * p.weight_strides.w;
        sum += taps(base + c * p.x_strides.y, rows + a * p.dilation.x, columns + b * p.dilation.y) * load_weight(u32(w));
      }
    }
  }
  let start = (n * p.groups + k) * p.pixels + first;
  for (var j = 0u; j < 4u && first + j < p.pixels; j++) { store_y(start + j, sum[j] + $bias); }
}
