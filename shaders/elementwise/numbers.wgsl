// Shared by all dtypes: tests of bits, float16, conversions, and arithmetic that WGSL leaves open or does another way
// than NumPy. What a shader calls from here comes along by itself.
//
// WGSL may assume that there are no NaNs, so those are tested and made by their bits; it cannot spell an infinity, nor
// make one at compile time.

var<private> infinity_bits: u32 = 0x7f800000u;

fn infinity() -> f32 { return bitcast<f32>(infinity_bits); }
fn nan() -> f32 { return bitcast<f32>(infinity_bits | 0x400000u); }
fn size_bits(x: f32) -> u32 { return bitcast<u32>(x) & 0x7fffffffu; }
fn is_nan(x: f32) -> bool { return size_bits(x) > 0x7f800000u; }
fn is_infinite(x: f32) -> bool { return size_bits(x) == 0x7f800000u; }
fn is_finite(x: f32) -> bool { return size_bits(x) < 0x7f800000u; }
fn is_negative(x: f32) -> bool { return bitcast<u32>(x) >= 0x80000000u; }
fn with_sign_of(size: f32, x: f32) -> f32 { return bitcast<f32>(size_bits(size) | (bitcast<u32>(x) & 0x80000000u)); }

// x as the nearest float16, ties to even. pack2x16float may round either way, and does not say what 70,000 becomes.
fn half_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return sign | 0x7e00u; }
  if (size >= 0x477ff000u) { return sign | 0x7c00u; } // 65,520 and more
  // Below 2^-14 the steps are 2^-24, which are those of float32 from 0.5 on: adding 0.5 rounds to them.
  if (size < 0x38800000u) { return sign | (bitcast<u32>(bitcast<f32>(size) + 0.5f) - 0x3f000000u); }
  return sign | ((size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u);
}
fn half_pair(x: vec2<f32>) -> u32 { return half_bits(x.x) | (half_bits(x.y) << 16u); }
fn rounded_to_half(x: f32) -> f32 { return unpack2x16float(half_bits(x)).x; }

// Towards 0 and within the range; 0 for NaN. WGSL's own conversions end at the largest f32 below 2^31.
fn i32_of(x: f32) -> i32 {
  if (is_nan(x)) { return 0; }
  return select(i32(clamp(x, -2147483648f, 2147483520f)), 2147483647, x >= 2147483648f);
}
fn u32_of(x: f32) -> u32 {
  if (is_nan(x)) { return 0u; }
  return select(u32(clamp(x, 0f, 4294967040f)), 4294967295u, x >= 4294967296f);
}

fn op_equal(a: f32, b: f32) -> bool { return a == b && !is_nan(a) && !is_nan(b); }
fn op_less(a: f32, b: f32) -> bool { return a < b && !is_nan(a) && !is_nan(b); }
fn op_less_equal(a: f32, b: f32) -> bool { return a <= b && !is_nan(a) && !is_nan(b); }

fn op_maximum(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  return select(max(a, b), b, is_nan(b));
}
fn op_minimum(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  return select(min(a, b), b, is_nan(b));
}

fn op_sign(x: f32) -> f32 { return select(sign(x), x, is_nan(x)); }
fn op_square(x: f32) -> f32 { return x * x; }
fn op_rsqrt(x: f32) -> f32 { return 1f / sqrt(x); }

// a - q * b without a rounding: both factors are cut into halves of 12 bits, whose products are exact (Dekker, 1971).
fn less_product(a: f32, q: f32, b: f32) -> f32 {
  let q1 = bitcast<f32>(bitcast<u32>(q) & 0xfffff000u);
  let b1 = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
  let q2 = q - q1;
  let b2 = b - b1;
  return (((a - q1 * b1) - q1 * b2) - q2 * b1) - q2 * b2;
}
// The remainder has the sign of b, as in Python.
fn op_remainder(a: f32, b: f32) -> f32 {
  if (is_nan(a) || is_nan(b) || is_infinite(a) || b == 0f) { return nan(); }
  if (is_infinite(b)) { return select(select(b, a, is_negative(a) == is_negative(b)), with_sign_of(0f, b), a == 0f); }
  var r = less_product(a, trunc(op_divide(a, b)), b);
  if (r != 0f && is_negative(r) != is_negative(a)) { r += with_sign_of(b, a); } // a / b was rounded up to a whole number
  if (abs(r) >= abs(b)) { r -= with_sign_of(b, r); }
  if (r != 0f && is_negative(r) != is_negative(b)) { r += b; }
  return select(r, with_sign_of(0f, b), r == 0f);
}
fn op_floor_divide(a: f32, b: f32) -> f32 {
  if (b == 0f) { return a / b; }
  if (is_nan(a) || is_nan(b) || is_infinite(a)) { return nan(); }
  if (is_infinite(b)) { return select(0f, -1f, a != 0f && is_negative(a) != is_negative(b)); }
  return round(op_divide(a - op_remainder(a, b), b));
}

fn int_square(x: i32) -> i32 { return x * x; }
fn uint_square(x: u32) -> u32 { return x * x; }
fn int_floor_divide(a: i32, b: i32) -> i32 {
  if (b == 0) { return 0; }
  let q = a / b;
  return select(q, q - 1, q * b != a && (a < 0) != (b < 0));
}
fn int_remainder(a: i32, b: i32) -> i32 {
  if (b == 0) { return 0; }
  let r = a % b;
  return select(r, r + b, r != 0 && (r < 0) != (b < 0));
}
fn uint_floor_divide(a: u32, b: u32) -> u32 { return select(a / max(b, 1u), 0u, b == 0u); }
fn uint_remainder(a: u32, b: u32) -> u32 { return select(a % max(b, 1u), 0u, b == 0u); }

fn uint_pow(base: u32, power: u32) -> u32 {
  var result = 1u;
  var square = base;
  for (var rest = power; rest > 0u; rest >>= 1u) {
    if ((rest & 1u) == 1u) { result *= square; }
    square *= square;
  }
  return result;
}
fn int_pow(base: i32, power: i32) -> i32 {
  if (power >= 0) { return i32(uint_pow(u32(base), u32(power))); }
  if (base == 1) { return 1; }
  return select(0, select(1, -1, (power & 1) == 1), base == -1);
}

// WGSL takes the amount modulo 32.
fn uint_left_shift(a: u32, b: u32) -> u32 { return select(a << (b & 31u), 0u, b > 31u); }
fn uint_right_shift(a: u32, b: u32) -> u32 { return select(a >> (b & 31u), 0u, b > 31u); }
fn int_left_shift(a: i32, b: i32) -> i32 { return select(a << (u32(b) & 31u), 0, u32(b) > 31u); }
fn int_right_shift(a: i32, b: i32) -> i32 { return a >> min(u32(b), 31u); }

// Hardware divides by a reciprocal, and flushes that of more than 2^126 to 0: 3e38 / 3e38 would be 0, infinity / 3e38 NaN.
fn op_divide(a: f32, b: f32) -> f32 {
  let scale = select(1f, 0.25f, abs(b) > 8.5e37f);
  return (a * scale) / (b * scale);
}
