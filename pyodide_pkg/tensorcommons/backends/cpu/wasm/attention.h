// Attention: the scores of a block of queries, their softmax, and the sums of values.

#pragma once

#include "products.h"
#include "softmax.h"

enum { BLOCK = 16 };           // queries whose scores are computed, normalized and used before the next ones

// Blocks `first` to `last` of the queries; blocks are numbered by batch, head and place in the sequence. An operand has
// the elements from one batch, head and row to the next. `scratch` has BLOCK rows for the scores.
struct Attention {
  int kernel, size, first, last, heads, group, queries, keys, width, value_width, causal;
  f32 scale;
  const f32 *q;
  int q_batch, q_head, q_row;
  const f32 *k;
  int k_batch, k_head, k_row;
  const f32 *v;
  int v_batch, v_head, v_row;
  f32 *out;
  int out_batch, out_head, out_row;
  enum Mask kind;
  const void *mask;
  int mask_batch, mask_head, mask_row;
  f32 *scratch;
};

KERNEL attention(const struct Attention *p) {
  Numbers c = numbers(p->scratch);
  f32 *scores = p->scratch + NUMBERS;
  int blocks = (p->queries + BLOCK - 1) / BLOCK, ld = (p->keys + 3) & ~3;
  for (int each = p->first; each < p->last; each++) {
    int start = each % blocks * BLOCK, head = each / blocks % p->heads, batch = each / blocks / p->heads;
    int count = p->queries - start < BLOCK ? p->queries - start : BLOCK;
    int keys = p->causal && start + count < p->keys ? start + count : p->keys;
    const f32 *q = p->q + batch * p->q_batch + head * p->q_head + start * p->q_row;
    const f32 *k = p->k + batch * p->k_batch + head / p->group * p->k_head;
    const f32 *v = p->v + batch * p->v_batch + head / p->group * p->v_head;
    f32 *out = p->out + batch * p->out_batch + head * p->out_head + start * p->out_row;
    int by = batch * p->mask_batch + head * p->mask_head + start * p->mask_row;
    dots(count, keys, p->width, q, p->q_row, k, p->k_row, scores, ld, 0, 0, 0, NONE, c);
    for (int i = 0; i < count; i++) {
      int hidden = p->causal && start + i + 1 < keys ? keys - start - i - 1 : 0, at = by + i * p->mask_row;
      f32 *s = scores + i * ld;
      if (p->kind == NO_MASK) softmax_masked(s, keys, hidden, p->scale, NO_MASK, 0, 0, c);
      if (p->kind == ADDED) softmax_masked(s, keys, hidden, p->scale, ADDED, (const f32 *)p->mask + at, 0, c);
      if (p->kind == ALLOWED) softmax_masked(s, keys, hidden, p->scale, ALLOWED, (const char *)p->mask + at, 0, c);
    }
    rows(count, p->value_width, keys, scores, ld, v, p->v_row, out, p->out_row, 0, 0, 0, NONE, c, 0);
  }
}
