// Keys and values in pages: attention that reads them where they are, appends, copies in order, masks.

#pragma once

#include "attention.h"

enum { ABREAST = 4 }; // pages that are read side by side: memory delivers four parts faster than one, as in `dot_row`

// The pages of the rows of a batch: numbers of before and new tokens, then of `count` pages of `tokens` tokens. A number
// that is not below `pages` stands for no page, whose tokens are zeros.
struct Table {
  const int *rows;
  int count, tokens, pages;
};

INLINE const int *pages_of_row(const struct Table *t, int batch) { return t->rows + batch * (2 + t->count); }

// The number of tokens of a row, of those that its pages have room for; sums wrap around as those of int32 arrays.
INLINE int end_of(const struct Table *t, const int *row) {
  int end = (int)((unsigned)row[0] + (unsigned)row[1]), room = t->count * t->tokens;
  return end < room ? end : room;
}

// The page `place` of a row, or `nothing`. A page of one head has `length` elements, of all heads `all`.
INLINE const f32 *page_of(const struct Table *t, const int *row, int place, const f32 *pool, int all, int offset,
                          const f32 *nothing) {
  int number = row[2 + place];
  return number >= 0 && number < t->pages ? pool + number * all + offset : nothing;
}

// Rows `first` to `last` of an update (batch, heads, length, n) of 4 bytes an element, written to a pool; `narrows`, of
// float32 to a pool of float16.
struct PagedAppend {
  int kernel, size, first, last, narrows, n, heads, length;
  void *pool;
  struct Table table;
  const f32 *update;
  int batch, head, row;
};

KERNEL paged_append(const struct PagedAppend *p) {
  const struct Table *t = &p->table;
  for (int each = p->first; each < p->last; each++) {
    int i = each % p->length, head = each / p->length % p->heads, batch = each / p->length / p->heads;
    const int *row = pages_of_row(t, batch);
    long long at = (long long)row[0] + i;
    if (i >= row[1] || at < 0 || at >= t->count * t->tokens) continue;
    int place = (int)at / t->tokens, number = row[2 + place];
    if (number < 0 || number >= t->pages) continue;
    int to = ((number * p->heads + head) * t->tokens + (int)at % t->tokens) * p->n;
    const f32 *from = p->update + batch * p->batch + head * p->head + i * p->row;
    if (p->narrows)
      ROLLED for (int j = 0; j < p->n; j++) ((f16 *)p->pool)[to + j] = half_in_range(from[j]);
    else
      add_row(p->n, (f32 *)p->pool + to, from, 1);
  }
}

// Pages `first` to `last` of a result (batch, heads, count * tokens, n) of 4 bytes an element.
struct PagedRows {
  int kernel, size, first, last, n, heads;
  f32 *out;
  const f32 *pool;
  struct Table table;
};

KERNEL paged_rows(const struct PagedRows *p) {
  const struct Table *t = &p->table;
  int length = t->tokens * p->n;
  for (int each = p->first; each < p->last; each++) {
    int place = each % t->count, head = each / t->count % p->heads;
    const int *row = pages_of_row(t, each / t->count / p->heads);
    const f32 *page = page_of(t, row, place, p->pool, p->heads * length, head * length, 0);
    int there = end_of(t, row) - place * t->tokens;
    there = !page || there < 0 ? 0 : there < t->tokens ? there * p->n : length;
    f32 *out = p->out + each * length;
    if (there) add_row(there, out, page, 1);
    clear_rows(1, length - there, out + there, 0);
  }
}

// The keys [first, last) that a token attends to: itself and earlier ones, with a `window` the last so many.
INLINE int last_key(int before, int query, int end) { return (long long)before + query < end ? before + query + 1 : end; }
INLINE int first_key(int before, int query, int window) {
  long long first = (long long)before + query + 1 - window;
  return !window || first < 0 ? 0 : first < 0x7fffffff ? (int)first : 0x7fffffff;
}

// Rows `first` to `last` of a mask (batch, 1, queries, keys), a byte a key.
struct PagedMask {
  int kernel, size, first, last, queries, window;
  char *out;
  struct Table table;
};

