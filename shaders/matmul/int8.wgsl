// Rounding to int8 in blocks (formats/int8_blocks.py).

// The largest magnitude, as bits: an infinity is larger than all numbers, and NaN larger than that.
fn int8_magnitude(v: vec4<f32>) -> u32 {
  let bits = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The scale of a block of this largest magnitude.
fn int8_scale(most: u32) -> f32 { return bitcast<f32>(most) / 127f; }

// 1 / scale, or 0 for a scale that is not a normal number.
fn int8_inverse(scale: f32) -> f32 { return select(0f, 1f / scale, scale >= 1.17549435e-38f); }
