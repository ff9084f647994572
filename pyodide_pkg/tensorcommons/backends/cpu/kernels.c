// Products of float32 matrices for the CPU device, compiled to WebAssembly by scripts/kernels.py.
//
// The module imports the memory of Pyodide, so that pointers are addresses of NumPy's arrays. It has no data and no stack
// of its own, which would lie in that memory: the build fails if it does. Hence constants are immediates, arrays of
// vectors are unrolled into registers, and no address of a local variable is taken.
//
// Weights are read as they are stored. A tile of 4 by 8 products needs 8 accumulators; larger ones are slower, because
// engines then spill registers. On one core with fused multiply-adds it reaches 45 to 50 GFLOP/s.

#include <wasm_simd128.h>

#ifdef __wasm_relaxed_simd__
#define MADD(a, b, c) wasm_f32x4_relaxed_madd(a, b, c)
#else
#define MADD(a, b, c) wasm_f32x4_add(c, wasm_f32x4_mul(a, b))
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#define EXPORT(name) __attribute__((export_name(#name)))

typedef float f32;
typedef v128_t f32x4;

enum { ROWS = 4, PANEL = 32 }; // rows of a tile; columns that are finished before the next ones, from the cache
enum Activation { NONE, RELU, SIGMOID, GELU, TANH };

INLINE f32x4 splat(f32 x) { return wasm_f32x4_splat(x); }
INLINE f32x4 select(f32x4 mask, f32x4 yes, f32x4 no) { return wasm_v128_bitselect(yes, no, mask); }

INLINE f32 sum_of(f32x4 v) {
  return (wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 2)) +
         (wasm_f32x4_extract_lane(v, 1) + wasm_f32x4_extract_lane(v, 3));
}

// 2 ** n for integers n from -126 to 127.
INLINE f32x4 power_of_two(f32x4 n) {
  return wasm_i32x4_shl(wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_splat(127)), 23);
}

// e ** x = 2 ** n * e ** r with |r| <= log(2) / 2, where 7 terms of the series are exact to float32. The power is
// applied in two halves, for results below the normal numbers and at infinity. NaN passes through.
INLINE f32x4 exp4(f32x4 x) {
  x = wasm_f32x4_min(wasm_f32x4_max(x, splat(-110)), splat(90));
  f32x4 n = wasm_f32x4_nearest(wasm_f32x4_mul(x, splat(1.44269504f)));
  f32x4 r = wasm_f32x4_sub(wasm_f32x4_sub(x, wasm_f32x4_mul(n, splat(0.693359375f))), wasm_f32x4_mul(n, splat(-2.12194440e-4f)));
  f32x4 y = splat(1.f / 5040);
  y = MADD(y, r, splat(1.f / 720));
  y = MADD(y, r, splat(1.f / 120));
  y = MADD(y, r, splat(1.f / 24));
  y = MADD(y, r, splat(1.f / 6));
  y = MADD(y, r, splat(0.5f));
  y = MADD(y, r, splat(1));
  y = MADD(y, r, splat(1));
  f32x4 half = wasm_f32x4_floor(wasm_f32x4_mul(n, splat(0.5f)));
  return wasm_f32x4_mul(wasm_f32x4_mul(y, power_of_two(half)), power_of_two(wasm_f32x4_sub(n, half)));
}

INLINE f32x4 sigmoid4(f32x4 x) {
  return wasm_f32x4_div(splat(1), wasm_f32x4_add(splat(1), exp4(wasm_f32x4_neg(x))));
}

// x * (1 - x² / 3 + …) near 0, where (e ** 2x - 1) / (e ** 2x + 1) loses digits.
INLINE f32x4 tanh4(f32x4 x) {
  f32x4 size = wasm_f32x4_abs(x), q = wasm_f32x4_mul(x, x);
  f32x4 near = splat(62.f / 2835);
  near = MADD(near, q, splat(-17.f / 315));
  near = MADD(near, q, splat(2.f / 15));
  near = MADD(near, q, splat(-1.f / 3));
  near = MADD(wasm_f32x4_mul(near, q), x, x);
  f32x4 e = exp4(wasm_f32x4_mul(size, splat(-2)));
  f32x4 far = wasm_f32x4_div(wasm_f32x4_sub(splat(1), e), wasm_f32x4_add(splat(1), e));
  f32x4 sign = wasm_v128_and(x, splat(-0.f));
  return select(wasm_f32x4_lt(size, splat(0.25f)), near, wasm_v128_or(far, sign));
}

