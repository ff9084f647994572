// Products with matrices of float16, which are converted as they are read: a token of a decoder takes as long as reading
// its weights, of half the bytes of float32.

#pragma once

#include "products.h"

// columns of b of (k, n) that are converted before they are multiplied; up to STREAMED rows, 8 rows of WIDENED
enum { WIDE = 64, WIDENED = 2048 };

// One row of a by `N` rows of b, with the bits of `dot_tile`. Returns 0 if numbers of b are infinite, NaN, or large: sums of
// all times 2 ** 114 are not finite then. The last numbers are converted exactly.
INLINE int half_tile(const int N, int k, const f32 *a, const f16 *b, int ldb, f32 *c, int step, Numbers numbers) {
  f32x4 sum[N], all[N], rest = splat(0), check = wasm_v128_load32_splat(&numbers->half_check);
  const f16 *y[N];
  UNROLL for (int j = 0; j < N; j++) sum[j] = all[j] = splat(0);
  UNROLL for (int j = 0; j < N; j++) y[j] = b + j * ldb;
  int p = 0;
  ROLLED for (; p + 4 <= k; p += 4) {
    f32x4 v = wasm_v128_load(a + p);
    UNROLL for (int j = 0; j < N; j++) {
      f32x4 w = finite_halves(y[j] + p, numbers);
      all[j] = MADD(w, check, all[j]);
      sum[j] = MADD(v, w, sum[j]);
    }
  }
  ROLLED for (; p < k; p++) {
    f32x4 v = wasm_v128_load32_zero(a + p);
    UNROLL for (int j = 0; j < N; j++) sum[j] = MADD(v, wasm_f32x4_replace_lane(splat(0), 0, half_of(y[j][p])), sum[j]);
  }
  UNROLL for (int j = 0; j < N; j++) c[j * step] = sum_of(sum[j]);
  UNROLL for (int j = 0; j < N; j++) rest = wasm_f32x4_add(rest, wasm_f32x4_sub(all[j], all[j]));
  return wasm_i32x4_all_true(wasm_f32x4_eq(rest, splat(0)));
}

// As `dot_row`. Returns 0 if numbers of b may not be finite, for which the results are wrong.
static __attribute__((noinline)) int half_row(int n, int k, const f32 *a, const f16 *b, int ldb, f32 *c, Numbers numbers) {
  int part = n / 4, j = 0, is_finite = 1;
  for (; j < part; j++) is_finite &= half_tile(4, k, a, b + j * ldb, part * ldb, c + j, part, numbers);
  for (j = 4 * part; j < n; j++) is_finite &= half_tile(1, k, a, b + j * ldb, 0, c + j, 1, numbers);
  return is_finite;
}

INLINE void widen_rows(int rows, int n, const f16 *x, int ld, f32 *out, int to, Numbers c) {
  ROLLED for (int i = 0; i < rows; i++) widen_row(n, x + i * ld, out + i * to, c);
}

// As `stream_rows`, of a result that is not added to.
KERNEL half_stream(int m, int n, int k, const f32 *a, int lda, const f16 *b, int ldb, f32 *c, int ldc, Numbers numbers,
                   f32 *wide) {
  clear_rows(m, n, c, ldc);
  for (int p = 0; p < k; p += 8) {
    int count = k - p < 8 ? k - p : 8;
    widen_rows(count, n, b + p * ldb, ldb, wide, WIDENED, numbers);
    stream_rows(m, n, count, a + p, lda, wide, WIDENED, c, ldc);
  }
}

// As `dots`. `wide` has room for PANEL rows of b.
KERNEL half_dots(int m, int n, int k, const f32 *a, int lda, const f16 *b, int ldb, f32 *c, int ldc, const f32 *bias,
                 const f32 *residual, int ldr, enum Activation activation, Numbers numbers, f32 *wide) {
  if (m == 1 && half_row(n, k, a, b, ldb, c, numbers)) {
    finish_rows(1, n, c, ldc, bias, residual, ldr, activation, numbers);
    return;
  }
  for (int j = 0; j < n; j += PANEL) {
    int width = n - j < PANEL ? n - j : PANEL;
    const f32 *bias_of = bias ? bias + j : 0, *residual_of = residual ? residual + j : 0;
    widen_rows(width, k, b + j * ldb, ldb, wide, k, numbers);
    dots(m, width, k, a, lda, wide, k, c + j, ldc, bias_of, residual_of, ldr, activation, numbers);
  }
}

// As `rows`. `wide` has room for WIDE columns of b, and for 8 rows of WIDENED columns.
KERNEL half_rows(int m, int n, int k, const f32 *a, int lda, const f16 *b, int ldb, f32 *c, int ldc, const f32 *bias,
                 const f32 *residual, int ldr, enum Activation activation, Numbers numbers, f32 *wide) {
  int most = m <= STREAMED ? WIDENED : WIDE;
  for (int j = 0; j < n; j += most) {
    int width = n - j < most ? n - j : most;
    const f32 *bias_of = bias ? bias + j : 0, *residual_of = residual ? residual + j : 0;
    if (m <= STREAMED) {
      half_stream(m, width, k, a, lda, b + j, ldb, c + j, ldc, numbers, wide);
      finish_rows(m, width, c + j, ldc, bias_of, residual_of, ldr, activation, numbers);
    } else {
      widen_rows(k, width, b + j, ldb, wide, WIDE, numbers);
      rows(m, width, k, a, lda, wide, WIDE, c + j, ldc, bias_of, residual_of, ldr, activation, numbers, 0);
    }
  }
}

// As `product`.
KERNEL half_product(const struct Product *p) {
  Numbers c = numbers(p->scratch);
  for (int i = 0; i < p->count; i++) {
    const int *by = p->offsets[i];
    const f32 *a = p->a + by[0], *residual = p->residual ? p->residual + by[3] : 0;
    const f16 *b = (const f16 *)p->b + by[1];
    f32 *out = p->c + by[2], *wide = p->scratch + NUMBERS;
    if (p->is_transposed)
      half_dots(p->m, p->n, p->k, a, p->lda, b, p->ldb, out, p->ldc, p->bias, residual, p->ldr, p->activation, c, wide);
    else
      half_rows(p->m, p->n, p->k, a, p->lda, b, p->ldb, out, p->ldc, p->bias, residual, p->ldr, p->activation, c, wide);
  }
}
