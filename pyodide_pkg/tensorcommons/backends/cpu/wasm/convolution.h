// Convolution of images by patches: the elements that a group of results needs lie in a row each, and are multiplied by
// the weights.

#pragma once

#include "products.h"

enum { POSITIONS = 64 }; // results of each channel that are computed before the next ones

// Results of `groups` groups of `outputs` channels, by `channels` channels of x. Of a channel they form a grid of `height`
// by `width`, `first` to `last` are those that are computed, numbered by batch, group and block of POSITIONS. A tap reads x
// at `place * stride + offset` of the result's place in the grid. `weights` are `outputs` rows of `channels` times `taps`
// elements for each group. Layouts are in elements.
struct Convolution {
  int kernel, size, first, last, groups, outputs, channels, height, width;
  const f32 *x;
  int x_batch, x_channel, x_row, x_column, rows, columns, row_stride, column_stride;
  f32 *out;
  int out_batch, out_channel, out_row, out_column;
  const f32 *weights, *bias;
  int bias_step;
  f32 *scratch;
  int taps;
  int tap[][2]; // the offsets along both axes
};

// Weights as `convolution` reads them, of which a row begins each `row` elements.
struct Pack {
  int kernel, size, first, last, channels;
  f32 *out;
  const f32 *weights;
  int row, channel, taps;
  int tap[]; // the elements to its weight
};

KERNEL pack(const struct Pack *p) {
  f32 *out = p->out + p->first * p->channels * p->taps;
  for (int i = p->first; i < p->last; i++)
    for (int c = 0; c < p->channels; c++)
      ROLLED for (int t = 0; t < p->taps; t++) *out++ = p->weights[i * p->row + c * p->channel + p->tap[t]];
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
  f32 *patches = p->scratch + NUMBERS, *results = patches + POSITIONS * depth;
  for (int each = p->first; each < p->last; each++) {
    int start = each % blocks * POSITIONS, group = each / blocks % p->groups, batch = each / blocks / p->groups;
    int count = places - start < POSITIONS ? places - start : POSITIONS;
    const f32 *w = p->weights + group * p->outputs * depth;
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
