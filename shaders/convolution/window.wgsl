// Windows of four adjacent results in the image. Files that use this have the Params of conv2d.wgsl.

// Top left corners of the windows of results `first` to `first + 3` (rows, columns): past the end the last one's.
fn window_rows(first: u32) -> vec4<i32> {
  let at = min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(p.pixels - 1u));
  return vec4<i32>(at / p.out_width) * p.stride.x - p.padding.x;
}
fn window_columns(first: u32) -> vec4<i32> {
  let at = min(vec4<u32>(first, first + 1u, first + 2u, first + 3u), vec4<u32>(p.pixels - 1u));
  return vec4<i32>(at % p.out_width) * p.stride.y - p.padding.y;
}

// Positions of four elements of the channel at `base`; -1 outside the image, and between elements that are spread out.
fn window_taps(base: i32, rows: vec4<i32>, columns: vec4<i32>) -> vec4<i32> {
  var y = rows;
  var x = columns;
  var inside = (y >= vec4<i32>()) & (x >= vec4<i32>());
  if (p.up.x * p.up.y > 1) {
    inside &= (y % p.up.x == vec4<i32>()) & (x % p.up.y == vec4<i32>());
    y /= p.up.x;
    x /= p.up.y;
  }
  inside &= (y < vec4<i32>(p.size.x)) & (x < vec4<i32>(p.size.y));
  return select(vec4<i32>(-1), base + y * p.x_strides.z + x * p.x_strides.w, inside);
}
