// Products with weights of the block formats, and rows of tables of them.

#pragma once

#include "block_formats.h"
#include "products.h"

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

enum { WIDENING = 96 }; // floats for LARGE quants, and the scales and minima of their groups

// Numbers of `groups` groups: scale * quant - minimum, with the bits of the format's meaning.
INLINE void widen_groups(const int size, const int minus, int groups, const signed char *quants, const f32 *scales,
                         const f32 *minima, f32 *out, Numbers c) {
  ROLLED for (int i = 0; i < groups; i++, quants += size, out += size) {
    f32x4 scale = splat(scales[i] * 0x1p-24f), minimum = splat(minus ? minima[i] : 0);
    UNROLL for (int j = 0; j < size; j += 16) {
      v128_t v = wasm_v128_load(quants + j);
      UNROLL for (int part = 0; part < 4; part++) {
        f32x4 y = wasm_f32x4_mul(QUANTS_OF(v, part), scale);
        wasm_v128_store(out + j + 4 * part, minus ? wasm_f32x4_sub(y, minimum) : y);
      }
    }
  }
}

// The numbers of `count` blocks from `block` on. `scratch` has room for WIDENING floats.
KERNEL widen(Weight w, int block, int count, f32 *out, f32 *scratch, Numbers c) {
  int most = LARGE / w->block;
  f32 *scales = scratch, *minima = scratch + LARGE / 16;
  signed char *quants = (signed char *)(scratch + LARGE / 8);
  for (; count > 0; block += most, count -= most, out += LARGE) {
    int some = count < most ? count : most, groups = some * w->block / w->group;
    quants_of(w, block, some, w->zero, quants);
    scales_of(w, block, some, scales, minima, c);
    if (w->group == 16)
      widen_groups(16, w->has_minima, groups, quants, scales, minima, out, c);
    else
      widen_groups(32, w->has_minima, groups, quants, scales, minima, out, c);
  }
}

// The sums of the groups of a row of a.
INLINE void sums_of_groups(int size, int groups, const f32 *x, f32 *sums) {
  ROLLED for (int i = 0; i < groups; i++, x += size) {
    f32x4 total = splat(0);
    ROLLED for (int j = 0; j < size; j += 4) total = wasm_f32x4_add(total, wasm_v128_load(x + j));
    sums[i] = sum_of(total);
  }
}

// One row of the weight, without minima. Two sums of each group, since a
// sum waits for its last product. Not finite if a product times 2 ** 24 is not.
INLINE f32 quantized_dot(const int size, int groups, const f32 *x, const signed char *quants, const f32 *scales,
                         Numbers c) {
  f32x4 total = splat(0);
  ROLLED for (int i = 0; i < groups; i++, quants += size, x += size) {
    f32x4 even = splat(0), odd = splat(0);
    UNROLL for (int j = 0; j < size; j += 16) {
      v128_t v = wasm_v128_load(quants + j);
      even = MADD(QUANTS_OF(v, 0), wasm_v128_load(x + j), even);
      odd = MADD(QUANTS_OF(v, 1), wasm_v128_load(x + j + 4), odd);
      even = MADD(QUANTS_OF(v, 2), wasm_v128_load(x + j + 8), even);
      odd = MADD(QUANTS_OF(v, 3), wasm_v128_load(x + j + 12), odd);
    }
    total = MADD(wasm_f32x4_add(even, odd), wasm_v128_load32_splat(scales + i), total);
  }
  return sum_of(total) * 0x1p-24f;
}

// The sum of minima times the sums of their groups.
INLINE f32 minimum_of(int groups, const f32 *sums, const f32 *minima) {
  f32x4 total = splat(0);
  int i = 0;
  ROLLED for (; i + 4 <= groups; i += 4) total = MADD(wasm_v128_load(sums + i), wasm_v128_load(minima + i), total);
  f32 rest = sum_of(total);
  ROLLED for (; i < groups; i++) rest += sums[i] * minima[i];
  return rest;
}

