// y[n, c, i, j] = the largest element, or the mean, of a window of x[n, c], clipped to the image.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: one invocation per word of y (one element, or those that share 4 bytes), workgroups spread over x and y
//
// A window has `kernel` elements `dilation` apart, from i * stride - padding on, or, if `adaptive` is 1, those from
// floor(i * size / out) to ceil((i + 1) * size / out).

struct Params {
  count: u32, // elements of y
  channels: u32,
  out: vec2<i32>,
  size: vec2<i32>,
  kernel: vec2<i32>,
  stride: vec2<i32>,
  padding: vec2<i32>,
  dilation: vec2<i32>,
  adaptive: u32,
  average: u32,
  include_padding: u32,
  divisor: f32, // 0 for the number of elements
  offset: i32,
  strides: vec4<i32>,
}
@group(0) @binding(0) var<uniform> p: Params;
$bindings

fn value_of_y(i: u32) -> f32 {
  if (i >= p.count) { return 0f; }
  let place = vec2<i32>(vec2<u32>(i / u32(p.out.y), i) % vec2<u32>(p.out));
  let plane = i / u32(p.out.x * p.out.y);
  var first = place * p.size / p.out;
  var end = ((place + 1) * p.size + p.out - 1) / p.out;
  var counted = end - first;
  if (p.adaptive == 0u) {
    first = place * p.stride - p.padding;
    end = min(first + p.dilation * (p.kernel - 1) + 1, p.size + p.padding);
    counted = end - first;
    first += (max(-first, vec2<i32>()) + p.dilation - 1) / p.dilation * p.dilation;
    end = min(end, p.size);
  }
  let base = p.offset + i32(plane / p.channels) * p.strides.x + i32(plane % p.channels) * p.strides.y;
  var total = select(-infinity(), 0f, p.average != 0u);
  var elements = 0f;
  for (var row = first.x; row < end.x; row += p.dilation.x) {
    var run = select(-infinity(), 0f, p.average != 0u);
    for (var column = first.y; column < end.y; column += p.dilation.y) {
      let value = load_x(u32(base + row * p.strides.z + column * p.strides.w));
      if (p.average != 0u) { run += value; } else { run = op_maximum(run, value); }
      elements += 1f;
    }
    if (p.average != 0u) { total += run; } else { total = op_maximum(total, run); }
  }
  if (p.average == 0u) { return total; }
  if (p.include_padding != 0u) { elements = f32(counted.x) * f32(counted.y); }
  return total / select(p.divisor, elements, p.divisor == 0f);
}

@compute @workgroup_size($workgroup)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let word = (group.y * groups.x + group.x) * ${workgroup}u + lane;
  if (word * $lanes_y >= p.count) { return; }
  write_y(word);
}
