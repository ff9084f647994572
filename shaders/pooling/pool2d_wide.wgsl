// y[n, c, i, j] = the largest element, or the mean, of a window of x[n, c], clipped to the image.
//
// bindings: 0 params · 1 x · 2 y
// dispatch: a workgroup per word of y (one element, or those that share 4 bytes), spread over x and y
//
// For windows that are too large for one invocation: the lanes of a workgroup share the elements.
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

const lanes = ${workgroup}u;
var<private> lane: u32;
var<workgroup> totals: array<f32, lanes>;

fn merged(a: f32, b: f32) -> f32 {
  if (p.average != 0u) { return a + b; }
  return op_maximum(a, b);
}

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
  let sides = vec2<u32>(max((end - first + p.dilation - 1) / p.dilation, vec2<i32>())); // elements along each axis
  let count = sides.x * sides.y;
  var total = select(-infinity(), 0f, p.average != 0u);
  for (var t = lane; t < count; t += 2u * lanes) {
    let one = first + vec2<i32>(vec2<u32>(t / sides.y, t % sides.y)) * p.dilation;
    total = merged(total, load_x(u32(base + one.x * p.strides.z + one.y * p.strides.w)));
    let next = t + lanes;
    if (next < count) {
      let other = first + vec2<i32>(vec2<u32>(next / sides.y, next % sides.y)) * p.dilation;
      total = merged(total, load_x(u32(base + other.x * p.strides.z + other.y * p.strides.w)));
    }
  }
  workgroupBarrier();
  totals[lane] = total;
  for (var half = lanes / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { totals[lane] = merged(totals[lane], totals[lane + half]); }
  }
  workgroupBarrier();
  let all = totals[0];
  if (p.average == 0u) { return all; }
  var elements = f32(count);
  if (p.include_padding != 0u) { elements = f32(counted.x * counted.y); }
  return all / select(p.divisor, elements, p.divisor == 0f);
}

@compute @workgroup_size(lanes)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) own: u32) {
  let word = group.y * groups.x + group.x;
  if (word * $lanes_y >= p.count) { return; }
  lane = own;
  write_y(word); // equal in every lane
}
