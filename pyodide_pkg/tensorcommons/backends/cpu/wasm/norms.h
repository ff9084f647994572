// Look-ups of rows, and norms of sums of rows.

#pragma once

#include "vectors.h"

// Rows of a value, `ld` bytes apart, or rows of it that ids select. After `period` rows they begin again. A negative id counts from the
// end with `wrap`; an id out of range selects `nothing`.
struct Rows {
  const char *values;
  int ld, period;
  const int *ids;
  int step, size, wrap;
};

// The row, or null for an id out of range.
INLINE const void *row_of(const struct Rows *rows, int i) {
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

// The sum of x - less, or with `squared` of its square, of parts of the row.
INLINE f32 sum_row(int n, const f32 *x, f32 less, const int squared) {
  f32 total = 0;
  for (int start = 0; start < n; start += PART) {
    int j = start, end = n - start < PART ? n : start + PART;
    f32x4 part = splat(0);
    for (; j + 4 <= end; j += 4) {
      f32x4 v = wasm_f32x4_sub(wasm_v128_load(x + j), splat(less));
      part = squared ? MADD(v, v, part) : wasm_f32x4_add(part, v);
    }
    f32 rest = sum_of(part);
    ROLLED for (; j < end; j++) rest += squared ? (x[j] - less) * (x[j] - less) : x[j] - less;
    total += rest;
  }
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

// Rows of `nbytes` of a table. Those that ids out of range select are pairs of bytes of `nothing`.
struct Take {
  int kernel, size, first, last, nbytes;
  char *out;
  int ld, nothing;
  struct Rows rows;
};

KERNEL take(const struct Take *p) {
  for (int i = p->first; i < p->last; i++) {
    char *out = p->out + i * p->ld;
    const void *row = row_of(&p->rows, i);
    if (row)
      __builtin_memcpy(out, row, p->nbytes);
    else
      ROLLED for (int j = 0; j < p->nbytes; j += 2) *(f16 *)(out + j) = p->nothing >> (j & 2) * 8;
  }
}
