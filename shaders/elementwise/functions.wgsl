// The formulas of the elementwise ops, a function an op. elementwise.wgsl and the epilogues of products include this.
// WGSL may assume that there are no NaNs, so those are tested and made by their bits.

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

fn op_negative(x: f32) -> f32 { return -x; }
fn op_abs(x: f32) -> f32 { return abs(x); }
fn op_exp(x: f32) -> f32 { return exp(x); }
fn op_log(x: f32) -> f32 { return log(x); }
fn op_sqrt(x: f32) -> f32 { return sqrt(x); }
fn op_sigmoid(x: f32) -> f32 { return 1f / (1f + exp(-x)); }
fn op_add(a: f32, b: f32) -> f32 { return a + b; }
fn op_subtract(a: f32, b: f32) -> f32 { return a - b; }
fn op_multiply(a: f32, b: f32) -> f32 { return a * b; }
fn op_divide(a: f32, b: f32) -> f32 { return a / b; }

// Goldberg's correction: log(1 + x) * x / ((1 + x) - 1) is exact where 1 + x rounds.
fn op_log1p(x: f32) -> f32 {
  let u = 1f + x;
  if (u == 1f || is_nan(x) || (bitcast<u32>(u) & 0x7fffffffu) >= 0x7f800000u) { return x; }
  return select(log(u) * (x / (u - 1f)), log(u), u <= 0f);
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
