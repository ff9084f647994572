// Products of matrices, with bias, activation and residual.
//
// Weights are read as they are stored. A tile of 4 by 8 products needs 8 accumulators; larger ones are slower, because
// engines then spill registers. On one core with fused multiply-adds it reaches 45 to 50 GFLOP/s.

#pragma once

#include "vectors.h"

enum { FEW = 32 }; // up to FEW rows take panels of two columns: the next ones are fetched meanwhile
enum { ROWS = 4, PANEL = 32 }; // rows of a tile; columns that are finished before the next ones, from the cache
enum { STREAMED = 8, STREAM = 4096 }; // up to STREAMED rows, b of (k, n) is read row by row, STREAM columns at a time
enum { PACKED = 16 }; // columns of b of (k, n) that are copied, so that more rows read them in a piece

// Bias, activation and residual of a row, in place. A null pointer: none.
INLINE void finish(int n, f32 *out, const f32 *bias, const f32 *residual, enum Activation activation, Numbers c) {
  int j = 0;
  for (; j + 4 <= n; j += 4) {
    f32x4 y = wasm_v128_load(out + j);
    if (bias) y = wasm_f32x4_add(y, wasm_v128_load(bias + j));
    y = activated(y, activation, c);
    if (residual) y = wasm_f32x4_add(y, wasm_v128_load(residual + j));
    wasm_v128_store(out + j, y);
  }
  for (; j < n; j++) {
    f32x4 y = splat(bias ? out[j] + bias[j] : out[j]);
    f32 last = wasm_f32x4_extract_lane(activated(y, activation, c), 0);
    out[j] = residual ? last + residual[j] : last;
  }
}

// `M` rows of a by `N` rows of b: both are read along the depth, four products at a time, the last ones singly. `step` is
// from one product of a row to the next.
#define DOT_STEP(load)                                                                                                 \
  f32x4 w[N];                                                                                                          \
  UNROLL for (int j = 0; j < N; j++) w[j] = load(y[j] + p);                                                            \
  UNROLL for (int i = 0; i < M; i++) {                                                                                 \
    f32x4 v = load(x[i] + p);                                                                                          \
    UNROLL for (int j = 0; j < N; j++) sum[i][j] = MADD(v, w[j], sum[i][j]);                                           \
  }

INLINE void dot_tile_of(const int M, const int N, int k, const f32 *a, int lda, int at, const f32 *const *b, f32 *c, int ldc,
                        int step) {
  f32x4 sum[M][N];
  const f32 *x[M], *y[N];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) sum[i][j] = splat(0);
  UNROLL for (int i = 0; i < M; i++) x[i] = a + i * lda;
  UNROLL for (int j = 0; j < N; j++) y[j] = b[j] + at;
  int p = 0;
  ROLLED for (; p + 4 <= k; p += 4) { DOT_STEP(wasm_v128_load) }
  ROLLED for (; p < k; p++) { DOT_STEP(wasm_v128_load32_zero) }
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) c[i * ldc + j * step] = sum_of(sum[i][j]);
}

INLINE void dot_tile(const int M, const int N, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc,
                     int step) {
  f32x4 sum[M][N];
  const f32 *x[M], *y[N];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) sum[i][j] = splat(0);
  UNROLL for (int i = 0; i < M; i++) x[i] = a + i * lda;
  UNROLL for (int j = 0; j < N; j++) y[j] = b + j * ldb;
  int p = 0;
  ROLLED for (; p + 4 <= k; p += 4) { DOT_STEP(wasm_v128_load) }
  ROLLED for (; p < k; p++) { DOT_STEP(wasm_v128_load32_zero) }
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) c[i * ldc + j * step] = sum_of(sum[i][j]);
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

// `n` rows of b, and those `half` further on: memory delivers two parts that are each read in order faster than one.
INLINE void dot_rows(const int M, int n, int half, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  for (int j = 0; j < n; j++) dot_tile(M, 2, k, a, lda, b + j * ldb, half * ldb, c + j, ldc, half);
}

// One row of a by the rows of b, of four parts at a time: each is read from memory in its order, at twice the rate of rows
// that follow each other.
INLINE void dot_row(int n, int k, const f32 *a, const f32 *b, int ldb, f32 *c) {
  int part = n / 4, j = 0;
  for (; j < part; j++) dot_tile(1, 4, k, a, 0, b + j * ldb, part * ldb, c + j, 0, part);
  for (j = 4 * part; j < n; j++) dot_tile(1, 1, k, a, 0, b + j * ldb, 0, c + j, 0, 1);
}

INLINE void broadcast_rows(const int M, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  int j = 0;
  for (; j + 8 <= n; j += 8) row_tile(M, 2, k, a, lda, b + j, ldb, c + j, ldc);
  for (; j + 4 <= n; j += 4) row_tile(M, 1, k, a, lda, b + j, ldb, c + j, ldc);
  for (; j < n; j++) column(M, k, a, lda, b + j, ldb, c + j, ldc);
}

// `P` rows of b, `apart` rows from one to the next, times an element of a each, added to a row of the result.
INLINE void add_products(const int P, int n, const f32 *a, int apart, const f32 *b, int ldb, f32 *c) {
  f32x4 v[P];
  UNROLL for (int t = 0; t < P; t++) v[t] = splat(a[t * apart]);
  int j = 0;
  ROLLED for (; j + 4 <= n; j += 4) {
    f32x4 y = wasm_v128_load(c + j);
    UNROLL for (int t = 0; t < P; t++) y = MADD(v[t], wasm_v128_load(b + t * apart * ldb + j), y);
    wasm_v128_store(c + j, y);
  }
  ROLLED for (; j < n; j++) UNROLL for (int t = 0; t < P; t++) c[j] += a[t * apart] * b[t * apart * ldb + j];
}