// erf(t) for |t| < 1, and 1 - erf(t) above: the polynomials of ops/activation.py.
INLINE f32x4 erf_near(f32x4 t) {
  f32x4 q = wasm_f32x4_mul(t, t), y = splat(-0.00056480599f);
  y = MADD(y, q, splat(0.0049217620f));
  y = MADD(y, q, splat(-0.026715054f));
  y = MADD(y, q, splat(0.11280317f));
  y = MADD(y, q, splat(-0.37612344f));
  y = MADD(y, q, splat(1.1283791f));
  return wasm_f32x4_mul(y, t);
}

INLINE f32x4 erfc_far(f32x4 t) {
  f32x4 y = splat(-0.000013272362f);
  y = MADD(y, t, splat(0.00031693702f));
  y = MADD(y, t, splat(-0.0034323514f));
  y = MADD(y, t, splat(0.022604772f));
  y = MADD(y, t, splat(-0.10328112f));
  y = MADD(y, t, splat(-0.63914126f));
  y = MADD(y, t, splat(-1.1258937f));
  y = MADD(y, t, splat(-0.00076589778f));
  return exp4(y);
}

// x / 2 * erfc(-x / sqrt(2)): as the op's meaning, 0 from where it is below 1e-7, and NaN for minus infinity.
INLINE f32x4 gelu4(f32x4 x) {
  f32x4 t = wasm_f32x4_mul(x, splat(-0.70710678f)), size = wasm_f32x4_abs(t);
  f32x4 tail = erfc_far(wasm_f32x4_min(size, splat(4)));
  tail = select(wasm_f32x4_ge(size, splat(4)), splat(0), tail);
  f32x4 left = select(wasm_f32x4_gt(t, splat(0)), tail, wasm_f32x4_sub(splat(2), tail));
  f32x4 near = wasm_f32x4_sub(splat(1), erf_near(t));
  return wasm_f32x4_mul(wasm_f32x4_mul(x, splat(0.5f)), select(wasm_f32x4_lt(size, splat(1)), near, left));
}

INLINE f32x4 activated(f32x4 x, enum Activation activation) {
  if (activation == RELU) return wasm_f32x4_max(x, splat(0));
  if (activation == SIGMOID) return sigmoid4(x);
  if (activation == GELU) return gelu4(x);
  if (activation == TANH) return tanh4(x);
  return x;
}

// Bias, activation and residual of a row, in place. A null pointer: none.
INLINE void finish(int n, f32 *c, const f32 *bias, const f32 *residual, enum Activation activation) {
  int j = 0;
  for (; j + 4 <= n; j += 4) {
    f32x4 y = wasm_v128_load(c + j);
    if (bias) y = wasm_f32x4_add(y, wasm_v128_load(bias + j));
    y = activated(y, activation);
    if (residual) y = wasm_f32x4_add(y, wasm_v128_load(residual + j));
    wasm_v128_store(c + j, y);
  }
  for (; j < n; j++) {
    f32x4 y = splat(bias ? c[j] + bias[j] : c[j]);
    f32 last = wasm_f32x4_extract_lane(activated(y, activation), 0);
    c[j] = residual ? last + residual[j] : last;
  }
}

// `M` rows of a by `N` rows of b: both are read along the depth, four products at a time, the last ones singly.
#define DOT_STEP(load)                                                                                                 \
  f32x4 w[N];                                                                                                          \
  UNROLL for (int j = 0; j < N; j++) w[j] = load(y[j] + p);                                                            \
  UNROLL for (int i = 0; i < M; i++) {                                                                                 \
    f32x4 v = load(x[i] + p);                                                                                          \
    UNROLL for (int j = 0; j < N; j++) sum[i][j] = MADD(v, w[j], sum[i][j]);                                           \
  }

