// Formulas of elements.

#pragma once

#include "vectors.h"

enum { TILE = 256 }; // elements for which an operation of a formula is computed before the next one

// A formula of each element, a tile at a time: its operations in postfix order, over a stack of tiles in `scratch`.
// The result is contiguous, in rows of `n`; tiles `first` to `last` are computed, of which a row has as many as cover it.
// `words` are the sizes of the `axes` that rows are numbered by, the last one first; then the operands (address, elements
// from one column to the next, and along each of the axes); then the operations (code, argument).
enum Operation {
  LOAD, NUMBER, ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM,
  NEGATIVE, ABS, SQUARE, SQRT, RSQRT, RECIPROCAL, FLOOR, CEIL, TRUNC, ROUND,
  EXP, APPLY_RELU, APPLY_SIGMOID, APPLY_GELU, APPLY_TANH, SILU, GELU_TANH, ERF
};

struct Each {
  int kernel, size, first, last, n;
  f32 *out, *scratch;
  int axes, operands, operations;
  int words[];
};

#define UNARY(code, formula)                                                                                           \
  case code:                                                                                                           \
    ROLLED for (int j = 0; j < width; j += 4) {                                                                        \
      f32x4 x = wasm_v128_load(top + j);                                                                               \
      wasm_v128_store(top + j, formula);                                                                               \
    }                                                                                                                  \
    break;
#define BINARY(code, function)                                                                                         \
  case code:                                                                                                           \
    top -= TILE;                                                                                                       \
    ROLLED for (int j = 0; j < width; j += 4)                                                                          \
      wasm_v128_store(top + j, function(wasm_v128_load(top + j), wasm_v128_load(top + TILE + j)));                      \
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
      switch (at[0]) {
      case LOAD: {
        const int *operand = operands + (2 + p->axes) * at[1];
        const f32 *x = (const f32 *)operand[0] + start * operand[1];
        for (int axis = 0, left = row; axis < p->axes; left /= p->words[axis++])
          x += left % p->words[axis] * operand[2 + axis];
        top += TILE;
        if (operand[1])
          add_row(width, top, x, 1);
        else
          for (int j = 0; j < width; j += 4) wasm_v128_store(top + j, wasm_v128_load32_splat(x));
        break;
      }
      case NUMBER:
        top += TILE;
        for (int j = 0; j < width; j += 4) wasm_v128_store(top + j, wasm_i32x4_splat(at[1]));
        break;
        BINARY(ADD, wasm_f32x4_add)
        BINARY(SUBTRACT, wasm_f32x4_sub)
        BINARY(MULTIPLY, wasm_f32x4_mul)
        BINARY(DIVIDE, wasm_f32x4_div)
        BINARY(MAXIMUM, wasm_f32x4_max)
        BINARY(MINIMUM, wasm_f32x4_min)
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
      }
    }
    add_row(width, p->out + row * p->n + start, top, 1);
  }
}
