// Vectors of four floats and functions of them: e ** x, the sigmoid, tanh, erf, GELU; float16; rows of floats.

#pragma once

#include <wasm_simd128.h>

#ifdef __wasm_relaxed_simd__
#define MADD(a, b, c) wasm_f32x4_relaxed_madd(a, b, c)
#else
#define MADD(a, b, c) wasm_f32x4_add(c, wasm_f32x4_mul(a, b))
#endif

#define INLINE static inline __attribute__((always_inline))
#define KERNEL static __attribute__((noinline)) void
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#define EXPORT(name) __attribute__((export_name(#name)))

typedef float f32;
typedef unsigned short f16;
typedef v128_t f32x4;

enum { PART = 256 }; // elements of a row that are summed apart from the others
enum Activation { NONE, RELU, SIGMOID, GELU, TANH, GELU_BY_TANH };

INLINE f32x4 splat(f32 x) { return wasm_f32x4_splat(x); }
INLINE f32x4 select(f32x4 mask, f32x4 yes, f32x4 no) { return wasm_v128_bitselect(yes, no, mask); }

INLINE f32 sum_of(f32x4 v) {
  return (wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 2)) +
         (wasm_f32x4_extract_lane(v, 1) + wasm_f32x4_extract_lane(v, 3));
}