INLINE void clear_rows(int m, int n, f32 *c, int ldc) {
  for (int i = 0; i < m; i++) ROLLED for (int j = 0; j < n; j++) c[i * ldc + j] = 0;
}

// Few rows of a by four parts of the rows of b: each part is read from memory in its order, as in `dot_row`, and the
// results, which are added to, stay in the cache.
INLINE void stream_rows(int m, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc) {
  int part = k / 4, p = 0;
  for (; p < part; p++)
    ROLLED for (int i = 0; i < m; i++) add_products(4, n, a + i * lda + p, part, b + p * ldb, ldb, c + i * ldc);
  for (p = 4 * part; p < k; p++)
    ROLLED for (int i = 0; i < m; i++) add_products(1, n, a + i * lda + p, 0, b + p * ldb, ldb, c + i * ldc);
}

INLINE void copy_panel(int width, int k, const f32 *b, int ldb, f32 *out) {
  for (int p = 0; p < k; p++, b += ldb, out += PACKED) {
    if (width == PACKED) {
      UNROLL for (int j = 0; j < PACKED; j += 4) wasm_v128_store(out + j, wasm_v128_load(b + j));
    } else {
      ROLLED for (int j = 0; j < width; j++) out[j] = b[j];
    }
  }
}

#define TILES(tiles, width, b, ldb, c)                                                                                 \
  int i = 0;                                                                                                           \
  for (; i + ROWS <= m; i += ROWS) tiles(ROWS, width, k, a + i * lda, lda, b, ldb, (c) + i * ldc, ldc);                \
  for (; i < m; i++) tiles(1, width, k, a + i * lda, lda, b, ldb, (c) + i * ldc, ldc);

INLINE void finish_rows(int m, int n, f32 *c, int ldc, const f32 *bias, const f32 *residual, int ldr,
                        enum Activation activation, Numbers numbers) {
  if (bias || residual || activation)
    ROLLED for (int i = 0; i < m; i++)
      finish(n, c + i * ldc, bias, residual ? residual + i * ldr : 0, activation, numbers);
}

// a (m, k) by b, then bias, activation and residual, some columns of the result after the other. `ld…` are the elements
// from one row to the next. In `dots` b is stored as (n, k), as the weights of a linear layer are, in `rows` as (k, n).
KERNEL dots(int m, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc, const f32 *bias,
            const f32 *residual, int ldr, enum Activation activation, Numbers numbers) {
  if (m == 1) {
    dot_row(n, k, a, b, ldb, c);
  } else {
    int half = n / 2, most = m <= FEW ? 1 : PANEL / 2, i = 0;
    for (int j = 0; j < half; j += most) {
      int width = half - j < most ? half - j : most;
      for (i = 0; i + ROWS <= m; i += ROWS)
        dot_rows(ROWS, width, half, k, a + i * lda, lda, b + j * ldb, ldb, c + i * ldc + j, ldc);
      for (; i < m; i++) dot_rows(1, width, half, k, a + i * lda, lda, b + j * ldb, ldb, c + i * ldc + j, ldc);
    }
    if (n % 2)
      for (i = 0; i < m; i++) dot_tile(1, 1, k, a + i * lda, 0, b + (n - 1) * ldb, 0, c + i * ldc + n - 1, 0, 1);
  }
  finish_rows(m, n, c, ldc, bias, residual, ldr, activation, numbers);
}

// `packed` has room for PACKED columns of b, or is null: then b is read as it is.
KERNEL rows(int m, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc, const f32 *bias,
            const f32 *residual, int ldr, enum Activation activation, Numbers numbers, f32 *packed) {
  int most = m <= STREAMED ? STREAM : packed ? PACKED : PANEL;
  for (int j = 0; j < n; j += most) {
    int width = n - j < most ? n - j : most;
    if (m <= STREAMED) {
      clear_rows(m, width, c + j, ldc);
      stream_rows(m, width, k, a, lda, b + j, ldb, c + j, ldc);
    } else if (packed) {
      copy_panel(width, k, b + j, ldb, packed);
      TILES(broadcast_rows, width, packed, PACKED, c + j)
    } else {
      TILES(broadcast_rows, width, b + j, ldb, c + j)
    }
    finish_rows(m, width, c + j, ldc, bias ? bias + j : 0, residual ? residual + j : 0, ldr, activation, numbers);
  }
}

// Products of `count` matrices; `offsets` are the elements to each of a, b, c and the residual.
struct Product {
  int kernel, size, is_transposed, count, m, n, k;
  const f32 *a;
  int lda;
  const f32 *b;
  int ldb;
  f32 *c;
  int ldc;
  const f32 *bias, *residual;
  int ldr;
  enum Activation activation;
  f32 *scratch;
  int offsets[][4];
};

KERNEL product(const struct Product *p) {
  Numbers c = numbers(p->scratch);
  for (int i = 0; i < p->count; i++) {
    const int *by = p->offsets[i];
    const f32 *a = p->a + by[0], *b = p->b + by[1], *residual = p->residual ? p->residual + by[3] : 0;
    f32 *out = p->c + by[2];
    if (p->is_transposed)
      dots(p->m, p->n, p->k, a, p->lda, b, p->ldb, out, p->ldc, p->bias, residual, p->ldr, p->activation, c);
    else
      rows(p->m, p->n, p->k, a, p->lda, b, p->ldb, out, p->ldc, p->bias, residual, p->ldr, p->activation, c,
           p->scratch + NUMBERS);
  }
}
