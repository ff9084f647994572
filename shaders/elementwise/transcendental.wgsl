// Exponentials, logarithms, powers and trigonometry to a few units in the last place of float32. WGSL promises less: 2^-11
// absolute for sin, 4,096 units for atan, 2^-21 absolute for log near 1. The polynomials are those of Cephes (Moshier,
// 1984-1992), which were fitted for float32.

// 2^n * x, for n up to 250 either way: in two steps, so that neither factor leaves the range.
fn scaled(x: f32, n: i32) -> f32 {
  let half = clamp(n, -250, 250) / 2;
  let rest = clamp(n, -250, 250) - half;
  return x * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(rest + 127) << 23u);
}

// e^r - 1 for |r| up to ln(2) / 2.
fn expm1_near(r: f32) -> f32 {
  return r + r * r * (0.50000001201f + r * (0.16666665459f + r * (0.041665795894f
    + r * (0.0083334519073f + r * (0.0013981999507f + r * 0.00019875691500f)))));
}
// e^x = 2^n e^r. ln(2) is taken in two parts, of which n times the first is exact (Cody and Waite, 1980).
fn op_exp(x: f32) -> f32 {
  if (is_nan(x)) { return x; }
  let t = clamp(x, -120f, 90f);
  let n = round(t * 1.44269504f);
  return scaled(1f + expm1_near((t - n * 0.693359375f) + n * 0.000212194440f), i32(n));
}
fn op_expm1(x: f32) -> f32 {
  if (abs(x) <= 0.34f) { return expm1_near(x); }
  return op_exp(x) - 1f;
}

// x as 2^exponent * (1 + m), with m from sqrt(1/2) - 1 to sqrt(2) - 1: the exponent, m, and log(1 + m) - m.
fn log_parts(x: f32) -> vec3<f32> {
  let bits = bitcast<u32>(x);
  let small = ((bits & 0x7fffffu) | 0x3f000000u) < 0x3f3504f3u;
  let m = bitcast<f32>((bits & 0x7fffffu) | select(0x3f000000u, 0x3f800000u, small)) - 1f;
  let q = m * m;
  let tail = m * q * (0.33333331174f + m * (-0.24999993993f + m * (0.20000714765f + m * (-0.16668057665f
    + m * (0.14249322787f + m * (-0.12420140846f + m * (0.11676998740f + m * (-0.11514610310f + m * 0.070376836292f))))))));
  return vec3<f32>(f32(i32(bits >> 23u) - select(126, 127, small)), m, tail - 0.5f * q);
}
// What a logarithm is where log_parts has no answer; 0 elsewhere.
fn is_odd_for_log(x: f32) -> bool { return !(x > 0f) || !is_finite(x); }
fn odd_log(x: f32) -> f32 {
  if (x == 0f) { return -infinity(); }
  return select(x, nan(), x < 0f);
}
fn op_log(x: f32) -> f32 {
  if (is_odd_for_log(x)) { return odd_log(x); }
  let p = log_parts(x);
  return p.x * 0.693359375f + (p.y + (p.z - p.x * 0.000212194440f));
}
fn op_log2(x: f32) -> f32 {
  if (is_odd_for_log(x)) { return odd_log(x); }
  let p = log_parts(x);
  return p.x + (p.y + p.z) * 1.44269504f;
}
fn op_log10(x: f32) -> f32 {
  if (is_odd_for_log(x)) { return odd_log(x); }
  let p = log_parts(x);
  return p.x * 0.30078125f + (p.x * 0.000248745663f + (p.y + p.z) * 0.434294482f);
}
// log(1 + x) near 0, where 1 + x loses digits: 2 artanh(x / (2 + x)).
fn op_log1p(x: f32) -> f32 {
  if (abs(x) > 0.3f || is_nan(x)) { return op_log(1f + x); }
  let s = x / (2f + x);
  let q = s * s;
  return 2f * s * (1f + q * (0.33333333f + q * (0.2f + q * (0.14285714f + q * 0.11111111f))));
}

fn op_pow(x: f32, y: f32) -> f32 {
  if (y == 0f || x == 1f) { return 1f; }
  if (is_nan(x) || is_nan(y)) { return nan(); }
  let size = abs(x);
  let is_whole = is_infinite(y) || floor(y) == y;
  let is_odd = is_whole && abs(y) < 16777216f && (i32(y) & 1) == 1;
  let turn = select(1f, -1f, is_odd && is_negative(x));
  if (size == 1f) { return select(nan(), turn, is_whole); }
  if (size == 0f || is_infinite(x)) { return select(0f, infinity(), (size == 0f) == (y < 0f)) * turn; }
  if (is_infinite(y)) { return select(0f, infinity(), (size > 1f) == (y > 0f)); }
  if (x < 0f && !is_whole) { return nan(); }
  // 2^(y * log2(x)): y times the exponent is taken in parts, so that its whole number costs the fraction no digit.
  let p = log_parts(size);
  let high = bitcast<f32>(bitcast<u32>(y) & 0xfffff000u);
  let whole = round(clamp(high * p.x, -1000f, 1000f));
  let rest = clamp((high * p.x - whole) + (y - high) * p.x + y * ((p.y + p.z) * 1.44269504f), -1000f, 1000f);
  let n = round(rest);
  return turn * scaled(1f + expm1_near((rest - n) * 0.693147181f), i32(whole + n));
}