KERNEL paged_mask(const struct PagedMask *p) {
  int room = p->table.count * p->table.tokens;
  for (int each = p->first; each < p->last; each++) {
    const int *row = pages_of_row(&p->table, each / p->queries);
    int query = each % p->queries, last = last_key(row[0], query, end_of(&p->table, row));
    int first = first_key(row[0], query, p->window);
    char *out = p->out + each * room;
    for (int key = 0; key < room; key++) out[key] = key >= first && key < last;
  }
}

// Find the `length` elements of each of four pages from `page` on, those from `lowest` to before `end` of a row; others are
// zeros. Those of a pool of float16 are widened to `wide`, if that is given.
INLINE void pages_at(const struct Table *t, const int *row, int page, int lowest, int end, const void *pool, int all,
                     int offset, int length, const f32 *zeros, f32 *wide, Numbers c, const f32 **found) {
  UNROLL for (int i = 0; i < ABREAST; i++) {
    int number = page + i < lowest || page + i >= end ? -1 : row[2 + page + i], at = number * all + offset;
    found[i] = zeros;
    if (number < 0 || number >= t->pages) continue;
    if (wide) widen_row(length, (const f16 *)pool + at, wide + i * length, c);
    found[i] = wide ? wide + i * length : (const f32 *)pool + at;
  }
}

// Scores of `m` rows with the keys of four pages, of which the first `pages` exist.
#define PAGE_TILES(M, N)                                                                                               \
  for (int j = 0; j < tokens; j++)                                                                                     \
    UNROLL for (int t = 0; t < ABREAST; t += N)                                                                        \
      if (t < pages) dot_tile_of(M, N, k, a + i * k, k, j * k, b + t, c + i * ldc + t * tokens + j, ldc, tokens);

INLINE void page_scores(int m, int tokens, int pages, int k, const f32 *a, const f32 *const *b, f32 *c, int ldc) {
  int i = 0;
  for (; i + 4 <= m; i += 4) { PAGE_TILES(4, 2) }
  if (m - i == 3) { PAGE_TILES(3, 2) }
  if (m - i == 2) { PAGE_TILES(2, 4) }
  if (m - i == 1) { PAGE_TILES(1, 4) }
}

// The sums of values are those of the first token of each of four pages, then of the second ones, and so on, whatever the
// tiles: the bits of a result depend on its keys alone. `a` has the weights in this order.

// `M` rows by one token of each of four pages, added to a row of results that stays in the cache.
INLINE void add_tokens(const int M, int n, const f32 *a, int lda, const f32 *const *b, int at, f32 *c, int ldc) {
  f32x4 v[M][ABREAST];
  const f32 *y[ABREAST];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int t = 0; t < ABREAST; t++) v[i][t] = wasm_v128_load32_splat(a + i * lda + t);
  UNROLL for (int t = 0; t < ABREAST; t++) y[t] = b[t] + at;
  ROLLED for (int j = 0; j + 4 <= n; j += 4) {
    f32x4 sum[M];
    UNROLL for (int i = 0; i < M; i++) sum[i] = wasm_v128_load(c + i * ldc + j);
    UNROLL for (int t = 0; t < ABREAST; t++) {
      f32x4 w = wasm_v128_load(y[t] + j);
      UNROLL for (int i = 0; i < M; i++) sum[i] = MADD(v[i][t], w, sum[i]);
    }
    UNROLL for (int i = 0; i < M; i++) wasm_v128_store(c + i * ldc + j, sum[i]);
  }
}

