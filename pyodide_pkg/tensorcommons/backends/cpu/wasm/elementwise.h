// Formulas of elements.

#pragma once

#include "vectors.h"

enum { TILE = 256 }; // elements for which an operation of a formula is computed before the next one

// Rows of `n` results of a formula, a tile at a time: its operations in postfix order, over a stack of tiles of 4-byte
// elements in `scratch`. A bool is a byte in memory, and 0 or 1 in a tile.
//
// `words` are the sizes of the `axes` that rows are numbered by, the last one first; then `operands`, each with its
// address and the bytes from one column to the next and along each of the axes; then the operations (code, argument).
// Tiles `first` to `last` are computed, of which a row has as many as cover it.
enum Operation {
  LOAD, LOAD_BOOL, LOAD_HALF, NUMBER, STORE, STORE_BOOL,
  ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM,
  EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL,
  NEGATIVE, ABS, SQUARE, SQRT, RSQRT, RECIPROCAL, FLOOR, CEIL, TRUNC, ROUND,
  EXP, APPLY_RELU, APPLY_SIGMOID, APPLY_GELU, APPLY_TANH, SILU, GELU_TANH, ERF, LOG1P,
  IS_NAN, IS_FINITE, IS_NOT_ZERO, TO_INT,
  INT_ADD, INT_SUBTRACT, INT_MULTIPLY, INT_MAXIMUM, INT_MINIMUM,
  INT_EQUAL, INT_NOT_EQUAL, INT_LESS, INT_LESS_EQUAL, INT_GREATER, INT_GREATER_EQUAL,
  INT_NEGATIVE, INT_ABS, INT_SQUARE, INT_IS_NOT_ZERO, TO_FLOAT,
  AND, OR, XOR, NOT, WHERE
};

struct Each {
  int kernel, size, first, last, n;
  f32 *scratch;
  int axes, operands, operations;
  int words[];
};

INLINE v128_t bools(v128_t mask) { return wasm_v128_and(mask, wasm_i32x4_splat(1)); }
INLINE v128_t is_true(v128_t x) { return wasm_i32x4_ne(x, wasm_i32x4_splat(0)); }

INLINE void load(int width, f32 *out, const char *x, int step) {
  int j = 0;
  if (step == 4)
    add_row(width, out, (const f32 *)x, 1);
  else if (step == 0)
    for (f32x4 all = wasm_v128_load32_splat(x); j < width; j += 4) wasm_v128_store(out + j, all);
  else
    ROLLED for (; j < width; j++, x += step) out[j] = *(const f32 *)x;
}

INLINE void load_bools(int width, f32 *out, const char *x, int step) {
  ROLLED for (int j = 0; j < width; j++, x += step) ((int *)out)[j] = *x != 0;
}

INLINE void load_halves(int width, f32 *out, const char *x, int step, Numbers c) {
  if (step == 2)
    widen_row(width, (const f16 *)x, out, c);
  else
    ROLLED for (int j = 0; j < width; j++, x += step) out[j] = half_of(*(const f16 *)x);
}

#define UNARY(code, formula)                                                                                           \
  case code:                                                                                                           \
    ROLLED for (int j = 0; j < width; j += 4) {                                                                        \
      f32x4 x = wasm_v128_load(top + j);                                                                               \
      wasm_v128_store(top + j, formula);                                                                               \
    }                                                                                                                  \
    break;