// a (m, k) by columns `first` to `last` of a weight whose rows they are, then bias, activation and residual. `scratch` has
// room for PANEL rows of the weight and WIDENING more.
struct Quantized {
  int kernel, size, first, last, m, k;
  const f32 *a;
  int lda;
  struct Weight weight;
  f32 *c;
  int ldc;
  const f32 *bias, *residual;
  int ldr;
  enum Activation activation;
  f32 *scratch;
};

// Less than ROWS rows of a by columns `first` to `last`. Results that are not finite are computed again, of the weight's
// numbers as they are.
INLINE void quantized_rows(const struct Quantized *p, int first, int last, f32 *scratch, Numbers c) {
  Weight w = &p->weight;
  int k = p->k, blocks = k / w->block, groups = k / w->group, rows = last - first, minus = w->has_minima;
  f32 *sums = scratch, *scales = sums + ROWS * groups, *minima = scales + PANEL * groups, *wide = minima + PANEL * groups;
  signed char *quants = (signed char *)wide;
  scales_of(w, first * blocks, rows * blocks, scales, minima, c);
  if (minus)
    for (int i = 0; i < p->m; i++) sums_of_groups(k / groups, groups, p->a + i * p->lda, sums + i * groups);
  for (int j = 0; j < rows; j++, scales += groups, minima += groups) {
    const signed char *found = quants;
    if (w->format == Q8_0)
      found = (const signed char *)field(w, 0, (first + j) * blocks);
    else
      quants_of(w, (first + j) * blocks, blocks, w->zero, quants);
    for (int i = 0; i < p->m; i++) {
      const f32 *x = p->a + i * p->lda;
      f32 *out = p->c + i * p->ldc + first + j;
      if (w->group == 16)
        *out = quantized_dot(16, groups, x, found, scales, c);
      else
        *out = quantized_dot(32, groups, x, found, scales, c);
      if (minus) *out -= minimum_of(groups, sums + i * groups, minima);
    }
    for (int i = 0; i < p->m; i++) {
      f32 *out = p->c + i * p->ldc + first + j;
      if (*out - *out == 0) continue;
      widen(w, (first + j) * blocks, blocks, wide, wide + k, c);
      dots(1, 1, k, p->a + i * p->lda, k, wide, k, out, 1, 0, 0, 0, NONE, c);
    }
  }
}

KERNEL quantized(const struct Quantized *p) {
  Numbers c = numbers(p->scratch);
  f32 *rows = p->scratch + NUMBERS;
  Weight w = &p->weight;
  int blocks = p->k / w->block;
  for (int j = p->first; j < p->last; j += PANEL) {
    int width = p->last - j < PANEL ? p->last - j : PANEL;
    const f32 *bias = p->bias ? p->bias + j : 0, *residual = p->residual ? p->residual + j : 0;
    if (p->m < ROWS) {
      quantized_rows(p, j, j + width, rows, c);
      finish_rows(p->m, width, p->c + j, p->ldc, bias, residual, p->ldr, p->activation, c);
    } else {
      widen(w, j * blocks, width * blocks, rows, rows + width * p->k, c);
      dots(p->m, width, p->k, p->a, p->lda, rows, p->k, p->c + j, p->ldc, bias, residual, p->ldr, p->activation, c);
    }
  }
}

// Rows of a table of `rows` rows of `n` numbers. `scratch` has room for WIDENING.
struct QuantizedTake {
  int kernel, size, first, last, n;
  f32 *out;
  int ld;
  struct Weight weight;
  const int *ids;
  int rows;
  f32 *scratch;
};

KERNEL quantized_take(const struct QuantizedTake *p) {
  Numbers c = numbers(p->scratch);
  int blocks = p->n / p->weight.block;
  for (int i = p->first; i < p->last; i++) {
    int id = p->ids[i];
    f32 *out = p->out + i * p->ld;
    if (id < 0 || id >= p->rows)
      add_row(p->n, out, 0, 1);
    else
      widen(&p->weight, id * blocks, blocks, out, p->scratch + NUMBERS, c);
  }
}
