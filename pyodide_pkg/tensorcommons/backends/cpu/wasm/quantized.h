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

// A row of a rounded to int8 in blocks of 32, for the precision "fast": `scales` and `sums` (those of the rounded numbers)
// of each group of the weight, and what the weight's zero adds to the products of its quants.
struct Rounded {
  signed char *quants;
  f32 *scales, *sums;
  int *starts;
};

INLINE f32 scale_of_block(const f32 *x) {
  f32x4 most = splat(0);
  UNROLL for (int j = 0; j < 32; j += 4) most = wasm_f32x4_max(most, wasm_f32x4_abs(wasm_v128_load(x + j)));
  return max_of(most) / 127;
}

INLINE f32x4 rounded4(const f32 *x, f32x4 inverse) { return wasm_f32x4_nearest(wasm_f32x4_mul(wasm_v128_load(x), inverse)); }
INLINE f32 inverse_of(f32 scale) { return scale >= 0x1p-126f ? 1 / scale : 0; }

// 16 numbers as int8.
INLINE v128_t rounded16(const f32 *x, f32x4 inverse) {
  v128_t each[4];
  UNROLL for (int j = 0; j < 4; j++) each[j] = wasm_i32x4_trunc_sat_f32x4(rounded4(x + 4 * j, inverse));
  return wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(each[0], each[1]), wasm_i16x8_narrow_i32x4(each[2], each[3]));
}

INLINE int sum_of_bytes(v128_t v) {
  v = wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_extadd_pairwise_i8x16(v));
  v = wasm_i32x4_add(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_i32x4_extract_lane(v, 0) + wasm_i32x4_extract_lane(v, 1);
}

INLINE void round_row(Weight w, int k, const f32 *x, const struct Rounded *to) {
  int halves = w->group == 16, at = 0;
  for (int p = 0; p < k; p += 32) {
    f32 scale = scale_of_block(x + p);
    f32x4 inverse = splat(inverse_of(scale));
    v128_t low = rounded16(x + p, inverse), high = rounded16(x + p + 16, inverse);
    wasm_v128_store(to->quants + p, low);
    wasm_v128_store(to->quants + p + 16, high);
    int first = sum_of_bytes(low), second = sum_of_bytes(high);
    if (!halves) first += second;
    to->scales[at] = scale, to->sums[at] = scale * first, to->starts[at] = -w->zero * first, at++;
    if (halves) to->scales[at] = scale, to->sums[at] = scale * second, to->starts[at] = -w->zero * second, at++;
  }
}

// The numbers that a row of a is rounded to.
INLINE void round_to_floats(int k, const f32 *x, f32 *out) {
  for (int p = 0; p < k; p += 32) {
    f32 scale = scale_of_block(x + p);
    f32x4 inverse = splat(inverse_of(scale));
    UNROLL for (int j = p; j < p + 32; j += 4) wasm_v128_store(out + j, wasm_f32x4_mul(rounded4(x + j, inverse), splat(scale)));
  }
}

// Products of 16 int8 added to four sums. Unless `is_signed` the quants are at most 127 and not negative, which makes the
// relaxed instruction exact.
INLINE v128_t add_bytes(const int is_signed, v128_t x, v128_t quants, v128_t sum) {
#ifdef __wasm_relaxed_simd__
  if (!is_signed) return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, quants, sum);
#endif
  v128_t low = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(x), wasm_i16x8_extend_low_i8x16(quants));
  v128_t high = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(x), wasm_i16x8_extend_high_i8x16(quants));
  return wasm_i32x4_add(sum, wasm_i32x4_add(low, high));
}

enum { COLUMNS = 4 }; // of the result that are computed together

