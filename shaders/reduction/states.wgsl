// Accumulators of reductions that are more than a number, and functions that merge two of them.

// Return whether a float is not 0, by its bits: NaN is nonzero.
fn is_nonzero(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) != 0u; }

// Add an element to (count, mean, sum of squared distances from the mean) (Welford, 1962).
fn welford_take(s: vec3<f32>, x: f32) -> vec3<f32> {
  let count = s.x + 1f;
  let delta = x - s.y;
  let mean = s.y + delta / count;
  return vec3<f32>(count, mean, s.z + delta * (x - mean));
}

// Merge two of these (Chan, Golub and LeVeque, 1979).
fn welford_merge(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
  if (a.x == 0f) { return b; }
  if (b.x == 0f) { return a; }
  let count = a.x + b.x;
  let delta = b.y - a.y;
  let share = b.x / count;
  return vec3<f32>(count, a.y + delta * share, a.z + b.z + delta * delta * a.x * share);
}

// Merge two pairs (largest element, sum of exp(element - largest)); a sum of 0 stands for no elements.
fn exponents_merge(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  if (a.y == 0f) { return b; }
  if (b.y == 0f) { return a; }
  if (is_nan(a.x) || is_nan(b.x)) { return select(b, a, is_nan(a.x)); }
  if (a.x == b.x) { return vec2<f32>(a.x, a.y + b.y); } // also where both are infinite
  if (a.x > b.x) { return vec2<f32>(a.x, a.y + b.y * exp(b.x - a.x)); }
  return vec2<f32>(b.x, b.y + a.y * exp(a.x - b.x));
}

// A float as (from 1 to below 2, exponent of 2): products of these neither overflow nor vanish on the way, so that 0 times
// much is 0. Exponents are exact up to 2^24. What is not finite, and 0, has the exponent 0.
fn scaled_of(x: f32) -> vec2<f32> {
  let bits = bitcast<u32>(x);
  let exponent = (bits >> 23u) & 0xffu;
  if (exponent == 0u) { return vec2<f32>(with_sign_of(0f, x), 0f); }
  if (exponent == 0xffu) { return vec2<f32>(x, 0f); }
  return vec2<f32>(bitcast<f32>((bits & 0x807fffffu) | 0x3f800000u), f32(exponent) - 127f);
}
fn scaled_product(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
  if (is_nan(a.x)) { return a; }
  if (is_nan(b.x)) { return b; }
  let product = scaled_of(a.x * b.x);
  return vec2<f32>(product.x, product.y + a.y + b.y);
}
fn power_of_two(exponent: f32) -> f32 { return bitcast<f32>(u32(i32(exponent) + 127) << 23u); }
fn unscaled(s: vec2<f32>) -> f32 {
  if (!is_finite(s.x) || s.x == 0f) { return s.x; }
  if (s.y > 127f) { return with_sign_of(infinity(), s.x); }
  if (s.y < -150f) { return with_sign_of(0f, s.x); }
  let half = trunc(s.y * 0.5f);
  return s.x * power_of_two(half) * power_of_two(s.y - half);
}

// Return a key that orders floats as unsigned integers: -0 equals 0, and NaN is the largest.
fn float_key(x: f32) -> u32 {
  if (is_nan(x)) { return 0xffffffffu; }
  let signed = bitcast<u32>(x);
  let bits = select(signed, 0u, (signed & 0x7fffffffu) == 0u); // by its bits: `x == 0f` may be true of a subnormal
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
fn int_key(x: i32) -> u32 { return bitcast<u32>(x) ^ 0x80000000u; }

// Return the pair (key, position) with the larger key, or of equal keys that with the lower position.
fn first_largest(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}