// `M` rows by `count` tokens of each of the first `P` of four pages, in 4 `N` columns, added to results in registers.
INLINE void token_tile(const int M, const int N, const int P, int count, const f32 *a, int lda, const f32 *const *b, int at,
                       int ldb, f32 *c, int ldc) {
  f32x4 sum[M][N];
  const f32 *x[M], *y[P];
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) sum[i][j] = wasm_v128_load(c + i * ldc + 4 * j);
  UNROLL for (int i = 0; i < M; i++) x[i] = a + i * lda;
  UNROLL for (int t = 0; t < P; t++) y[t] = b[t] + at;
  ROLLED for (int p = 0; p < count; p++) {
    UNROLL for (int t = 0; t < P; t++) {
      f32x4 w[N];
      UNROLL for (int j = 0; j < N; j++) w[j] = wasm_v128_load(y[t] + 4 * j);
      UNROLL for (int i = 0; i < M; i++) {
        f32x4 v = wasm_v128_load32_splat(x[i] + t);
        UNROLL for (int j = 0; j < N; j++) sum[i][j] = MADD(v, w[j], sum[i][j]);
      }
      y[t] += ldb;
    }
    UNROLL for (int i = 0; i < M; i++) x[i] += ABREAST;
  }
  UNROLL for (int i = 0; i < M; i++) UNROLL for (int j = 0; j < N; j++) wasm_v128_store(c + i * ldc + 4 * j, sum[i][j]);
}

// The last columns, which fill no vector.
INLINE void last_columns(int m, int n, int count, const f32 *a, int lda, const f32 *const *b, int at, f32 *c, int ldc) {
  for (int j = n & ~3; j < n; j++)
    ROLLED for (int i = 0; i < m; i++) {
      f32x4 sum = splat(c[i * ldc + j]);
      ROLLED for (int p = 0; p < count; p++)
        UNROLL for (int t = 0; t < ABREAST; t++)
          sum = MADD(splat(a[i * lda + ABREAST * p + t]), splat(b[t][at + p * n + j]), sum);
      c[i * ldc + j] = wasm_f32x4_extract_lane(sum, 0);
    }
}

INLINE void token_tiles(const int M, const int P, int n, int count, const f32 *a, int lda, const f32 *const *b, int at,
                        f32 *c) {
  int j = 0;
  for (; j + 8 <= n; j += 8) token_tile(M, 2, P, count, a, lda, b, at + j, n, c + j, n);
  for (; j + 4 <= n; j += 4) token_tile(M, 1, P, count, a, lda, b, at + j, n, c + j, n);
}

#define ADD_TOKENS(M)                                                                                                  \
  for (int p = 0; p < count; p++)                                                                                      \
    add_tokens(M, n, a + i * lda + ABREAST * p, lda, b, at + p * n, c + i * n, n);

// `m` rows by `count` tokens of four pages, of which those from `pages` on are zeros, from element `at` of each on, added to rows of `n` results.
INLINE void page_values(int m, int n, int count, int pages, const f32 *a, int lda, const f32 *const *b, int at, f32 *c) {
  int i = 0;
  if (m <= STREAMED) {
    for (; i + 3 <= m; i += 3) ADD_TOKENS(3)
    for (; i + 2 <= m; i += 2) ADD_TOKENS(2)
    if (i < m) ADD_TOKENS(1)
  } else {
    for (; i + 4 <= m; i += 4) {
      if (pages > 3) token_tiles(4, 4, n, count, a + i * lda, lda, b, at, c + i * n);
      if (pages == 3) token_tiles(4, 3, n, count, a + i * lda, lda, b, at, c + i * n);
      if (pages == 2) token_tiles(4, 2, n, count, a + i * lda, lda, b, at, c + i * n);
      if (pages == 1) token_tiles(4, 1, n, count, a + i * lda, lda, b, at, c + i * n);
    }
    for (; i < m; i++) token_tiles(1, 4, n, count, a + i * lda, lda, b, at, c + i * n);
  }
  last_columns(m, n, count, a, lda, b, at, c, n);
}

// The weights of the tokens of four pages in the order of their sums.
INLINE void interleave(int m, int tokens, const f32 *s, int ld, f32 *out) {
  for (int i = 0; i < m; i++, s += ld)
    ROLLED for (int p = 0; p < tokens; p++)
      UNROLL for (int t = 0; t < ABREAST; t++) *out++ = s[t * tokens + p];
}

// Parts `first` to `last` of the queries: those of a batch and a head of keys, then of so many heads `together` that share
// it, then blocks of queries. `ld` has room for the scores of a row. `scratch` has a page of zeros, then BLOCK rows of
// queries, of results, of weights of four pages and of scores; if keys and values are `halves`, four pages before these.
struct PagedAttention {
  int kernel, size, first, last, halves, heads, group, together, queries, width, value_width, window, ld;
  f32 scale;
  const f32 *q;
  int q_batch, q_head, q_row;
  const void *k, *v;
  struct Table table;
  f32 *out;
  int out_batch, out_head, out_row;
  f32 *scratch;
};