#define BINARY(code, formula)                                                                                          \
  case code:                                                                                                           \
    top -= TILE;                                                                                                       \
    ROLLED for (int j = 0; j < width; j += 4) {                                                                        \
      f32x4 x = wasm_v128_load(top + j), y = wasm_v128_load(top + TILE + j);                                            \
      wasm_v128_store(top + j, formula);                                                                               \
    }                                                                                                                  \
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
      char *x = 0;
      int step = 0;
      if (at[0] <= STORE_BOOL && at[0] != NUMBER) {
        const int *operand = operands + (2 + p->axes) * at[1];
        step = operand[1];
        x = (char *)operand[0] + start * step;
        for (int axis = 0, left = row; axis < p->axes; left /= p->words[axis++])
          x += left % p->words[axis] * operand[2 + axis];
      }
      switch (at[0]) {
      case LOAD:
        top += TILE;
        load(width, top, x, step);
        break;
      case LOAD_BOOL:
        top += TILE;
        load_bools(width, top, x, step);
        break;
      case LOAD_HALF:
        top += TILE;
        load_halves(width, top, x, step, c);
        break;
      case NUMBER:
        top += TILE;
        for (int j = 0; j < width; j += 4) wasm_v128_store(top + j, wasm_i32x4_splat(at[1]));
        break;
      case STORE:
        add_row(width, (f32 *)x, top, 1);
        break;
      case STORE_BOOL:
        ROLLED for (int j = 0; j < width; j++) x[j] = ((int *)top)[j];
        break;
        BINARY(ADD, wasm_f32x4_add(x, y))
        BINARY(SUBTRACT, wasm_f32x4_sub(x, y))
        BINARY(MULTIPLY, wasm_f32x4_mul(x, y))
        BINARY(DIVIDE, wasm_f32x4_div(x, y))
        BINARY(MAXIMUM, wasm_f32x4_max(x, y))
        BINARY(MINIMUM, wasm_f32x4_min(x, y))
        BINARY(EQUAL, bools(wasm_f32x4_eq(x, y)))
        BINARY(NOT_EQUAL, bools(wasm_f32x4_ne(x, y)))
        BINARY(LESS, bools(wasm_f32x4_lt(x, y)))
        BINARY(LESS_EQUAL, bools(wasm_f32x4_le(x, y)))
        BINARY(GREATER, bools(wasm_f32x4_gt(x, y)))
        BINARY(GREATER_EQUAL, bools(wasm_f32x4_ge(x, y)))
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
        UNARY(LOG1P, log1p4(x))
        UNARY(IS_NAN, bools(wasm_f32x4_ne(x, x)))
        UNARY(IS_FINITE, bools(wasm_f32x4_lt(wasm_f32x4_abs(x), splat(__builtin_inff()))))
        UNARY(IS_NOT_ZERO, bools(wasm_f32x4_ne(x, splat(0))))
        UNARY(TO_INT, wasm_i32x4_trunc_sat_f32x4(x))
        BINARY(INT_ADD, wasm_i32x4_add(x, y))
        BINARY(INT_SUBTRACT, wasm_i32x4_sub(x, y))
        BINARY(INT_MULTIPLY, wasm_i32x4_mul(x, y))
        BINARY(INT_MAXIMUM, wasm_i32x4_max(x, y))
        BINARY(INT_MINIMUM, wasm_i32x4_min(x, y))
        BINARY(INT_EQUAL, bools(wasm_i32x4_eq(x, y)))
        BINARY(INT_NOT_EQUAL, bools(wasm_i32x4_ne(x, y)))
        BINARY(INT_LESS, bools(wasm_i32x4_lt(x, y)))
        BINARY(INT_LESS_EQUAL, bools(wasm_i32x4_le(x, y)))
        BINARY(INT_GREATER, bools(wasm_i32x4_gt(x, y)))
        BINARY(INT_GREATER_EQUAL, bools(wasm_i32x4_ge(x, y)))
        UNARY(INT_NEGATIVE, wasm_i32x4_neg(x))
        UNARY(INT_ABS, wasm_i32x4_abs(x))
        UNARY(INT_SQUARE, wasm_i32x4_mul(x, x))
        UNARY(INT_IS_NOT_ZERO, bools(is_true(x)))
        UNARY(TO_FLOAT, wasm_f32x4_convert_i32x4(x))
        BINARY(AND, wasm_v128_and(x, y))
        BINARY(OR, wasm_v128_or(x, y))
        BINARY(XOR, wasm_v128_xor(x, y))
        UNARY(NOT, wasm_v128_xor(x, wasm_i32x4_splat(1)))
      case WHERE:
        top -= 2 * TILE;
        ROLLED for (int j = 0; j < width; j += 4) {
          f32x4 yes = wasm_v128_load(top + TILE + j), no = wasm_v128_load(top + 2 * TILE + j);
          wasm_v128_store(top + j, select(is_true(wasm_v128_load(top + j)), yes, no));
        }
        break;
      }
    }
  }
}
