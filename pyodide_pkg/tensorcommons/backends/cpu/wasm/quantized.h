// Products with weights of Q8_0, and rows of tables of Q8_0: blocks of 32 int8, times a float16 each. The quants of all
// blocks come first, then the scales.

#pragma once

#include "products.h"

enum { QUANTS = 32 };

// Four of 16 quants, times 2 ** 24: each is the highest byte of an integer.
#ifdef __wasm_relaxed_simd__
#define SPREAD(v, part) wasm_i8x16_relaxed_swizzle(v, wasm_v128_load(c->spread[part]))
#else
#define ZIP(v, i)                                                                                                      \
  wasm_i8x16_shuffle(wasm_i32x4_splat(0), v, i, i + 16, i + 1, i + 17, i + 2, i + 18, i + 3, i + 19, i + 4, i + 20,    \
                     i + 5, i + 21, i + 6, i + 22, i + 7, i + 23)
#define ZIP_PAIRS(v, i)                                                                                                \
  wasm_i16x8_shuffle(wasm_i32x4_splat(0), v, i, i + 8, i + 1, i + 9, i + 2, i + 10, i + 3, i + 11)
#define SPREAD(v, part)                                                                                                \
  ((part) == 0   ? ZIP_PAIRS(ZIP(v, 0), 0)                                                                             \
   : (part) == 1 ? ZIP_PAIRS(ZIP(v, 0), 4)                                                                             \
   : (part) == 2 ? ZIP_PAIRS(ZIP(v, 8), 0)                                                                             \
                 : ZIP_PAIRS(ZIP(v, 8), 4))
#endif
#define QUANTS_OF(v, part) wasm_f32x4_convert_i32x4(SPREAD(v, part))

INLINE void widen(int blocks, const signed char *quants, const f16 *scales, f32 *out, Numbers c) {
  for (int i = 0; i < blocks; i++, quants += QUANTS, out += QUANTS) {
    f32x4 scale = splat(half_of(scales[i]) * 0x1p-24f);
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 16 * j);
      UNROLL for (int part = 0; part < 4; part++)
        wasm_v128_store(out + 16 * j + 4 * part, wasm_f32x4_mul(QUANTS_OF(v, part), scale));
    }
  }
}

// One row of the weight. Two sums of each block, since a sum waits for its last product. Not finite if a product times
// 2 ** 24 is not.
INLINE f32 quantized_dot(int blocks, const f32 *x, const signed char *quants, const f32 *scales, Numbers c) {
  f32x4 total = splat(0);
  ROLLED for (int i = 0; i < blocks; i++, quants += QUANTS, x += QUANTS) {
    f32x4 even = splat(0), odd = splat(0);
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 16 * j);
      even = MADD(QUANTS_OF(v, 0), wasm_v128_load(x + 16 * j), even);
      odd = MADD(QUANTS_OF(v, 1), wasm_v128_load(x + 16 * j + 4), odd);
      even = MADD(QUANTS_OF(v, 2), wasm_v128_load(x + 16 * j + 8), even);
      odd = MADD(QUANTS_OF(v, 3), wasm_v128_load(x + 16 * j + 12), odd);
    }
    total = MADD(wasm_f32x4_add(even, odd), wasm_v128_load32_splat(scales + i), total);
  }
  return sum_of(total) * 0x1p-24f;
}

// One row of a. Results that are not finite are computed again, of the weight's numbers as they are.
INLINE void quantized_row(int n, int blocks, const f32 *a, const signed char *quants, const f16 *scales, f32 *out,
                          f32 *scratch, Numbers c) {
  int k = blocks * QUANTS;
  widen_row(n * blocks, scales, scratch, c);
  for (int i = 0; i < n; i++) out[i] = quantized_dot(blocks, a, quants + i * k, scratch + i * blocks, c);
  for (int i = 0; i < n; i++) {
    if (out[i] - out[i] == 0) continue;
    widen(blocks, quants + i * k, scales + i * blocks, scratch, c);
    dots(1, 1, k, a, k, scratch, k, out + i, 1, 0, 0, 0, NONE, c);
  }
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
    if (p->m < ROWS) {
      for (int i = 0; i < p->m; i++)
        quantized_row(width, blocks, p->a + i * p->lda, quants, scales, p->c + i * p->ldc + j, rows, c);
      finish_rows(p->m, width, p->c + j, p->ldc, bias, residual, p->ldr, p->activation, c);
    } else {
      widen(width * blocks, quants, scales, rows, c);
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
  f32 *scratch;
};

KERNEL quantized_take(const struct QuantizedTake *p) {
  Numbers c = numbers(p->scratch);
  int blocks = p->n / QUANTS;
  for (int i = p->first; i < p->last; i++) {
    int id = p->ids[i];
    f32 *out = p->out + i * p->ld;
    if (id < 0 || id >= p->rows)
      add_row(p->n, out, 0, 1);
    else
      widen(blocks, p->quants + id * p->n, p->scales + id * blocks, out, c);
  }
}
