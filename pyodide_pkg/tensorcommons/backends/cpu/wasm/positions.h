// Rotary position embedding, and rows appended to a cache of keys and values.

#pragma once

#include "vectors.h"

// Rotations of rows of `n` elements, by the rows of `cos` and `sin` that `positions` select, or by the numbers of the rows
// along the last axis. The first `half` elements form pairs with the next ones, or each with its neighbour. `words` are the
// sizes of the `axes` that rows are numbered by, the last one first; then the elements along each of them from one row to the
// next of x, the result and the positions. A position without a row gives NaN.
struct Rotary {
  int kernel, size, first, last, n, half, interleaved, rows;
  f32 *out;
  const f32 *x, *cos, *sin;
  const int *positions;
  int axes;
  int words[];
};

INLINE void rotate_halves(int half, const f32 *x, f32 *out, const f32 *cos, const f32 *sin) {
  int j = 0;
  for (; j + 4 <= half; j += 4) {
    f32x4 a = wasm_v128_load(x + j), b = wasm_v128_load(x + half + j);
    f32x4 c = wasm_v128_load(cos + j), s = wasm_v128_load(sin + j);
    wasm_v128_store(out + j, wasm_f32x4_sub(wasm_f32x4_mul(a, c), wasm_f32x4_mul(b, s)));
    wasm_v128_store(out + half + j, wasm_f32x4_add(wasm_f32x4_mul(b, c), wasm_f32x4_mul(a, s)));
  }
  ROLLED for (; j < half; j++) {
    f32 a = x[j], b = x[half + j];
    out[j] = a * cos[j] - b * sin[j];
    out[half + j] = b * cos[j] + a * sin[j];
  }
}

INLINE void rotate_neighbours(int half, const f32 *x, f32 *out, const f32 *cos, const f32 *sin) {
  ROLLED for (int j = 0; j < half; j++) {
    f32 a = x[2 * j], b = x[2 * j + 1];
    out[2 * j] = a * cos[j] - b * sin[j];
    out[2 * j + 1] = b * cos[j] + a * sin[j];
  }
}

KERNEL rotary(const struct Rotary *p) {
  int half = p->half;
  const int *sizes = p->words, *strides = sizes + p->axes;
  for (int row = p->first; row < p->last; row++) {
    const f32 *x = p->x;
    f32 *out = p->out;
    int at = p->positions ? 0 : row % sizes[0], place = 0;
    for (int axis = 0, left = row; axis < p->axes; left /= sizes[axis++]) {
      int i = left % sizes[axis];
      x += i * strides[axis], out += i * strides[p->axes + axis], place += i * strides[2 * p->axes + axis];
    }
    if (p->positions) at = p->positions[place];
    if (at < 0 || at >= p->rows)
      add_row(2 * half, out, 0, 1);
    else if (p->interleaved)
      rotate_neighbours(half, x, out, p->cos + at * half, p->sin + at * half);
    else
      rotate_halves(half, x, out, p->cos + at * half, p->sin + at * half);
    add_row(p->n - 2 * half, out + 2 * half, x + 2 * half, 1);
  }
}

// Rows `first` to `last` of an update, of `n` elements of 4 bytes, written to a cache of `capacity` rows at the position of
// their batch. Rows outside of it are left out.
struct Append {
  int kernel, size, first, last, n, heads, length, capacity;
  f32 *out;
  int out_batch, out_head, out_row;
  const f32 *update;
  int batch, head, row;
  const int *positions;
  int step;
};

KERNEL append(const struct Append *p) {
  for (int each = p->first; each < p->last; each++) {
    int row = each % p->length, head = each / p->length % p->heads, batch = each / p->length / p->heads;
    int at = p->positions[batch * p->step] + row;
    if (at >= 0 && at < p->capacity)
      add_row(p->n, p->out + batch * p->out_batch + head * p->out_head + at * p->out_row,
              p->update + batch * p->batch + head * p->head + row * p->row, 1);
  }
}
