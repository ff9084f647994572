// Reductions along one axis: sums, means, extrema and their positions, logarithms of sums of exponentials.

#pragma once

#include "vectors.h"

enum Reduction { SUM, MEAN, MAX, MIN, ARGMAX, ARGMIN, LOGSUMEXP }; // the last three of whole contiguous rows alone

// Reductions along one axis of `length`, whose elements are `step` apart, in each of `columns` contiguous columns. Those
// from `start` to `end` are reduced; `out` has the result of those before `start`, which positions leave out.
struct Reduce {
  int kernel, size, first, last, length, start, end, columns;
  f32 *out;
  int ld;
  const f32 *x;
  int outer, step;
  enum Reduction kind;
  f32 *scratch;
};

INLINE f32x4 reduced(f32x4 a, f32x4 b, enum Reduction kind) {
  return kind == MAX ? wasm_f32x4_max(a, b) : kind == MIN ? wasm_f32x4_min(a, b) : wasm_f32x4_add(a, b);
}

// One contiguous row, and what lies `before` it. Sums are those of parts, which lose fewer digits.
INLINE f32 reduce_row(int n, const f32 *x, f32 before, const enum Reduction kind) {
  f32x4 most = splat(before);
  f32 total = before;
  for (int start = 0; start < n; start += PART) {
    int j = start, end = n - start < PART ? n : start + PART;
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
  return kind == MAX ? max_of(most) : total;
}

// The first position of the extremum, or of a NaN.
INLINE int position_of(int n, const f32 *x, const enum Reduction kind) {
  f32 most = reduce_row(n, x, x[0], kind);
  int j = 0;
  ROLLED while (j < n - 1 && x[j] != most && x[j] == x[j]) j++;
  return j;
}

INLINE f32 logsumexp_row(int n, const f32 *x, Numbers c) {
  f32 largest = reduce_row(n, x, x[0], MAX), shift = __builtin_fabsf(largest) < __builtin_inff() ? largest : 0;
  return log_of(sum_of_powers(n, x, shift, c)) + shift;
}

INLINE void reduce_columns(const struct Reduce *p, const f32 *x, f32 *out, const enum Reduction kind) {
  int j = 0, next = p->start ? p->start : 1, is_mean = kind == MEAN && p->end == p->length;
  const f32 *before = p->start ? out : x;
  for (; j + 4 <= p->columns; j += 4) {
    f32x4 all = wasm_v128_load(before + j);
    ROLLED for (int i = next; i < p->end; i++) all = reduced(all, wasm_v128_load(x + i * p->step + j), kind);
    wasm_v128_store(out + j, is_mean ? wasm_f32x4_div(all, splat(p->length)) : all);
  }
  ROLLED for (; j < p->columns; j++) {
    f32x4 all = splat(before[j]);
    ROLLED for (int i = next; i < p->end; i++) all = reduced(all, splat(x[i * p->step + j]), kind);
    out[j] = wasm_f32x4_extract_lane(is_mean ? wasm_f32x4_div(all, splat(p->length)) : all, 0);
  }
}

INLINE void reduce_one(const struct Reduce *p, const f32 *x, f32 *out, const enum Reduction kind) {
  if (p->columns > 1 || p->step != 1) {
    reduce_columns(p, x, out, kind);
    return;
  }
  f32 before = p->start ? *out : kind == MAX || kind == MIN ? x[0] : 0;
  f32 result = reduce_row(p->end - p->start, x + p->start, before, kind);
  *out = kind == MEAN && p->end == p->length ? result / p->length : result;
}

KERNEL reduce(const struct Reduce *p) {
  Numbers c = numbers(p->scratch);
  for (int i = p->first; i < p->last; i++) {
    const f32 *x = p->x + i * p->outer;
    f32 *out = p->out + i * p->ld;
    switch (p->kind) {
    case SUM: reduce_one(p, x, out, SUM); break;
    case MEAN: reduce_one(p, x, out, MEAN); break;
    case MAX: reduce_one(p, x, out, MAX); break;
    case MIN: reduce_one(p, x, out, MIN); break;
    case ARGMAX: *(int *)out = position_of(p->end - p->start, x + p->start, MAX) + p->start; break;
    case ARGMIN: *(int *)out = position_of(p->end - p->start, x + p->start, MIN) + p->start; break;
    case LOGSUMEXP: *out = logsumexp_row(p->length, x, c); break;
    }
  }
}