// `N` rows of quants, `apart` bytes and `scales_apart` scales from one to the next, by a rounded row. `scales` are those of
// both, multiplied.
INLINE void byte_dots(const int N, const int size, const int is_signed, int groups, const signed char *x, const int *starts,
                      const signed char *quants, int apart, const f32 *scales, f32 *out) {
  f32x4 total[COLUMNS];
  UNROLL for (int j = 0; j < N; j++) total[j] = splat(0);
  ROLLED for (int i = 0; i < groups; i++, quants += size, x += size) {
    v128_t start = wasm_v128_load32_zero(starts + i), v[2];
    UNROLL for (int p = 0; p < size; p += 16) v[p / 16] = wasm_v128_load(x + p);
    UNROLL for (int j = 0; j < N; j++) {
      v128_t sum = start;
      UNROLL for (int p = 0; p < size; p += 16)
        sum = add_bytes(is_signed, v[p / 16], wasm_v128_load(quants + j * apart + p), sum);
      total[j] = MADD(wasm_f32x4_convert_i32x4(sum), wasm_v128_load32_splat(scales + j * groups + i), total[j]);
    }
  }
  UNROLL for (int j = 0; j < N; j++) out[j] = sum_of(total[j]);
}

// The same of quants of 4 bits as they are stored: 32 to 16 bytes, or in blocks of LARGE 64 to 32 bytes.
INLINE void nibble_dots(const int N, const int is_large, int groups, const signed char *x, const int *starts,
                        const u8 *quants, int apart, const f32 *scales, f32 *out) {
  const int together = is_large ? 2 : 1;
  f32x4 total[COLUMNS];
  UNROLL for (int j = 0; j < N; j++) total[j] = splat(0);
  ROLLED for (int i = 0; i < groups; i += together, quants += 16 * together, x += 32 * together) {
    v128_t v[4];
    UNROLL for (int p = 0; p < 2 * together; p++) v[p] = wasm_v128_load(x + 16 * p);
    UNROLL for (int j = 0; j < N; j++) {
      const u8 *at = quants + j * apart;
      const f32 *by = scales + j * groups + i;
      v128_t first = wasm_v128_load(at), sum = wasm_v128_load32_zero(starts + i);
      sum = add_bytes(0, v[0], BITS(first, 0, 15), sum);
      if (is_large) {
        v128_t last = wasm_v128_load(at + 16), more = wasm_v128_load32_zero(starts + i + 1);
        sum = add_bytes(0, v[1], BITS(last, 0, 15), sum);
        more = add_bytes(0, v[2], BITS(first, 4, 15), more);
        more = add_bytes(0, v[3], BITS(last, 4, 15), more);
        total[j] = MADD(wasm_f32x4_convert_i32x4(more), wasm_v128_load32_splat(by + 1), total[j]);
      } else {
        sum = add_bytes(0, v[1], BITS(first, 4, 15), sum);
      }
      total[j] = MADD(wasm_f32x4_convert_i32x4(sum), wasm_v128_load32_splat(by), total[j]);
    }
  }
  UNROLL for (int j = 0; j < N; j++) out[j] = sum_of(total[j]);
}

INLINE void multiply_scales(int n, const f32 *a, const f32 *b, f32 *out) {
  int i = 0;
  ROLLED for (; i + 4 <= n; i += 4) wasm_v128_store(out + i, wasm_f32x4_mul(wasm_v128_load(a + i), wasm_v128_load(b + i)));
  ROLLED for (; i < n; i++) out[i] = a[i] * b[i];
}

// a (m, k) by columns `first` to `last` of a weight whose rows they are, then bias, activation and residual. `scratch` has
// room for PANEL rows of the weight and WIDENING more, and with `is_fast` for up to ROUNDED rows of a.
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
  int is_fast;
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

// `N` columns from `first` on of a rounded row of a. `quants` has room for those of N rows of the weight.
INLINE void rounded_columns(const int N, Weight w, int k, int first, const struct Rounded *x, const f32 *scales,
                            signed char *quants, f32 *out) {
  int blocks = k / w->block, groups = k / w->group, at = first * blocks;
  const u8 *stored = field(w, 0, at);
  const signed char *read = (const signed char *)stored;
  switch (w->format) {
  case Q4_0: case Q4_1: nibble_dots(N, 0, groups, x->quants, x->starts, stored, k / 2, scales, out); return;
  case Q4_K: nibble_dots(N, 1, groups, x->quants, x->starts, stored, k / 2, scales, out); return;
  case Q8_0: // one row after the other: memory delivers several at a slower rate
    ROLLED for (int i = 0; i < N; i++)
      byte_dots(1, 32, 1, groups, x->quants, x->starts, read + i * k, 0, scales + i * groups, out + i);
    return;
  default: break;
  }
  quants_of(w, at, N * blocks, 0, quants);
  if (w->group == 16)
    byte_dots(N, 16, 0, groups, x->quants, x->starts, quants, k, scales, out);
  else if (w->format == IQ4_NL)
    byte_dots(N, 32, 1, groups, x->quants, x->starts, quants, k, scales, out);
  else
    byte_dots(N, 32, 0, groups, x->quants, x->starts, quants, k, scales, out);
}

