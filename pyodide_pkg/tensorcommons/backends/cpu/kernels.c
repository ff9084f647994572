// Kernels of the CPU device for float32, compiled to WebAssembly by scripts/kernels.py.
//
// `run` executes records: a kernel, the words of the record, and its arguments as the structs below have them.
// kernels.py writes the records.
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
#define KERNEL static __attribute__((noinline)) void
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#define EXPORT(name) __attribute__((export_name(#name)))

typedef float f32;
typedef v128_t f32x4;

enum { FEW = 32, NARROW = 4 }; // up to FEW rows take narrow panels: the next ones are fetched meanwhile
enum { ROWS = 4, PANEL = 32 }; // rows of a tile; columns that are finished before the next ones, from the cache
enum { BLOCK = 16 };           // queries whose scores are computed, normalized and used before the next ones
enum { TILE = 256 };           // elements for which an operation of a formula is computed before the next one
enum Kernel { PRODUCT, ATTENTION, NORM, TAKE, EACH, SOFTMAX, REDUCE };
enum Activation { NONE, RELU, SIGMOID, GELU, TANH };

INLINE f32x4 splat(f32 x) { return wasm_f32x4_splat(x); }
INLINE f32x4 select(f32x4 mask, f32x4 yes, f32x4 no) { return wasm_v128_bitselect(yes, no, mask); }

INLINE f32 sum_of(f32x4 v) {
  return (wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 2)) +
         (wasm_f32x4_extract_lane(v, 1) + wasm_f32x4_extract_lane(v, 3));
}

// 2 ** n for integers n from -126 to 127.
INLINE f32x4 power_of_two(v128_t n) { return wasm_i32x4_shl(wasm_i32x4_add(n, wasm_i32x4_splat(127)), 23); }