INLINE f32 max_of(f32x4 v) {
  v = wasm_f32x4_max(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_f32x4_extract_lane(wasm_f32x4_max(v, wasm_i32x4_shuffle(v, v, 1, 0, 3, 2)), 0);
}

// 2 ** n for integers n from -126 to 127.
INLINE f32x4 power_of_two(v128_t n) { return wasm_i32x4_shl(wasm_i32x4_add(n, wasm_i32x4_splat(127)), 23); }

// Numbers of the functions below. They are read from scratch memory, where each kernel that needs them writes them:
// engines load an immediate vector by several instructions, each time anew.
struct Numbers {
  f32 low, high, log2, round, ln2, ln2_rest, one, half, four, minus_root;
  f32 exp[5], near[6], far[8];
  int half_bits;
  f32 half_scale, half_end, half_check;
  int spread[4][4];
};
#define N(field) wasm_v128_load32_splat(&c->field)
typedef const struct Numbers *Numbers;

enum { NUMBERS = 64 }; // words that they take of scratch memory

INLINE Numbers numbers(f32 *scratch) {
  struct Numbers *c = (struct Numbers *)scratch;
  c->low = -110, c->high = 90, c->log2 = 1.44269504f, c->round = 12582912;
  c->ln2 = 0.693359375f, c->ln2_rest = -2.12194440e-4f, c->one = 1, c->half = 0.5f, c->four = 4, c->minus_root = -0.70710678f;
  c->exp[0] = 1.f / 5040, c->exp[1] = 1.f / 720, c->exp[2] = 1.f / 120, c->exp[3] = 1.f / 24, c->exp[4] = 1.f / 6;
  c->near[0] = -0.00056480599f, c->near[1] = 0.0049217620f, c->near[2] = -0.026715054f;
  c->near[3] = 0.11280317f, c->near[4] = -0.37612344f, c->near[5] = 1.1283791f;
  c->far[0] = -0.000013272362f, c->far[1] = 0.00031693702f, c->far[2] = -0.0034323514f, c->far[3] = 0.022604772f;
  c->far[4] = -0.10328112f, c->far[5] = -0.63914126f, c->far[6] = -1.1258937f, c->far[7] = -0.00076589778f;
  c->half_bits = (int)0x8fffe000, c->half_scale = 0x1p112f, c->half_end = 0x1p16f, c->half_check = 0x1p114f;
  UNROLL for (int i = 0; i < 16; i++) c->spread[i / 4][i % 4] = (int)(0x808080u | (unsigned)i << 24);
  return c;
}

// The float32 of a float16. 2 ** 112 more moves its exponent, of numbers below the normal ones too.
INLINE f32 half_of(f16 half) {
  union { unsigned bits; f32 number; } x = {(half & 0x7fff) << 13};
  x.number *= 0x1p112f;
  x.bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
  x.bits |= (half & 0x8000) << 16;
  return x.number;
}

// The nearest float16, of two the even one; NaN for what float16 cannot hold.
INLINE f16 half_in_range(f32 number) {
  union { f32 number; unsigned bits; } x = {number}, least = {0};
  unsigned size = x.bits & 0x7fffffff, sign = x.bits >> 16 & 0x8000;
  if (size >= 0x477ff000) return (f16)(sign | 0x7e00); // 65,520
  if (size >= 0x38800000) return (f16)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
  x.bits = size; // below 2 ** -14 the steps are 2 ** -24, those of float32 from 0.5 on
  least.number = x.number + 0.5f;
  return (f16)(sign | (least.bits - 0x3f000000));
}

// Four float16, whose infinities and NaN become numbers from 2 ** 16 on, which no float16 is.
INLINE f32x4 finite_halves(const f16 *x, Numbers c) {
  v128_t bits = wasm_v128_and(wasm_i32x4_shl(wasm_i32x4_load16x4(x), 13), N(half_bits));
  return wasm_f32x4_mul(bits, N(half_scale));
}

// A row of float16.
INLINE void widen_row(int n, const f16 *x, f32 *out, Numbers c) {
  int j = 0;
  ROLLED for (; j + 4 <= n; j += 4) {
    f32x4 y = finite_halves(x + j, c);
    v128_t is_special = wasm_f32x4_ge(wasm_f32x4_abs(y), N(half_end));
    wasm_v128_store(out + j, wasm_v128_or(y, wasm_v128_and(is_special, wasm_i32x4_splat(0x7f800000))));
  }
  ROLLED for (; j < n; j++) out[j] = half_of(x[j]);
}

// e ** x = 2 ** n * e ** r with |r| <= log(2) / 2, where 7 terms of the series are exact to float32. The power is
// applied in two halves, for results below the normal numbers and at infinity. A number of 1.5 * 2 ** 23 more is rounded
// to an integer, which its last bits are. NaN passes through.
INLINE f32x4 exp4(f32x4 x, Numbers c) {
  x = wasm_f32x4_pmin(wasm_f32x4_pmax(x, N(low)), N(high));
  f32x4 rounded = wasm_f32x4_add(wasm_f32x4_mul(x, N(log2)), N(round));
  f32x4 n = wasm_f32x4_sub(rounded, N(round));
  f32x4 r = wasm_f32x4_sub(wasm_f32x4_sub(x, wasm_f32x4_mul(n, N(ln2))), wasm_f32x4_mul(n, N(ln2_rest)));
  f32x4 y = N(exp[0]);
  UNROLL for (int i = 1; i < 5; i++) y = MADD(y, r, N(exp[i]));
  y = MADD(y, r, N(half));
  y = MADD(y, r, N(one));
  y = MADD(y, r, N(one));
  v128_t all = wasm_i32x4_sub(rounded, N(round)), half = wasm_i32x4_shr(all, 1);
  return wasm_f32x4_mul(wasm_f32x4_mul(y, power_of_two(half)), power_of_two(wasm_i32x4_sub(all, half)));
}

INLINE f32x4 sigmoid4(f32x4 x, Numbers c) {
  return wasm_f32x4_div(splat(1), wasm_f32x4_add(splat(1), exp4(wasm_f32x4_neg(x), c)));
}

// x * (1 - x² / 3 + …) near 0, where (e ** 2x - 1) / (e ** 2x + 1) loses digits.
INLINE f32x4 tanh4(f32x4 x, Numbers c) {
  f32x4 size = wasm_f32x4_abs(x), q = wasm_f32x4_mul(x, x);
  f32x4 near = splat(62.f / 2835);
  near = MADD(near, q, splat(-17.f / 315));
  near = MADD(near, q, splat(2.f / 15));
  near = MADD(near, q, splat(-1.f / 3));
  near = MADD(wasm_f32x4_mul(near, q), x, x);
  f32x4 e = exp4(wasm_f32x4_mul(size, splat(-2)), c);
  f32x4 far = wasm_f32x4_div(wasm_f32x4_sub(splat(1), e), wasm_f32x4_add(splat(1), e));
  f32x4 sign = wasm_v128_and(x, splat(-0.f));
  return wasm_v128_or(select(wasm_f32x4_lt(size, splat(0.25f)), near, far), sign);
}

// erf(t) for |t| < 1, and 1 - erf(t) above: the polynomials of ops/activation.py.
INLINE f32x4 erf_near(f32x4 t, Numbers c) {
  f32x4 q = wasm_f32x4_mul(t, t), y = N(near[0]);
  UNROLL for (int i = 1; i < 6; i++) y = MADD(y, q, N(near[i]));
  return wasm_f32x4_mul(y, t);
}

INLINE f32x4 erfc_far(f32x4 t, Numbers c) {
  f32x4 y = N(far[0]);
  UNROLL for (int i = 1; i < 8; i++) y = MADD(y, t, N(far[i]));
  return exp4(y, c);
}

// x / 2 * erfc(-x / sqrt(2)): as the op's meaning, 0 from where it is below 1e-7, and NaN for minus infinity.
INLINE f32x4 gelu4(f32x4 x, Numbers c) {
  f32x4 t = wasm_f32x4_mul(x, N(minus_root)), size = wasm_f32x4_abs(t), two = wasm_f32x4_add(N(one), N(one));
  f32x4 tail = erfc_far(wasm_f32x4_pmin(size, N(four)), c);
  tail = wasm_v128_andnot(tail, wasm_f32x4_ge(size, N(four)));
  f32x4 left = select(wasm_f32x4_gt(t, splat(0)), tail, wasm_f32x4_sub(two, tail));
  f32x4 near = wasm_f32x4_sub(N(one), erf_near(t, c));
  return wasm_f32x4_mul(wasm_f32x4_mul(x, N(half)), select(wasm_f32x4_lt(size, N(one)), near, left));
}

INLINE f32x4 erf4(f32x4 x, Numbers c) {
  f32x4 size = wasm_f32x4_abs(x);
  f32x4 far = wasm_f32x4_sub(splat(1), erfc_far(wasm_f32x4_pmin(size, N(four)), c));
  far = select(wasm_f32x4_ge(size, splat(4)), splat(1), far);
  far = wasm_v128_or(far, wasm_v128_and(x, splat(-0.f)));
  return select(wasm_f32x4_lt(size, splat(1)), erf_near(x, c), far);
}

// x / (1 + e ** power), without an infinite power: its result may be a normal number.
INLINE f32x4 over_one_plus_exp(f32x4 x, f32x4 power, Numbers c) {
  f32x4 e = exp4(wasm_f32x4_neg(wasm_f32x4_abs(power)), c);
  f32x4 top = select(wasm_f32x4_gt(power, splat(0)), wasm_f32x4_mul(x, e), x);
  return wasm_f32x4_div(top, wasm_f32x4_add(N(one), e));
}

// x * sigmoid(sqrt(8 / pi) * (x + 0.044715 x³))
INLINE f32x4 gelu_tanh4(f32x4 x, Numbers c) {
  f32x4 inner = MADD(wasm_f32x4_mul(wasm_f32x4_mul(x, x), x), splat(0.044715f), x);
  return over_one_plus_exp(x, wasm_f32x4_mul(inner, splat(-1.5957691f)), c);
}

INLINE f32x4 activated(f32x4 x, enum Activation activation, Numbers c) {
  if (activation == RELU) return wasm_f32x4_pmax(x, splat(0));
  if (activation == SIGMOID) return sigmoid4(x, c);
  if (activation == GELU) return gelu4(x, c);
  if (activation == TANH) return tanh4(x, c);
  if (activation == GELU_BY_TANH) return gelu_tanh4(x, c);
  return x;
}

INLINE void add_row(int n, f32 *out, const f32 *row, int is_first) {
  int j = 0;
  if (!row) {
    for (; j < n; j++) out[j] = __builtin_nanf("");
  } else if (is_first) {
    for (; j + 4 <= n; j += 4) wasm_v128_store(out + j, wasm_v128_load(row + j));
    ROLLED for (; j < n; j++) out[j] = row[j];
  } else {
    for (; j + 4 <= n; j += 4)
      wasm_v128_store(out + j, wasm_f32x4_add(wasm_v128_load(out + j), wasm_v128_load(row + j)));
    for (; j < n; j++) out[j] += row[j];
  }
}

// log(x) = log(m) + n log(2) for x = m 2 ** n with m near 1, by the series of 2 atanh((m - 1) / (m + 1)).
INLINE f32 log_of(f32 x) {
  union { double number; long long bits; } m = {x};
  if (!(x > 0) || x == __builtin_inff()) return x == 0 ? -__builtin_inff() : x > 0 ? x : __builtin_nanf("");
  int n = (int)(m.bits >> 52) - 1023;
  m.bits = (m.bits & 0xfffffffffffffLL) | 0x3ff0000000000000LL;
  if (m.number > 1.4142135623730951) m.number /= 2, n++;
  double s = (m.number - 1) / (m.number + 1), q = s * s, sum = 1. / 15;
  UNROLL for (int i = 13; i > 0; i -= 2) sum = sum * q + 1. / i;
  return 2 * s * sum + n * 0.6931471805599453;
}

// log(1 + x): the logarithm of the sum u as in `log_of`, and (x - (u - 1)) / u for what u rounds off.
INLINE f32x4 log1p4(f32x4 x) {
  f32x4 u = wasm_f32x4_add(x, splat(1));
  v128_t n = wasm_i32x4_shr(wasm_i32x4_sub(u, wasm_i32x4_splat(0x3f3504f3)), 23);
  f32x4 m = wasm_i32x4_sub(u, wasm_i32x4_shl(n, 23)), power = wasm_f32x4_convert_i32x4(n);
  f32x4 s = wasm_f32x4_div(wasm_f32x4_sub(m, splat(1)), wasm_f32x4_add(m, splat(1))), q = wasm_f32x4_mul(s, s);
  f32x4 sum = splat(2.f / 9);
  UNROLL for (int i = 7; i > 0; i -= 2) sum = MADD(sum, q, splat(2.f / i));
  f32x4 rest = wasm_f32x4_div(wasm_f32x4_sub(x, wasm_f32x4_sub(u, splat(1))), u);
  f32x4 y = MADD(power, splat(-2.12194440e-4f), MADD(s, sum, rest));
  y = MADD(power, splat(0.693359375f), y);
  y = select(wasm_f32x4_eq(u, splat(0)), splat(-__builtin_inff()), y);
  y = select(wasm_f32x4_lt(u, splat(0)), splat(__builtin_nanf("")), y);
  v128_t passes = wasm_v128_or(wasm_f32x4_eq(x, splat(0)), wasm_v128_not(wasm_f32x4_lt(x, splat(__builtin_inff()))));
  return select(passes, x, y); // zeros of both signs, infinity and NaN
}

// The sum of e ** (x - shift), of parts of the row, which loses fewer digits.
INLINE f32 sum_of_powers(int n, const f32 *x, f32 shift, Numbers c) {
  f32 total = 0;
  for (int start = 0; start < n; start += PART) {
    int j = start, end = n - start < PART ? n : start + PART;
    f32x4 part = splat(0);
    for (; j + 4 <= end; j += 4)
      part = wasm_f32x4_add(part, exp4(wasm_f32x4_sub(wasm_v128_load(x + j), splat(shift)), c));
    f32 rest = sum_of(part);
    ROLLED for (; j < end; j++) rest += wasm_f32x4_extract_lane(exp4(splat(x[j] - shift), c), 0);
    total += rest;
  }
  return total;
}
