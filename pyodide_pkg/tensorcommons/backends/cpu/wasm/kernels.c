// Kernels of the CPU device, which compute in float32, compiled to WebAssembly by scripts/kernels.py.
//
// `run` executes records: a kernel, the words of the record, and its arguments as the kernel's struct has them.
// record.py and its users write the records.
//
// The module imports the memory of Pyodide, so that pointers are addresses of NumPy's arrays. It has no data and no stack
// of its own, which would lie in that memory: the build fails if it does. Hence constants are immediates, arrays of
// vectors are unrolled into registers, and no address of a local variable is taken.

#include "attention.h"
#include "convolution.h"
#include "elementwise.h"
#include "halves.h"
#include "norms.h"
#include "paging.h"
#include "positions.h"
#include "products.h"
#include "quantized.h"
#include "reductions.h"
#include "softmax.h"

enum Kernel {
  PRODUCT, ATTENTION, NORM, TAKE, EACH, SOFTMAX, REDUCE, ROTARY, APPEND, CONVOLUTION, QUANTIZED, QUANTIZED_TAKE, PACK,
  HALF_PRODUCT, PAGED_APPEND, PAGED_ROWS, PAGED_MASK, PAGED_ATTENTION
};

EXPORT(run)
void run(const int *at, const int *end) {
  for (; at < end; at += at[1]) {
    const void *record = at;
    switch (at[0]) {
    case PRODUCT: product(record); break;
    case ATTENTION: attention(record); break;
    case NORM: norm(record); break;
    case TAKE: take(record); break;
    case EACH: each(record); break;
    case SOFTMAX: softmax(record); break;
    case REDUCE: reduce(record); break;
    case ROTARY: rotary(record); break;
    case APPEND: append(record); break;
    case CONVOLUTION: convolution(record); break;
    case QUANTIZED: quantized(record); break;
    case QUANTIZED_TAKE: quantized_take(record); break;
    case PACK: pack(record); break;
    case HALF_PRODUCT: half_product(record); break;
    case PAGED_APPEND: paged_append(record); break;
    case PAGED_ROWS: paged_rows(record); break;
    case PAGED_MASK: paged_mask(record); break;
    case PAGED_ATTENTION: paged_attention(record); break;
    }
  }
}
