// The block formats of weights: 32 or 256 numbers of a row are integers of a few bits ("quants"), and each group of 16 or
// 32 of them has a scale, and a minimum in some formats. formats/ has their meaning; the fields of all blocks lie together.
//
//     number = scale * (quant - zero) - minimum        zero is a constant of the format
//
// `quants_of` writes the quants of blocks that follow each other as bytes, `scales_of` scales and minima as float32.

#pragma once

#include "vectors.h"

typedef unsigned char u8;

enum Format { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL };
enum { FIELDS = 5, SMALL = 32, LARGE = 256 }; // fields of a block at most; numbers of a block

// `block` and `group` are the numbers of each; `fields` are the first bytes of each field, `bytes` those of it in a block.
struct Weight {
  enum Format format;
  int block, group, zero, has_minima;
  const u8 *fields[FIELDS];
  int bytes[FIELDS];
};
typedef const struct Weight *Weight;

INLINE const u8 *field(Weight w, int number, int block) { return w->fields[number] + block * w->bytes[number]; }

// Bits of each byte, from the `from`th on.
#define BITS(v, from, mask) wasm_v128_and((from) ? wasm_u16x8_shr(v, from) : (v), wasm_i8x16_splat(mask))
#define OR_SHIFTED(v, bits, by) wasm_v128_or(v, wasm_i16x8_shl(bits, by))
#define PUT(at, v) wasm_v128_store(out + (at), wasm_i8x16_sub(v, zero))

// 16 where a bit is set: bits 16 `half` to 16 `half` + 15 of the four bytes at `bits`.
INLINE v128_t fifth_bits(const u8 *bits, const int half) {
  v128_t each = wasm_i64x2_splat((long long)0x8040201008040201ULL), all = wasm_v128_load32_splat(bits);
  v128_t spread = half ? wasm_i8x16_shuffle(all, all, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)
                       : wasm_i8x16_shuffle(all, all, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  return wasm_v128_and(wasm_i8x16_eq(wasm_v128_and(spread, each), each), wasm_i8x16_splat(16));
}

INLINE void small_quants(const enum Format format, const u8 *quants, const u8 *fifths, int blocks, signed char *out,
                         v128_t zero) {
  v128_t levels = wasm_i8x16_make(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
  ROLLED for (int i = 0; i < blocks; i++, quants += 16, fifths += 4, out += SMALL) {
    v128_t v = wasm_v128_load(quants), low = BITS(v, 0, 15), high = BITS(v, 4, 15);
    if (format == Q5_0) low = wasm_v128_or(low, fifth_bits(fifths, 0)), high = wasm_v128_or(high, fifth_bits(fifths, 1));
    if (format == IQ4_NL) low = wasm_i8x16_swizzle(levels, low), high = wasm_i8x16_swizzle(levels, high);
    PUT(0, low);
    PUT(16, high);
  }
}

INLINE void q2_quants(const u8 *quants, int blocks, signed char *out, v128_t zero) {
  ROLLED for (int i = 0; i < 2 * blocks; i++, quants += 32, out += 128)
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 16 * j);
      UNROLL for (int part = 0; part < 4; part++) PUT(32 * part + 16 * j, BITS(v, 2 * part, 3));
    }
}

INLINE void q3_quants(const u8 *quants, const u8 *thirds, int blocks, signed char *out, v128_t zero) {
  ROLLED for (int i = 0; i < 2 * blocks; i++, quants += 32, out += 128)
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 16 * j), third = wasm_v128_load(thirds + i / 2 * 32 + 16 * j);
      if (i % 2) third = wasm_u8x16_shr(third, 4);
      UNROLL for (int part = 0; part < 4; part++)
        PUT(32 * part + 16 * j, OR_SHIFTED(BITS(v, 2 * part, 3), BITS(third, part, 1), 2));
    }
}

INLINE void q4_quants(const u8 *quants, int blocks, signed char *out, v128_t zero) {
  ROLLED for (int i = 0; i < 4 * blocks; i++, quants += 32, out += 64)
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 16 * j);
      PUT(16 * j, BITS(v, 0, 15));
      PUT(32 + 16 * j, BITS(v, 4, 15));
    }
}

INLINE void q5_quants(const u8 *quants, const u8 *fifths, int blocks, signed char *out, v128_t zero) {
  ROLLED for (int i = 0; i < blocks; i++, quants += 128, fifths += 32, out += LARGE)
    UNROLL for (int part = 0; part < 4; part++) UNROLL for (int j = 0; j < 2; j++) {
      v128_t v = wasm_v128_load(quants + 32 * part + 16 * j), fifth = wasm_v128_load(fifths + 16 * j);
      PUT(64 * part + 16 * j, OR_SHIFTED(BITS(v, 0, 15), BITS(fifth, 2 * part, 1), 4));
      PUT(64 * part + 32 + 16 * j, OR_SHIFTED(BITS(v, 4, 15), BITS(fifth, 2 * part + 1, 1), 4));
    }
}

INLINE void q6_quants(const u8 *quants, const u8 *upper, int blocks, signed char *out, v128_t zero) {
  ROLLED for (int i = 0; i < 2 * blocks; i++, quants += 64, upper += 32, out += 128)
    UNROLL for (int j = 0; j < 2; j++) {
      v128_t first = wasm_v128_load(quants + 16 * j), last = wasm_v128_load(quants + 32 + 16 * j);
      v128_t top = wasm_v128_load(upper + 16 * j);
      PUT(16 * j, OR_SHIFTED(BITS(first, 0, 15), BITS(top, 0, 3), 4));
      PUT(32 + 16 * j, OR_SHIFTED(BITS(last, 0, 15), BITS(top, 2, 3), 4));
      PUT(64 + 16 * j, OR_SHIFTED(BITS(first, 4, 15), BITS(top, 4, 3), 4));
      PUT(96 + 16 * j, OR_SHIFTED(BITS(last, 4, 15), BITS(top, 6, 3), 4));
    }
}