INLINE void dot_tile(const int M, const int N, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  f32x4 sum[M][N];
  const f32 *x[M], *y[N];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) sum[i][j] = splat(0);
  UNROLL for (int i = 0; i < M; i++) x[i] = a + i * lda;
  UNROLL for (int j = 0; j < N; j++) y[j] = b + j * ldb;
  int p = 0;
  ROLLED for (; p + 4 <= k; p += 4) { DOT_STEP(wasm_v128_load) }
  ROLLED for (; p < k; p++) { DOT_STEP(wasm_v128_load32_zero) }
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) c[i * ldc + j] = sum_of(sum[i][j]);
}

// `M` rows of a by 4 `N` columns of b, whose rows are contiguous.
INLINE void row_tile(const int M, const int N, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  f32x4 sum[M][N];
  const f32 *x[M];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) sum[i][j] = splat(0);
  UNROLL for (int i = 0; i < M; i++) x[i] = a + i * lda;
  ROLLED for (int p = 0; p < k; p++, b += ldb) {
    f32x4 w[N];
    UNROLL for (int j = 0; j < N; j++) w[j] = wasm_v128_load(b + 4 * j);
    UNROLL for (int i = 0; i < M; i++) {
      f32x4 v = wasm_v128_load32_splat(x[i] + p);
      UNROLL for (int j = 0; j < N; j++) sum[i][j] = MADD(v, w[j], sum[i][j]);
    }
  }
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) wasm_v128_store(c + i * ldc + 4 * j, sum[i][j]);
}

// One column of the last ones that fill no vector.
INLINE void column(const int M, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  f32 sum[M];
  UNROLL for (int i = 0; i < M; i++) sum[i] = 0;
  ROLLED for (int p = 0; p < k; p++, b += ldb) UNROLL for (int i = 0; i < M; i++) sum[i] += a[i * lda + p] * *b;
  UNROLL for (int i = 0; i < M; i++) c[i * ldc] = sum[i];
}

INLINE void dot_rows(const int M, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  int j = 0;
  if (M == 1) {
    for (; j + 4 <= n; j += 4) dot_tile(M, 4, k, a, lda, b + j * ldb, ldb, c + j, ldc);
  } else {
    for (; j + 2 <= n; j += 2) dot_tile(M, 2, k, a, lda, b + j * ldb, ldb, c + j, ldc);
  }
  for (; j < n; j++) dot_tile(M, 1, k, a, lda, b + j * ldb, ldb, c + j, ldc);
}

INLINE void broadcast_rows(const int M, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  int j = 0;
  for (; j + 8 <= n; j += 8) row_tile(M, 2, k, a, lda, b + j, ldb, c + j, ldc);
  for (; j + 4 <= n; j += 4) row_tile(M, 1, k, a, lda, b + j, ldb, c + j, ldc);
  for (; j < n; j++) column(M, k, a, lda, b + j, ldb, c + j, ldc);
}

#define PRODUCT(name, rows, down)                                                                                      \
  EXPORT(name)                                                                                                         \
  void name(int m, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc, const f32 *bias,        \
            const f32 *residual, int ldr, enum Activation activation) {                                                \
    for (int start = 0; start < n; start += PANEL) {                                                                   \
      int width = n - start < PANEL ? n - start : PANEL, i = 0;                                                        \
      const f32 *panel = b + start * (down);                                                                           \
      for (; i + ROWS <= m; i += ROWS) rows(ROWS, width, k, a + i * lda, lda, panel, ldb, c + i * ldc + start, ldc);    \
      for (; i < m; i++) rows(1, width, k, a + i * lda, lda, panel, ldb, c + i * ldc + start, ldc);                    \
      if (bias || residual || activation)                                                                              \
        for (i = 0; i < m; i++)                                                                                        \
          finish(width, c + i * ldc + start, bias ? bias + start : 0, residual ? residual + i * ldr + start : 0,       \
                 activation);                                                                                          \
    }                                                                                                                  \
  }

// a (m, k) by b, then bias, activation and residual. `ld…` are the elements from one row to the next. In `dots` b is
// stored as (n, k), as the weights of a linear layer are, in `rows` as (k, n).
PRODUCT(dots, dot_rows, ldb)
PRODUCT(rows, broadcast_rows, 1)