// A row of a, rounded to int8, by columns `first` to `last`. Results that are not finite are computed again, as floats.
KERNEL rounded_row(const struct Quantized *p, const f32 *a, f32 *out, f32 *scratch, Numbers c) {
  Weight w = &p->weight;
  int k = p->k, blocks = k / w->block, groups = k / w->group, first = p->first, last = p->last;
  f32 *scales = scratch, *minima = scales + COLUMNS * groups, *products = minima + COLUMNS * groups;
  f32 *rest = products + COLUMNS * groups, *wide = rest + 3 * groups + k / 4;
  struct Rounded x = {(signed char *)(rest + 3 * groups), rest, rest + groups, (int *)(rest + 2 * groups)};
  round_row(w, k, a, &x);
  for (int j = first, n; j < last; j += n) {
    n = last - j < COLUMNS ? 1 : COLUMNS;
    scales_of(w, j * blocks, n * blocks, scales, minima, c);
    for (int i = 0; i < n; i++) multiply_scales(groups, x.scales, scales + i * groups, products + i * groups);
    if (n == COLUMNS)
      rounded_columns(COLUMNS, w, k, j, &x, products, (signed char *)wide, out + j);
    else
      rounded_columns(1, w, k, j, &x, products, (signed char *)wide, out + j);
    if (w->has_minima)
      for (int i = 0; i < n; i++) out[j + i] -= minimum_of(groups, x.sums, minima + i * groups);
  }
  for (int j = first, is_rounded = 0; j < last; j++) {
    if (out[j] - out[j] == 0) continue;
    if (!is_rounded) round_to_floats(k, a, wide), is_rounded = 1;
    widen(w, j * blocks, blocks, wide + k, wide + 2 * k, c);
    dots(1, 1, k, wide, k, wide + k, k, out + j, 1, 0, 0, 0, NONE, c);
  }
}

enum { ROUNDED = 128 }; // rows of a that are rounded before all columns are computed

KERNEL quantized(const struct Quantized *p) {
  Numbers c = numbers(p->scratch);
  f32 *scratch = p->scratch + NUMBERS, *wide = scratch;
  Weight w = &p->weight;
  int blocks = p->k / w->block, most = p->is_fast && p->m > ROUNDED ? ROUNDED : p->m;
  if (p->is_fast) wide += most * p->k;
  if (p->is_fast && p->m < ROWS) {
    for (int i = 0; i < p->m; i++) rounded_row(p, p->a + i * p->lda, p->c + i * p->ldc, scratch, c);
    finish_rows(p->m, p->last - p->first, p->c + p->first, p->ldc, p->bias ? p->bias + p->first : 0,
                p->residual ? p->residual + p->first : 0, p->ldr, p->activation, c);
    return;
  }
  for (int i = 0; i < p->m; i += most) {
    int rows = p->m - i < most ? p->m - i : most, lda = p->is_fast ? p->k : p->lda;
    const f32 *a = p->is_fast ? scratch : p->a + i * p->lda;
    if (p->is_fast)
      for (int j = 0; j < rows; j++) round_to_floats(p->k, p->a + (i + j) * p->lda, scratch + j * p->k);
    for (int j = p->first; j < p->last; j += PANEL) {
      int width = p->last - j < PANEL ? p->last - j : PANEL;
      const f32 *bias = p->bias ? p->bias + j : 0, *residual = p->residual ? p->residual + i * p->ldr + j : 0;
      f32 *out = p->c + i * p->ldc + j;
      if (p->m < ROWS) {
        quantized_rows(p, j, j + width, wide, c);
        finish_rows(p->m, width, out, p->ldc, bias, residual, p->ldr, p->activation, c);
      } else {
        widen(w, j * blocks, width * blocks, wide, wide + width * p->k, c);
        dots(rows, width, p->k, a, lda, wide, p->k, out, p->ldc, bias, residual, p->ldr, p->activation, c);
      }
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
