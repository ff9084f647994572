// The formulas of the elementwise ops, a function an op. What a shader calls from here comes along by itself.
// WGSL may assume that there are no NaNs, so those are tested and made by their bits.

var<private> infinity_bits: u32 = 0x7f800000u; // WGSL cannot spell an infinity, nor make one at compile time

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

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

// Towards 0 and within the range; 0 for NaN. WGSL's own conversions end at the largest f32 below 2^31.
fn i32_of(x: f32) -> i32 {
  if (is_nan(x)) { return 0; }
  return select(i32(clamp(x, -2147483648f, 2147483520f)), 2147483647, x >= 2147483648f);
}
fn u32_of(x: f32) -> u32 {
  if (is_nan(x)) { return 0u; }
  return select(u32(clamp(x, 0f, 4294967040f)), 4294967295u, x >= 4294967296f);
}

fn op_exp(x: f32) -> f32 { return select(exp(x), x, is_nan(x)); }
fn op_sigmoid(x: f32) -> f32 { return 1f / (1f + op_exp(-x)); }
fn op_add(a: f32, b: f32) -> f32 { return a + b; }

// log(1 + x) for |x| up to 0.3, as 2 artanh(x / (2 + x)): WGSL promises only 5e-7 absolute of log near 1.
fn log1p_near(x: f32) -> f32 {
  let s = x / (2f + x);
  let q = s * s;
  return 2f * s * (1f + q * (0.33333333 + q * (0.2 + q * (0.14285714 + q * 0.11111111))));
}

fn op_log(x: f32) -> f32 {
  if (abs(x - 1f) <= 0.3) { return log1p_near(x - 1f); }
  let infinity = bitcast<f32>(infinity_bits);
  if (x <= 0f) { return select(bitcast<f32>(infinity_bits | 1u), -infinity, x == 0f); }
  return select(log(x), x, is_nan(x) || x == infinity);
}

fn op_log1p(x: f32) -> f32 {
  if (abs(x) <= 0.3) { return log1p_near(x); }
  return op_log(1f + x);
}

// Near 0 a polynomial in x^2 (Moshier, Cephes tanhf), where 1 - 2 / (e^2x + 1) loses its digits; 1 in float32 from 9 on.
fn op_tanh(x: f32) -> f32 {
  if (is_nan(x)) { return x; }
  let q = x * x;
  if (q < 0.390625) {
    return x + x * q * (-0.333332819 + q * (0.133314422 + q * (-0.0537397156 + q * (0.0206390887 - q * 0.00570498872))));
  }
  let t = 1f - 2f / (exp(2f * min(abs(x), 9f)) + 1f);
  return select(t, -t, x < 0f);
}

fn op_relu(x: f32) -> f32 { return select(max(x, 0f), x, is_nan(x)); }

fn op_maximum(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  return select(max(a, b), b, is_nan(b));
}

fn op_minimum(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  return select(min(a, b), b, is_nan(b));
}

// erf: x * P(x^2) below 1, 1 - exp(Q(x)) above; the numbers and their error are in ops/elementwise.py.
fn erf(x: f32) -> f32 {
  let t = min(abs(x), 4f);
  if (t < 1f) {
    let s = t * t;
    return x * (1.1283791 + s * (-0.37612344 + s * (0.11280317 + s * (-0.026715054 + s * (0.0049217620 + s * -0.00056480599)))));
  }
  let q = -0.00076589778 + t * (-1.1258937 + t * (-0.63914126 + t * (-0.10328112
    + t * (0.022604772 + t * (-0.0034323514 + t * (0.00031693702 + t * -0.000013272362))))));
  return sign(x) * (1f - exp(q));
}

fn op_gelu(x: f32) -> f32 { return 0.5 * x * (1f + erf(x * 0.70710678)); }

// The epilogue of a product, chosen by number (kernels/matmul.py): one pipeline serves every activation, where each
// would take a software adapter about a second to compile.
fn activate(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: { return op_relu(x); }
    case 2u: { return op_gelu(x); }
    case 3u: { return op_tanh(x); }
    case 4u: { return op_sigmoid(x); }
    default: { return x; }
  }
}
