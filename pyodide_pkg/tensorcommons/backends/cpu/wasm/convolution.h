// Convolution of images by patches: the elements that a group of results needs lie in a row each, and are multiplied by
// the weights.

#pragma once

#include "products.h"

enum { POSITIONS = 64 }; // results of each channel that are computed before the next ones

// Results of `groups` groups of `outputs` channels, by `channels` channels of x. Of a channel they form a grid of `height`
// by `width`, `first` to `last` are those that are computed, numbered by batch, group and block of POSITIONS. A tap reads x
// at `place * stride + offset` of the result's place in the grid. `weights` are `outputs` rows of `channels` times `taps`
// elements for each group, copied to scratch memory unless they lie so already. Layouts are in elements.
struct Convolution {
  int kernel, size, first, last, groups, outputs, channels, height, width;
  const f32 *x;
  int x_batch, x_channel, x_row, x_column, rows, columns, row_stride, column_stride;
  f32 *out;
  int out_batch, out_channel, out_row, out_column;
  const f32 *weights;
  int w_output, w_channel, is_packed;
  const f32 *bias;
  int bias_step;
  f32 *scratch;
  int taps;
  int tap[][3]; // the offsets along both axes, and the elements to its weight
};

KERNEL pack_weights(const struct Convolution *p, const f32 *w, f32 *out) {
  for (int o = 0; o < p->outputs; o++)
    for (int c = 0; c < p->channels; c++)
      ROLLED for (int t = 0; t < p->taps; t++) *out++ = w[o * p->w_output + c * p->w_channel + p->tap[t][2]];
}

KERNEL fill_patches(const struct Convolution *p, const f32 *x, int start, int count, f32 *out) {
  int depth = p->channels * p->taps;
  for (int i = 0; i < count; i++, out += depth) {
    int y = (start + i) / p->width * p->row_stride, z = (start + i) % p->width * p->column_stride;
    for (int t = 0; t < p->taps; t++) {
      int row = y + p->tap[t][0], column = z + p->tap[t][1];
      f32 *to = out + t;
      if (row < 0 || row >= p->rows || column < 0 || column >= p->columns) {
        ROLLED for (int c = 0; c < p->channels; c++, to += p->taps) *to = 0;
      } else {
        const f32 *from = x + row * p->x_row + column * p->x_column;
        ROLLED for (int c = 0; c < p->channels; c++, to += p->taps, from += p->x_channel) *to = *from;
      }
    }
  }
}

KERNEL convolution(const struct Convolution *p) {
  int places = p->height * p->width, blocks = (places + POSITIONS - 1) / POSITIONS, depth = p->channels * p->taps;
  Numbers c = numbers(p->scratch);
  f32 *patches = p->scratch + NUMBERS, *results = patches + POSITIONS * depth, *packed = results + POSITIONS * p->outputs;
  int ready = -1;
  for (int each = p->first; each < p->last; each++) {
    int start = each % blocks * POSITIONS, group = each / blocks % p->groups, batch = each / blocks / p->groups;
    int count = places - start < POSITIONS ? places - start : POSITIONS;
    const f32 *w = p->weights + group * p->outputs * p->w_output;
    if (!p->is_packed) {
      if (ready != group) pack_weights(p, w, packed);
      ready = group, w = packed;
    }
    fill_patches(p, p->x + batch * p->x_batch + group * p->channels * p->x_channel, start, count, patches);
    dots(p->outputs, count, depth, w, depth, patches, depth, results, POSITIONS, 0, 0, 0, NONE, c);
    for (int o = 0; o < p->outputs; o++) {
      int channel = group * p->outputs + o;
      f32 bias = p->bias ? p->bias[channel * p->bias_step] : 0, *from = results + o * POSITIONS;
      f32 *out = p->out + batch * p->out_batch + channel * p->out_channel;
      ROLLED for (int i = 0; i < count; i++) {
        int place = start + i;
        out[place / p->width * p->out_row + place % p->width * p->out_column] = from[i] + bias;
      }
    }
  }
}
