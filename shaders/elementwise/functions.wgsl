// The formulas of the elementwise ops, a function an op. elementwise.wgsl and the epilogues of products include this.
// WGSL may assume that there are no NaNs, so those are tested and made by their bits.

var<private> infinity_bits: u32 = 0x7f800000u; // WGSL cannot spell an infinity, nor make one at compile time

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

fn op_negative(x: f32) -> f32 { return -x; }
fn op_abs(x: f32) -> f32 { return abs(x); }
fn op_exp(x: f32) -> f32 { return select(exp(x), x, is_nan(x)); }
fn op_sqrt(x: f32) -> f32 { return sqrt(x); }
fn op_sigmoid(x: f32) -> f32 { return 1f / (1f + op_exp(-x)); }
fn op_add(a: f32, b: f32) -> f32 { return a + b; }
fn op_subtract(a: f32, b: f32) -> f32 { return a - b; }
fn op_multiply(a: f32, b: f32) -> f32 { return a * b; }
fn op_divide(a: f32, b: f32) -> f32 { return a / b; }

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

// exp overflows past 88; tanh is 1 in float32 from 9 on.
fn op_tanh(x: f32) -> f32 { return select(tanh(clamp(x, -9f, 9f)), x, is_nan(x)); }

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
