// Softmax of rows, with scale and mask.

#pragma once

#include "vectors.h"

enum Mask { NO_MASK, ADDED, ALLOWED }; // none; float32; one byte a score, 0 to leave it out

// The softmax of `n` scores in place, of which the last `hidden` are left out. If all are, `nothing` is 0 or NaN. There
// is room for a multiple of 4.
INLINE void softmax_masked(f32 *s, int n, int hidden, f32 scale, const enum Mask kind, const void *mask, f32 nothing,
                           Numbers c) {
  const f32 *added = mask;
  const unsigned char *allowed = mask;
  int j = 0, seen = n - hidden, all = (n + 3) & ~3;
  f32x4 top = splat(-__builtin_inff());
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
  f32 total = 0;
  for (int start = 0; start < all; start += PART) {
    int end = all - start < PART ? all : start + PART;
    f32x4 part = splat(0);
    for (j = start; j < end; j += 4) {
      f32x4 e = exp4(wasm_f32x4_sub(wasm_v128_load(s + j), shift), c);
      wasm_v128_store(s + j, e);
      part = wasm_f32x4_add(part, e);
    }
    total += sum_of(part);
  }
  f32x4 share = splat(total == 0 ? 0 : 1 / total);
  for (j = 0; j < all; j += 4) wasm_v128_store(s + j, wasm_f32x4_mul(wasm_v128_load(s + j), share));
}

// Softmax of rows, or its logarithm. `scratch` has room for one row.
struct Softmax {
  int kernel, size, first, last, n, is_log;
  f32 *out;
  int ld;
  const f32 *x;
  int ldx;
  f32 *scratch;
};

// x - largest - log(sum of e ** (x - largest)) in place. There is room for a multiple of 4.
INLINE void log_softmax_row(int n, f32 *x, Numbers c) {
  f32x4 top = splat(x[0]);
  int j = 0;
  for (; j + 4 <= n; j += 4) top = wasm_f32x4_max(top, wasm_v128_load(x + j));
  ROLLED for (; j < n; j++) top = wasm_f32x4_max(top, splat(x[j]));
  f32x4 largest = splat(max_of(top)), total = splat(log_of(sum_of_powers(n, x, max_of(top), c)));
  for (j = 0; j < n; j += 4)
    wasm_v128_store(x + j, wasm_f32x4_sub(wasm_f32x4_sub(wasm_v128_load(x + j), largest), total));
}

KERNEL softmax(const struct Softmax *p) {
  Numbers c = numbers(p->scratch);
  f32 *row = p->scratch + NUMBERS;
  for (int i = p->first; i < p->last; i++) {
    add_row(p->n, row, p->x + i * p->ldx, 1);
    if (p->is_log)
      log_softmax_row(p->n, row, c);
    else
      softmax_masked(row, p->n, 0, 1, NO_MASK, 0, __builtin_nanf(""), c);
    add_row(p->n, p->out + i * p->ld, row, 1);
  }
}