KERNEL paged_attention(const struct PagedAttention *p) {
  Numbers c = numbers(p->scratch);
  const struct Table *t = &p->table;
  int width = p->width, value_width = p->value_width, tokens = t->tokens, ld = p->ld;
  int shared = p->heads / p->group, shares = (p->group + p->together - 1) / p->together;
  int blocks = (p->queries + BLOCK - 1) / BLOCK, widest = tokens * (width > value_width ? width : value_width);
  f32 *zeros = p->scratch + NUMBERS, *wide = p->halves ? zeros + widest : 0;
  f32 *q = zeros + widest * (p->halves ? 1 + ABREAST : 1), *sums = q + BLOCK * width, *weights = sums + BLOCK * value_width;
  f32 *scores = weights + BLOCK * ABREAST * tokens;
  clear_rows(1, widest, zeros, 0);
  for (int each = p->first; each < p->last; each++) {
    int start = each % blocks * BLOCK, kv = each / blocks / shares % shared, batch = each / blocks / shares / shared;
    int head = kv * p->group + each / blocks % shares * p->together;
    int count = p->queries - start < BLOCK ? p->queries - start : BLOCK;
    int heads = (kv + 1) * p->group - head < p->together ? (kv + 1) * p->group - head : p->together, m = heads * count;
    const int *row = pages_of_row(t, batch);
    int end = last_key(row[0], start + count - 1, end_of(t, row)), low = first_key(row[0], start, p->window);
    if (low >= end) low = end = 0;
    int lowest = low / tokens, first = lowest - lowest % ABREAST, pages = (end + tokens - 1) / tokens;
    const f32 *from = p->q + batch * p->q_batch + head * p->q_head + start * p->q_row;
    for (int i = 0; i < m; i++) add_row(width, q + i * width, from + i / count * p->q_head + i % count * p->q_row, 1);
    for (int page = first; page < pages; page += ABREAST) {
      const f32 *k[ABREAST];
      pages_at(t, row, page, lowest, pages, p->k, shared * tokens * width, kv * tokens * width, tokens * width, zeros, wide, c, k);
      page_scores(m, tokens, pages - page, width, q, k, scores + (page - first) * tokens, ld);
    }
    int begin = first * tokens, keys = (pages - first + ABREAST - 1) / ABREAST * ABREAST * tokens;
    for (int i = 0; i < m; i++) {
      int last = last_key(row[0], start + i % count, end) - begin;
      int from = first_key(row[0], start + i % count, p->window) - begin;
      f32 *s = scores + i * ld;
      if (from < 0) from = 0;
      if (last < from) last = from = 0;
      softmax_masked(s + from, last - from, 0, p->scale, NO_MASK, 0, 0, c);
      clear_rows(1, from, s, 0);
      if (last < keys) clear_rows(1, keys - last, s + last, 0);
    }
    clear_rows(m, value_width, sums, value_width);
    for (int page = first; page < pages; page += ABREAST) {
      const f32 *v[ABREAST];
      pages_at(t, row, page, lowest, pages, p->v, shared * tokens * value_width, kv * tokens * value_width,
               tokens * value_width, zeros, wide, c, v);
      interleave(m, tokens, scores + (page - first) * tokens, ld, weights);
      int rest = page + ABREAST < pages ? tokens : end - (pages - 1) * tokens; // tokens of the last page
      for (int at = 0, to = rest; at < tokens; at = to, to = tokens) {
        page_values(m, value_width, to - at, pages - page, weights + ABREAST * at, ABREAST * tokens, v, at * value_width, sums);
        UNROLL for (int i = 0; i < ABREAST; i++) if (page + i + 1 == pages) v[i] = zeros;
      }
    }
    f32 *out = p->out + batch * p->out_batch + head * p->out_head + start * p->out_row;
    for (int i = 0; i < m; i++)
      add_row(value_width, out + i / count * p->out_head + i % count * p->out_row, sums + i * value_width, 1);
  }
}