INLINE void copied_quants(const u8 *quants, int blocks, signed char *out, v128_t zero) {
  ROLLED for (int i = 0; i < 2 * blocks; i++) PUT(16 * i, wasm_v128_load(quants + 16 * i));
}

// The quants of `count` blocks from `block` on, less `zero`, in the order of the numbers.
KERNEL quants_of(Weight w, int block, int count, int minus, signed char *out) {
  const u8 *first = field(w, 0, block), *second = field(w, 1, block);
  v128_t zero = wasm_i8x16_splat(minus);
  switch (w->format) {
  case Q4_0: case Q4_1: small_quants(Q4_0, first, second, count, out, zero); break;
  case Q5_0: case Q5_1: small_quants(Q5_0, first, second, count, out, zero); break;
  case IQ4_NL: small_quants(IQ4_NL, first, second, count, out, zero); break;
  case Q8_0: copied_quants(first, count, out, zero); break;
  case Q2_K: q2_quants(first, count, out, zero); break;
  case Q3_K: q3_quants(first, second, count, out, zero); break;
  case Q4_K: q4_quants(first, count, out, zero); break;
  case Q5_K: q5_quants(first, second, count, out, zero); break;
  case Q6_K: q6_quants(first, second, count, out, zero); break;
  }
}

// 8 bytes of `v`, signed, times a scale.
#define PUT_SCALES(out, v, half, scale)                                                                                \
  do {                                                                                                                 \
    v128_t wide = half ? wasm_i16x8_extend_high_i8x16(v) : wasm_i16x8_extend_low_i8x16(v);                             \
    f32x4 by = splat(scale);                                                                                           \
    wasm_v128_store(out, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(wide)), by));             \
    wasm_v128_store((out) + 4, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(wide)), by));      \
  } while (0)

INLINE int word_at(const u8 *at) { return wasm_i32x4_extract_lane(wasm_v128_load32_zero(at), 0); }
INLINE f32 half_at(const u8 *at) { return half_of((f16)(at[0] | at[1] << 8)); }

// 8 scales and 8 minima of 6 bits, of Q4_K and Q5_K.
INLINE v128_t six_bits(const u8 *packed) {
  int low = word_at(packed), high = word_at(packed + 4), last = word_at(packed + 8);
  return wasm_i32x4_make(low & 0x3f3f3f3f, (last & 0x0f0f0f0f) | (low >> 2 & 0x30303030), high & 0x3f3f3f3f,
                         (last >> 4 & 0x0f0f0f0f) | (high >> 2 & 0x30303030));
}

// 16 scales of 6 bits less 32, of Q3_K.
INLINE v128_t six_bits_less_32(const u8 *packed) {
  int top = word_at(packed + 8);
  v128_t v = wasm_v128_load64_splat(packed);
  v128_t low = wasm_i64x2_shuffle(BITS(v, 0, 15), BITS(v, 4, 15), 0, 2);
  v128_t upper = wasm_v128_and(wasm_i32x4_make(top, top >> 2, top >> 4, top >> 6), wasm_i8x16_splat(3));
  return wasm_i8x16_sub(OR_SHIFTED(low, upper, 4), wasm_i8x16_splat(32));
}

// Scales and minima of the groups of `count` blocks from `block` on, in the order of the groups.
KERNEL scales_of(Weight w, int block, int count, f32 *scales, f32 *minima, Numbers c) {
  switch (w->format) {
  case Q4_0: case Q8_0: case IQ4_NL: widen_row(count, (const f16 *)field(w, 1, block), scales, c); return;
  case Q5_0: widen_row(count, (const f16 *)field(w, 2, block), scales, c); return;
  case Q4_1: case Q5_1: {
    int at = w->format == Q4_1 ? 1 : 2;
    widen_row(count, (const f16 *)field(w, at, block), scales, c);
    widen_row(count, (const f16 *)field(w, at + 1, block), minima, c);
    ROLLED for (int i = 0; i < count; i++) minima[i] = -minima[i];
    return;
  }
  default: break;
  }
  ROLLED for (int i = block; i < block + count; i++) {
    if (w->format == Q4_K || w->format == Q5_K) {
      int at = w->format == Q4_K ? 1 : 2;
      v128_t v = six_bits(field(w, at, i));
      PUT_SCALES(scales, v, 0, half_at(field(w, at + 1, i)));
      PUT_SCALES(minima, v, 1, half_at(field(w, at + 2, i)));
      scales += 8, minima += 8;
      continue;
    }
    v128_t v;
    f32 scale;
    if (w->format == Q2_K) {
      v128_t packed = wasm_v128_load(field(w, 1, i)), high = BITS(packed, 4, 15);
      f32 minimum = half_at(field(w, 3, i));
      PUT_SCALES(minima, high, 0, minimum);
      PUT_SCALES(minima + 8, high, 1, minimum);
      minima += 16;
      v = BITS(packed, 0, 15), scale = half_at(field(w, 2, i));
    } else if (w->format == Q3_K) {
      v = six_bits_less_32(field(w, 2, i)), scale = half_at(field(w, 3, i));
    } else {
      v = wasm_v128_load(field(w, 2, i)), scale = half_at(field(w, 3, i));
    }
    PUT_SCALES(scales, v, 0, scale);
    PUT_SCALES(scales + 8, v, 1, scale);
    scales += 16;
  }
}
