// The activations of ops/activation.py, and their choice by number as the epilogue of a product.

// erf: x * P(x^2) below 1, 1 - exp(Q(x)) above; the numbers and their error are in ops/activation.py.
fn erf_near(x: f32) -> f32 {
  let s = x * x;
  return x * (1.1283791f + s * (-0.37612344f + s * (0.11280317f + s * (-0.026715054f + s * (0.0049217620f + s * -0.00056480599f)))));
}
fn erfc_far(t: f32) -> f32 {
  return op_exp(-0.00076589778f + t * (-1.1258937f + t * (-0.63914126f + t * (-0.10328112f
    + t * (0.022604772f + t * (-0.0034323514f + t * (0.00031693702f + t * -0.000013272362f)))))));
}
fn op_erf(x: f32) -> f32 {
  if (is_nan(x)) { return x; }
  let t = min(abs(x), 4f);
  if (t < 1f) { return erf_near(x); }
  return with_sign_of(1f - erfc_far(t), x);
}

fn op_relu(x: f32) -> f32 { return select(max(x, 0f), x, is_nan(x)); }
// x / 2 * erfc(-x / sqrt(2)): left of -sqrt(2) from what 1 + erf would round off; 0 from -5.6 on, where it is 1e-7.
// Each polynomial stands here once: a software adapter computes both branches.
fn op_gelu(x: f32) -> f32 {
  let t = x * -0.70710678f;
  let size = min(abs(t), 4f);
  if (size < 1f) { return 0.5f * x * (1f - erf_near(t)); }
  let tail = erfc_far(size);
  return 0.5f * x * select(2f - tail, select(tail, 0f, t >= 4f), t > 0f);
}
// tanh(u) is 2 sigmoid(2u) - 1.
fn op_gelu_tanh(x: f32) -> f32 { return x * op_sigmoid(1.5957691f * (x + 0.044715f * x * x * x)); }
fn op_sigmoid(x: f32) -> f32 { return 1f / (1f + op_exp(-x)); }
fn op_silu(x: f32) -> f32 { return x / (1f + op_exp(-x)); }
fn op_softplus(x: f32) -> f32 { return op_relu(x) + op_log1p(op_exp(-abs(x))); }
fn op_hardsigmoid(x: f32) -> f32 { return select(clamp(x + 3f, 0f, 6f) / 6f, x, is_nan(x)); }
fn op_hardswish(x: f32) -> f32 { return x * op_hardsigmoid(x); }
fn op_leaky_relu(x: f32, slope: f32) -> f32 { return select(slope * x, x, x >= 0f); }
fn op_elu(x: f32, alpha: f32) -> f32 { return select(alpha * op_expm1(x), x, x > 0f); }

// The epilogue of a product, chosen by number (kernels/matmul.py): one pipeline serves every activation, where each
// would take a software adapter about a second to compile.
fn activate(kind: u32, x: f32) -> f32 {
  switch (kind) {
    case 1u: { return op_relu(x); }
    case 2u: { return op_gelu(x); }
    case 3u: { return op_tanh(x); }
    case 4u: { return op_sigmoid(x); }
    case 5u: { return op_gelu_tanh(x); }
    default: { return x; }
  }
}

fn activate4(kind: u32, v: vec4<f32>) -> vec4<f32> {
  if (kind == 0u) { return v; } // the loop costs a third of a small product on a software adapter
  var result = v;
  for (var i = 0u; i < 4u; i++) { result[i] = activate(kind, v[i]); }
  return result;
}
