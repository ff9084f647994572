// Products with weights of Q8_0, and rows of tables of Q8_0: blocks of 32 int8, times a float16 each. The quants of all
// blocks come first, then the scales.

#pragma once

#include "products.h"

enum { QUANTS = 32 };

// Four quants from the `part`th on of a vector of 16.
#define QUANTS_OF(v, part)                                                                                             \
  wasm_f32x4_convert_i32x4((part) < 2 ? ((part) ? wasm_i32x4_extend_high_i16x8(wasm_i16x8_extend_low_i8x16(v))         \
                                                : wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(v)))         \
                                      : ((part) == 3 ? wasm_i32x4_extend_high_i16x8(wasm_i16x8_extend_high_i8x16(v))   \
                                                     : wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_high_i8x16(v))))

INLINE void widen(int blocks, const signed char *quants, const f16 *scales, f32 *out) {
  for (int i = 0; i < blocks; i++, quants += QUANTS, out += QUANTS) {
    f32x4 scale = splat(half_of(scales[i]));
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 16 * j);
      UNROLL for (int part = 0; part < 4; part++)
        wasm_v128_store(out + 16 * j + 4 * part, wasm_f32x4_mul(QUANTS_OF(v, part), scale));
    }
  }
}

INLINE f32 quantized_dot(int blocks, const f32 *x, const signed char *quants, const f16 *scales) {
  f32x4 total = splat(0);
  for (int i = 0; i < blocks; i++, quants += QUANTS, x += QUANTS) {
    f32x4 sum = splat(0);
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 16 * j);
      UNROLL for (int part = 0; part < 4; part++)
        sum = MADD(QUANTS_OF(v, part), wasm_v128_load(x + 16 * j + 4 * part), sum);
    }
    total = MADD(sum, splat(half_of(scales[i])), total);
  }
  return sum_of(total);
}

// a (m, k) by columns `first` to `last` of a weight whose rows they are, then bias, activation and residual. `scratch` has
// room for PANEL rows of the weight.
struct Quantized {
  int kernel, size, first, last, m, k;
  const f32 *a;
  int lda;
  const signed char *quants;
  const f16 *scales;
  f32 *c;
  int ldc;
  const f32 *bias, *residual;
  int ldr;
  enum Activation activation;
  f32 *scratch;
};

KERNEL quantized(const struct Quantized *p) {
  Numbers c = numbers(p->scratch);
  f32 *rows = p->scratch + NUMBERS;
  int blocks = p->k / QUANTS;
  for (int j = p->first; j < p->last; j += PANEL) {
    int width = p->last - j < PANEL ? p->last - j : PANEL;
    const signed char *quants = p->quants + j * p->k;
    const f16 *scales = p->scales + j * blocks;
    const f32 *bias = p->bias ? p->bias + j : 0, *residual = p->residual ? p->residual + j : 0;
    if (p->m == 1) {
      for (int i = 0; i < width; i++)
        p->c[j + i] = quantized_dot(blocks, p->a, quants + i * p->k, scales + i * blocks);
      finish(width, p->c + j, bias, residual, p->activation, c);
    } else {
      widen(width * blocks, quants, scales, rows);
      dots(p->m, width, p->k, p->a, p->lda, rows, p->k, p->c + j, p->ldc, bias, residual, p->ldr, p->activation, c);
    }
  }
}

// Rows of a table.
struct QuantizedTake {
  int kernel, size, first, last, n;
  f32 *out;
  int ld;
  const signed char *quants;
  const f16 *scales;
  const int *ids;
  int rows;
};

KERNEL quantized_take(const struct QuantizedTake *p) {
  int blocks = p->n / QUANTS;
  for (int i = p->first; i < p->last; i++) {
    int id = p->ids[i];
    f32 *out = p->out + i * p->ld;
    if (id < 0 || id >= p->rows)
      add_row(p->n, out, 0, 1);
    else
      widen(blocks, p->quants + id * p->n, p->scales + id * blocks, out);
  }
}