// x = n * pi / 2 + r, |r| up to pi / 4: pi / 2 in four parts, of which n times the first three is exact for |x| up to
// 10,000 and more.
fn quarter_of(x: f32) -> f32 { return round(x * 0.636619772f); }
fn in_quarter(x: f32, n: f32) -> f32 {
  return (((x - n * 1.5703125f) - n * 0.000483751297f) - n * 7.5495336e-8f) - n * 2.563344e-12f;
}
fn sin_near(r: f32) -> f32 {
  let q = r * r;
  return r + r * q * (-0.16666654611f + q * (0.0083321608736f - q * 0.00019515295891f));
}
fn cos_near(r: f32) -> f32 {
  let q = r * r;
  return 1f - 0.5f * q + q * q * (0.041666645683f + q * (-0.0013887316255f + q * 0.000024433157118f));
}
fn sine(x: f32, shift: i32) -> f32 {
  if (!is_finite(x)) { return nan(); }
  let n = quarter_of(x);
  let r = in_quarter(x, n);
  let quarter = (i32(n) + shift) & 3;
  let size = select(sin_near(r), cos_near(r), (quarter & 1) == 1);
  return select(size, -size, quarter >= 2);
}
fn op_sin(x: f32) -> f32 { return select(sine(x, 0), x, x == 0f); }
fn op_cos(x: f32) -> f32 { return sine(x, 1); }
fn op_tan(x: f32) -> f32 {
  if (!is_finite(x)) { return nan(); }
  let n = quarter_of(x);
  let r = in_quarter(x, n);
  let s = sin_near(r);
  let c = cos_near(r);
  if ((i32(n) & 1) == 1) { return -c / s; }
  return select(s / c, x, x == 0f);
}

fn asin_near(s: f32, q: f32) -> f32 { // s up to 0.5, q its square
  return s + s * q * (0.16666752422f + q * (0.074953002686f + q * (0.045470025998f + q * (0.024181311049f + q * 0.042163199048f))));
}
fn op_asin(x: f32) -> f32 {
  let a = abs(x);
  if (is_nan(x) || a > 1f) { return nan(); }
  if (a <= 0.5f) { return asin_near(x, x * x); }
  let q = 0.5f * (1f - a);
  return with_sign_of(1.57079633f - 2f * asin_near(sqrt(q), q), x);
}
fn op_acos(x: f32) -> f32 {
  let a = abs(x);
  if (is_nan(x) || a > 1f) { return nan(); }
  if (a <= 0.5f) { return 1.57079633f - asin_near(x, x * x); }
  let q = 0.5f * (1f - a);
  let angle = 2f * asin_near(sqrt(q), q);
  return select(angle, 3.14159265f - angle, x < 0f);
}
fn atan_near(x: f32) -> f32 {
  let q = x * x;
  return x + x * q * (-0.33332949154f + q * (0.19977710648f + q * (-0.13877685603f + q * 0.080537444954f)));
}
fn op_atan(x: f32) -> f32 {
  let a = abs(x);
  if (is_nan(x) || a == 0f) { return x; }
  if (a > 2.41421356f) { return with_sign_of(1.57079633f - atan_near(1f / a), x); }
  if (a > 0.41421356f) { return with_sign_of(0.785398163f + atan_near((a - 1f) / (a + 1f)), x); }
  return atan_near(x);
}
fn op_atan2(y: f32, x: f32) -> f32 {
  if (is_nan(y) || is_nan(x)) { return nan(); }
  var angle = 0f;
  if (is_infinite(y) && is_infinite(x)) {
    angle = 0.785398163f;
  } else if (x == 0f) {
    angle = select(1.57079633f, 0f, y == 0f);
  } else {
    angle = op_atan(op_divide(abs(y), abs(x)));
  }
  return with_sign_of(select(angle, 3.14159265f - angle, is_negative(x)), y);
}

// The root of e^|x| / 2: its square overflows only where sinh and cosh do, in whatever order a compiler multiplies.
fn root_of_half_exp(x: f32) -> f32 { return 0.707106781f * op_exp(0.5f * abs(x)); }
fn op_sinh(x: f32) -> f32 {
  let q = x * x;
  if (q < 1f) { return x + x * q * (0.166667160211f + q * (0.00833028376239f + q * 0.000203721912945f)); }
  let h = root_of_half_exp(x);
  return with_sign_of(h * h - 0.25f / (h * h), x);
}
fn op_cosh(x: f32) -> f32 {
  let h = root_of_half_exp(x);
  return h * h + 0.25f / (h * h);
}
// Near 0 a polynomial in x^2, where 1 - 2 / (e^2x + 1) loses its digits; 1 in float32 from 9 on.
fn op_tanh(x: f32) -> f32 {
  if (is_nan(x)) { return x; }
  let q = x * x;
  if (q < 0.390625f) {
    return x + x * q * (-0.333332819f + q * (0.133314422f + q * (-0.0537397156f + q * (0.0206390887f - q * 0.00570498872f))));
  }
  let t = 1f - 2f / (op_exp(2f * min(abs(x), 9f)) + 1f);
  return select(t, -t, x < 0f);
}
fn op_asinh(x: f32) -> f32 {
  let a = abs(x);
  if (is_nan(x) || a == 0f) { return x; }
  if (a > 1e9f) { return with_sign_of(op_log(a) + 0.693147181f, x); }
  return with_sign_of(op_log1p(a + a * a / (1f + sqrt(1f + a * a))), x);
}
fn op_acosh(x: f32) -> f32 {
  if (is_nan(x) || x < 1f) { return nan(); }
  if (x > 1e9f) { return op_log(x) + 0.693147181f; }
  let t = x - 1f;
  return op_log1p(t + sqrt(2f * t + t * t));
}
fn op_atanh(x: f32) -> f32 {
  let a = abs(x);
  if (is_nan(x) || a > 1f) { return nan(); }
  if (a == 1f) { return with_sign_of(infinity(), x); }
  return with_sign_of(0.5f * op_log1p(2f * a / (1f - a)), x);
}
