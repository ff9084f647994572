"""Choices of tokens: ``likeliest.wgsl`` and ``sample.wgsl``, a workgroup a row, and ``repetition_penalty.wgsl``."""

from __future__ import annotations

import struct

from ...base import Step
from ..accessors import Access, Buffer
from ..shader import Dispatch, source
from .common import Adapter, Kernel, along_rows, rows_and_columns, spread

MOST_LANES = 1024
SHARED = 20  # bytes of workgroup memory that sample.wgsl takes for each lane
OTHERS = 96  # and beside that
LEVELS = 5  # histograms that a border may take
PENALTY_LANES = 128

VECTORS = "return load4_x((row * p.columns) / 4u + i);"
ELEMENTS = """let at = 4u * i + vec4<u32>(0u, 1u, 2u, 3u);
  let inside = at < vec4<u32>(p.columns);
  let from_here = row * p.columns + min(at, vec4<u32>(p.columns - 1u));
  let v = vec4<f32>(load_x(from_here.x), load_x(from_here.y), load_x(from_here.z), load_x(from_here.w));
  return select(vec4<f32>(-infinity()), v, inside);"""


def _choice(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, *settings = step.inputs
    rows, columns = rows_and_columns(x)
    if rows == 0:
        return []
    most = min(adapter.invocations, MOST_LANES, (adapter.storage - OTHERS) // SHARED)
    vectors = -(-columns // 4)
    bits = max(min(most.bit_length() - 1, (vectors - 1).bit_length()), 5)
    aligned = columns % 4 == 0
    access: Access = "vectors" if aligned else "elements"
    scores = source("choosing/scores").replace("$value", VECTORS if aligned else ELEMENTS)
    variables = {"lanes": str(2**bits), "bits": str(bits), "four": scores}
    buffers = [Buffer("x", x, access), *(Buffer("settings", each) for each in settings)]
    buffers.append(Buffer("y", step.output, written=True))
    passes = 3 + 2 * LEVELS if settings else 1
    loops = passes * (5 * -(-vectors // 2**bits) + 2 + 2 * bits)
    params = struct.pack("<2I8x", rows, columns)
    return [Dispatch(f"choosing/{step.op.name}", variables, params, tuple(buffers), spread(rows, 1), loops)]


def _penalty(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, tokens = step.inputs[:2]
    rows, columns = rows_and_columns(x)
    if rows * columns == 0:
        return []
    tile = 32 * PENALTY_LANES
    variables = {"lanes": str(PENALTY_LANES), "tile": str(tile)}
    params = struct.pack("<3I4x", rows, columns, tokens.shape[1])
    named = zip(("x", "tokens", "first", "end", "penalty"), step.inputs, strict=True)
    buffers = (*(Buffer(name, each) for name, each in named), Buffer("y", step.output, written=True))
    loops = tokens.shape[1] // PENALTY_LANES + 32 + 4
    groups = spread(rows * -(-columns // tile), 1)
    return [Dispatch("choosing/repetition_penalty", variables, params, buffers, groups, loops)]


KERNELS = [
    Kernel("likeliest", _choice, cut=along_rows),
    Kernel("sample", _choice, cut=along_rows),
    Kernel("repetition_penalty", _penalty),
]