// Numbers of the functions below. They are read from scratch memory, where each kernel that needs them writes them:
// engines load an immediate vector by several instructions, each time anew.
struct Numbers {
  f32 low, high, log2, round, ln2, ln2_rest, one, half, four, minus_root;
  f32 exp[5], near[6], far[8];
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
  return c;
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

INLINE f32x4 activated(f32x4 x, enum Activation activation, Numbers c) {
  if (activation == RELU) return wasm_f32x4_pmax(x, splat(0));
  if (activation == SIGMOID) return sigmoid4(x, c);
  if (activation == GELU) return gelu4(x, c);
  if (activation == TANH) return tanh4(x, c);
  return x;
}

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

// Panel by panel of the result's columns.
#define PANELS(name, tiles, down, wide)                                                                                      \
  INLINE void name(int m, int n, int k, const f32 *a, int lda, const f32 *b, int ldb, f32 *c, int ldc, const f32 *bias, \
                   const f32 *residual, int ldr, enum Activation activation, Numbers numbers) {                                         \
    const int panel_width = wide;                                                                                      \
    for (int start = 0; start < n; start += panel_width) {                                                             \
      int width = n - start < panel_width ? n - start : panel_width, i = 0;                                            \
      const f32 *panel = b + start * (down);                                                                           \
      for (; i + ROWS <= m; i += ROWS) tiles(ROWS, width, k, a + i * lda, lda, panel, ldb, c + i * ldc + start, ldc);   \
      for (; i < m; i++) tiles(1, width, k, a + i * lda, lda, panel, ldb, c + i * ldc + start, ldc);                   \
      if (bias || residual || activation)                                                                              \
        for (i = 0; i < m; i++)                                                                                        \
          finish(width, c + i * ldc + start, bias ? bias + start : 0, residual ? residual + i * ldr + start : 0,       \
                 activation, numbers);                                                                                 \
    }                                                                                                                  \
  }

// a (m, k) by b, then bias, activation and residual. `ld…` are the elements from one row to the next. In `dots` b is
// stored as (n, k), as the weights of a linear layer are, in `rows` as (k, n).
PANELS(dots, dot_rows, ldb, m <= FEW ? NARROW : PANEL)
PANELS(rows, broadcast_rows, 1, PANEL)

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

KERNEL product_dots(const struct Product *p, const int *by, Numbers c) {
  dots(p->m, p->n, p->k, p->a + by[0], p->lda, p->b + by[1], p->ldb, p->c + by[2], p->ldc, p->bias,
       p->residual ? p->residual + by[3] : 0, p->ldr, p->activation, c);
}

KERNEL product_rows(const struct Product *p, const int *by, Numbers c) {
  rows(p->m, p->n, p->k, p->a + by[0], p->lda, p->b + by[1], p->ldb, p->c + by[2], p->ldc, p->bias,
       p->residual ? p->residual + by[3] : 0, p->ldr, p->activation, c);
}

KERNEL product(const struct Product *p) {
  Numbers c = numbers(p->scratch);
  for (int i = 0; i < p->count; i++) {
    if (p->is_transposed)
      product_dots(p, p->offsets[i], c);
    else
      product_rows(p, p->offsets[i], c);
  }
}

enum Mask { NO_MASK, ADDED, ALLOWED }; // none; float32; one byte a score, 0 to leave it out

// Blocks `first` to `last` of the queries; blocks are numbered by batch, head and place in the sequence. An operand has
// the elements from one batch, head and row to the next. `scratch` has BLOCK rows for the scores.
struct Attention {
  int kernel, size, first, last, heads, group, queries, keys, width, value_width, causal;
  f32 scale;
  const f32 *q;
  int q_batch, q_head, q_row;
  const f32 *k;
  int k_batch, k_head, k_row;
  const f32 *v;
  int v_batch, v_head, v_row;
  f32 *out;
  int out_batch, out_head, out_row;
  enum Mask kind;
  const void *mask;
  int mask_batch, mask_head, mask_row;
  f32 *scratch;
};

INLINE f32 max_of(f32x4 v) {
  v = wasm_f32x4_max(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_f32x4_extract_lane(wasm_f32x4_max(v, wasm_i32x4_shuffle(v, v, 1, 0, 3, 2)), 0);
}

// The softmax of `n` scores in place, of which the last `hidden` are left out. If all are, `nothing` is 0 or NaN. There
// is room for a multiple of 4.
INLINE void softmax_masked(f32 *s, int n, int hidden, f32 scale, const enum Mask kind, const void *mask, f32 nothing,
                           Numbers c) {
  const f32 *added = mask;
  const unsigned char *allowed = mask;
  int j = 0, seen = n - hidden, all = (n + 3) & ~3;
  f32x4 top = splat(-__builtin_inff()), sum = splat(0);
  for (; j + 4 <= seen; j += 4) {
    f32x4 x = wasm_f32x4_mul(wasm_v128_load(s + j), splat(scale));
    if (kind == ADDED) x = wasm_f32x4_add(x, wasm_v128_load(added + j));
    if (kind == ALLOWED) {
      v128_t bytes = wasm_u32x4_extend_low_u16x8(wasm_u16x8_extend_low_u8x16(wasm_v128_load32_zero(allowed + j)));
      x = select(wasm_i32x4_ne(bytes, wasm_i32x4_splat(0)), x, splat(-__builtin_inff()));
    }
    wasm_v128_store(s + j, x);
    top = wasm_f32x4_pmax(x, top); // a NaN comes back in the sum
  }
  ROLLED for (; j < seen; j++) {
    s[j] *= scale;
    if (kind == ADDED) s[j] += added[j];
    if (kind == ALLOWED && !allowed[j]) s[j] = -__builtin_inff();
    top = wasm_f32x4_max(top, splat(s[j]));
  }
  for (; j < all; j++) s[j] = -__builtin_inff();
  f32 largest = max_of(top);
  f32x4 shift = splat(largest == -__builtin_inff() ? nothing : largest);
  for (j = 0; j < all; j += 4) {
    f32x4 e = exp4(wasm_f32x4_sub(wasm_v128_load(s + j), shift), c);
    wasm_v128_store(s + j, e);
    sum = wasm_f32x4_add(sum, e);
  }
  f32 total = sum_of(sum);
  f32x4 share = splat(total == 0 ? 0 : 1 / total);
  for (j = 0; j < all; j += 4) wasm_v128_store(s + j, wasm_f32x4_mul(wasm_v128_load(s + j), share));
}

KERNEL attention(const struct Attention *p) {
  Numbers c = numbers(p->scratch);
  f32 *scores = p->scratch + NUMBERS;
  int blocks = (p->queries + BLOCK - 1) / BLOCK, ld = (p->keys + 3) & ~3;
  for (int each = p->first; each < p->last; each++) {
    int start = each % blocks * BLOCK, head = each / blocks % p->heads, batch = each / blocks / p->heads;
    int count = p->queries - start < BLOCK ? p->queries - start : BLOCK;
    int keys = p->causal && start + count < p->keys ? start + count : p->keys;
    const f32 *q = p->q + batch * p->q_batch + head * p->q_head + start * p->q_row;
    const f32 *k = p->k + batch * p->k_batch + head / p->group * p->k_head;
    const f32 *v = p->v + batch * p->v_batch + head / p->group * p->v_head;
    f32 *out = p->out + batch * p->out_batch + head * p->out_head + start * p->out_row;
    int by = batch * p->mask_batch + head * p->mask_head + start * p->mask_row;
    dots(count, keys, p->width, q, p->q_row, k, p->k_row, scores, ld, 0, 0, 0, NONE, c);
    for (int i = 0; i < count; i++) {
      int hidden = p->causal && start + i + 1 < keys ? keys - start - i - 1 : 0, at = by + i * p->mask_row;
      f32 *s = scores + i * ld;
      if (p->kind == NO_MASK) softmax_masked(s, keys, hidden, p->scale, NO_MASK, 0, 0, c);
      if (p->kind == ADDED) softmax_masked(s, keys, hidden, p->scale, ADDED, (const f32 *)p->mask + at, 0, c);
      if (p->kind == ALLOWED) softmax_masked(s, keys, hidden, p->scale, ALLOWED, (const char *)p->mask + at, 0, c);
    }
    rows(count, p->value_width, keys, scores, ld, v, p->v_row, out, p->out_row, 0, 0, 0, NONE, c);
  }
}

// Rows of a value, or rows of it that ids select. After `period` rows they begin again. A negative id counts from the
// end with `wrap`; an id out of range selects `nothing`.
struct Rows {
  const f32 *values;
  int ld, period;
  const int *ids;
  int step, size, wrap;
};

// The row, or null for an id out of range.
INLINE const f32 *row_of(const struct Rows *rows, int i) {
  if (!rows->ids) return rows->values + i % rows->period * rows->ld;
  int id = rows->ids[i * rows->step];
  if (id < 0 && rows->wrap) id += rows->size;
  return id < 0 || id >= rows->size ? 0 : rows->values + id * rows->ld;
}

// Norms of the rows of a sum of `terms` values: layer norms, or RMS norms where there is no bias.
struct Norm {
  int kernel, size, first, last, n;
  f32 *out;
  int ld;
  const f32 *weight, *bias;
  f32 eps;
  int terms;
  struct Rows term[];
};

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

// The sum of x - less, or with `squared` of its square.
INLINE f32 sum_row(int n, const f32 *x, f32 less, const int squared) {
  f32x4 sum = splat(0);
  int j = 0;
  for (; j + 4 <= n; j += 4) {
    f32x4 v = wasm_f32x4_sub(wasm_v128_load(x + j), splat(less));
    sum = squared ? MADD(v, v, sum) : wasm_f32x4_add(sum, v);
  }
  f32 total = sum_of(sum);
  for (; j < n; j++) total += squared ? (x[j] - less) * (x[j] - less) : x[j] - less;
  return total;
}

KERNEL norm(const struct Norm *p) {
  int n = p->n;
  for (int i = p->first; i < p->last; i++) {
    f32 *x = p->out + i * p->ld, centre = 0;
    for (int t = 0; t < p->terms; t++) add_row(n, x, row_of(&p->term[t], i), t == 0);
    if (p->bias) {
      f32 first = x[0];
      int j = 0; // else a mean of 1e4 would lose three digits
      for (; j + 4 <= n; j += 4) wasm_v128_store(x + j, wasm_f32x4_sub(wasm_v128_load(x + j), splat(first)));
      for (; j < n; j++) x[j] -= first;
      centre = sum_row(n, x, 0, 0) / n;
    }
    f32 deviation = __builtin_sqrtf(sum_row(n, x, centre, 1) / n + p->eps);
    int j = 0;
    for (; j + 4 <= n; j += 4) {
      f32x4 y = wasm_f32x4_div(wasm_f32x4_sub(wasm_v128_load(x + j), splat(centre)), splat(deviation));
      y = wasm_f32x4_mul(y, wasm_v128_load(p->weight + j));
      wasm_v128_store(x + j, p->bias ? wasm_f32x4_add(y, wasm_v128_load(p->bias + j)) : y);
    }
    for (; j < n; j++) x[j] = (x[j] - centre) / deviation * p->weight[j] + (p->bias ? p->bias[j] : 0);
  }
}

// Rows of a table of 4-byte elements.
struct Take {
  int kernel, size, first, last, n;
  f32 *out;
  int ld, nothing;
  struct Rows rows;
};

KERNEL take(const struct Take *p) {
  for (int i = p->first; i < p->last; i++) {
    f32 *out = p->out + i * p->ld;
    const f32 *row = row_of(&p->rows, i);
    if (row)
      add_row(p->n, out, row, 1);
    else
      for (int j = 0; j < p->n; j++) ((int *)out)[j] = p->nothing;
  }
}

// Softmax of rows. `scratch` has room for one.
struct Softmax {
  int kernel, size, first, last, n;
  f32 *out;
  int ld;
  const f32 *x;
  int ldx;
  f32 *scratch;
};

KERNEL softmax(const struct Softmax *p) {
  Numbers c = numbers(p->scratch);
  f32 *row = p->scratch + NUMBERS;
  for (int i = p->first; i < p->last; i++) {
    add_row(p->n, row, p->x + i * p->ldx, 1);
    softmax_masked(row, p->n, 0, 1, NO_MASK, 0, __builtin_nanf(""), c);
    add_row(p->n, p->out + i * p->ld, row, 1);
  }
}

// Sums, means, maxima and minima along one axis of `length`, whose elements are `step` apart, in each of `inner`
// contiguous columns.
enum Reduction { SUM, MEAN, MAX, MIN };

struct Reduce {
  int kernel, size, first, last, length, inner;
  f32 *out;
  const f32 *x;
  int outer, step;
  enum Reduction kind;
};

INLINE f32x4 reduced(f32x4 a, f32x4 b, enum Reduction kind) {
  return kind == MAX ? wasm_f32x4_max(a, b) : kind == MIN ? wasm_f32x4_min(a, b) : wasm_f32x4_add(a, b);
}

// One contiguous row. Sums are those of parts, which lose fewer digits.
INLINE f32 reduce_row(int n, const f32 *x, const enum Reduction kind) {
  f32x4 most = splat(x[0]);
  f32 total = 0;
  for (int start = 0; start < n; start += TILE) {
    int j = start, end = n - start < TILE ? n : start + TILE;
    f32x4 part = kind == MAX || kind == MIN ? most : splat(0);
    for (; j + 4 <= end; j += 4) part = reduced(part, wasm_v128_load(x + j), kind);
    if (kind == MAX || kind == MIN) {
      ROLLED for (; j < end; j++) part = reduced(part, splat(x[j]), kind);
      most = part;
    } else {
      f32 rest = sum_of(part);
      ROLLED for (; j < end; j++) rest += x[j];
      total += rest;
    }
  }
  if (kind == MIN) return -max_of(wasm_f32x4_neg(most));
  return kind == MAX ? max_of(most) : kind == MEAN ? total / n : total;
}

INLINE void reduce_columns(const struct Reduce *p, const f32 *x, f32 *out, const enum Reduction kind) {
  int j = 0;
  for (; j + 4 <= p->inner; j += 4) {
    f32x4 all = wasm_v128_load(x + j);
    ROLLED for (int i = 1; i < p->length; i++) all = reduced(all, wasm_v128_load(x + i * p->step + j), kind);
    wasm_v128_store(out + j, kind == MEAN ? wasm_f32x4_div(all, splat(p->length)) : all);
  }
  ROLLED for (; j < p->inner; j++) {
    f32x4 all = splat(x[j]);
    ROLLED for (int i = 1; i < p->length; i++) all = reduced(all, splat(x[i * p->step + j]), kind);
    out[j] = wasm_f32x4_extract_lane(kind == MEAN ? wasm_f32x4_div(all, splat(p->length)) : all, 0);
  }
}

#define REDUCED(kind)                                                                                                  \
  case kind:                                                                                                           \
    if (p->inner == 1 && p->step == 1)                                                                                 \
      *out = reduce_row(p->length, x, kind);                                                                           \
    else                                                                                                               \
      reduce_columns(p, x, out, kind);                                                                                 \
    break;

KERNEL reduce(const struct Reduce *p) {
  for (int i = p->first; i < p->last; i++) {
    const f32 *x = p->x + i * p->outer;
    f32 *out = p->out + i * p->inner;
    switch (p->kind) {
      REDUCED(SUM)
      REDUCED(MEAN)
      REDUCED(MAX)
      REDUCED(MIN)
    }
  }
}

// A formula of each element, a tile at a time: its operations in postfix order, over a stack of tiles in `scratch`.
// The result is contiguous, in rows of `n`; tiles `first` to `last` are computed, of which a row has as many as cover it.
// `words` are the sizes of the `axes` that rows are numbered by, the last one first; then the operands (address, elements
// from one column to the next, and along each of the axes); then the operations (code, argument).
enum Operation {
  LOAD, NUMBER, ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM,
  NEGATIVE, ABS, SQUARE, SQRT, RSQRT, RECIPROCAL, FLOOR, CEIL, TRUNC, ROUND,
  EXP, APPLY_RELU, APPLY_SIGMOID, APPLY_GELU, APPLY_TANH, SILU, GELU_TANH, ERF
};

struct Each {
  int kernel, size, first, last, n;
  f32 *out, *scratch;
  int axes, operands, operations;
  int words[];
};

INLINE f32x4 erf4(f32x4 x, Numbers c) {
  f32x4 size = wasm_f32x4_abs(x);
  f32x4 far = wasm_f32x4_sub(splat(1), erfc_far(wasm_f32x4_pmin(size, N(four)), c));
  far = select(wasm_f32x4_ge(size, splat(4)), splat(1), far);
  far = wasm_v128_or(far, wasm_v128_and(x, splat(-0.f)));
  return select(wasm_f32x4_lt(size, splat(1)), erf_near(x, c), far);
}

INLINE f32x4 over_one_plus_exp(f32x4 x, f32x4 power, Numbers c) {
  return wasm_f32x4_div(x, wasm_f32x4_add(N(one), exp4(power, c)));
}

// x * sigmoid(sqrt(8 / pi) * (x + 0.044715 x³))
INLINE f32x4 gelu_tanh4(f32x4 x, Numbers c) {
  f32x4 inner = MADD(wasm_f32x4_mul(wasm_f32x4_mul(x, x), x), splat(0.044715f), x);
  return over_one_plus_exp(x, wasm_f32x4_mul(inner, splat(-1.5957691f)), c);
}

#define UNARY(code, formula)                                                                                           \
  case code:                                                                                                           \
    ROLLED for (int j = 0; j < width; j += 4) {                                                                        \
      f32x4 x = wasm_v128_load(top + j);                                                                               \
      wasm_v128_store(top + j, formula);                                                                               \
    }                                                                                                                  \
    break;
#define BINARY(code, function)                                                                                         \
  case code:                                                                                                           \
    top -= TILE;                                                                                                       \
    ROLLED for (int j = 0; j < width; j += 4)                                                                          \
      wasm_v128_store(top + j, function(wasm_v128_load(top + j), wasm_v128_load(top + TILE + j)));                      \
    break;

KERNEL each(const struct Each *p) {
  Numbers c = numbers(p->scratch);
  int across = (p->n + TILE - 1) / TILE;
  const int *operands = p->words + p->axes, *begin = operands + (2 + p->axes) * p->operands;
  const int *end = begin + 2 * p->operations;
  for (int tile = p->first; tile < p->last; tile++) {
    int row = tile / across, start = tile % across * TILE, width = p->n - start < TILE ? p->n - start : TILE;
    f32 *top = p->scratch + NUMBERS - TILE;
    for (const int *at = begin; at < end; at += 2) {
      switch (at[0]) {
      case LOAD: {
        const int *operand = operands + (2 + p->axes) * at[1];
        const f32 *x = (const f32 *)operand[0] + start * operand[1];
        for (int axis = 0, left = row; axis < p->axes; left /= p->words[axis++])
          x += left % p->words[axis] * operand[2 + axis];
        top += TILE;
        if (operand[1])
          add_row(width, top, x, 1);
        else
          for (int j = 0; j < width; j += 4) wasm_v128_store(top + j, wasm_v128_load32_splat(x));
        break;
      }
      case NUMBER:
        top += TILE;
        for (int j = 0; j < width; j += 4) wasm_v128_store(top + j, wasm_i32x4_splat(at[1]));
        break;
        BINARY(ADD, wasm_f32x4_add)
        BINARY(SUBTRACT, wasm_f32x4_sub)
        BINARY(MULTIPLY, wasm_f32x4_mul)
        BINARY(DIVIDE, wasm_f32x4_div)
        BINARY(MAXIMUM, wasm_f32x4_max)
        BINARY(MINIMUM, wasm_f32x4_min)
        UNARY(NEGATIVE, wasm_f32x4_neg(x))
        UNARY(ABS, wasm_f32x4_abs(x))
        UNARY(SQUARE, wasm_f32x4_mul(x, x))
        UNARY(SQRT, wasm_f32x4_sqrt(x))
        UNARY(RSQRT, wasm_f32x4_div(splat(1), wasm_f32x4_sqrt(x)))
        UNARY(RECIPROCAL, wasm_f32x4_div(splat(1), x))
        UNARY(FLOOR, wasm_f32x4_floor(x))
        UNARY(CEIL, wasm_f32x4_ceil(x))
        UNARY(TRUNC, wasm_f32x4_trunc(x))
        UNARY(ROUND, wasm_f32x4_nearest(x))
        UNARY(EXP, exp4(x, c))
        UNARY(APPLY_RELU, activated(x, RELU, c))
        UNARY(APPLY_SIGMOID, activated(x, SIGMOID, c))
        UNARY(APPLY_GELU, activated(x, GELU, c))
        UNARY(APPLY_TANH, activated(x, TANH, c))
        UNARY(SILU, over_one_plus_exp(x, wasm_f32x4_neg(x), c))
        UNARY(GELU_TANH, gelu_tanh4(x, c))
        UNARY(ERF, erf4(x, c))
      }
    }
    add_row(width, p->out + row * p->n + start, top, 1);
  }
}

EXPORT(run)
void run(const int *at, const int *end) {
  for (; at < end; at += at[1]) {
    const void *record = at;
    switch (at[0]) {
    case PRODUCT: product(record); break;
    case ATTENTION: attention(record); break;
    case NORM: norm(record); break;
    case TAKE: take(record); break;
    case EACH: each(record); break;
    case SOFTMAX: softmax(record); break;
    case REDUCE: reduce(record); break;
    }
  }
}
