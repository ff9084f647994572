"""Choices of tokens: ``likeliest.wgsl`` and ``sample.wgsl``, a workgroup a row, and ``repetition_penalty.wgsl``."""

from __future__ import annotations

import struct

from ...base import Step
from ..accessors import Access, Buffer
from ..shader import Dispatch, source
from .common import Adapter, Kernel, along_rows, rows_and_columns, spread

MOST_LANES = 1024
KEPT = 16  # most vectors of a row that a lane keeps in registers
AT_ONCE = 8  # vectors of a longer row that a lane reads before it uses the first
SHARED = 28  # bytes of workgroup memory that sample.wgsl takes for each lane
OTHERS = 96  # and beside that
LEVELS = 5  # histograms that a border may take
PENALTY_LANES = 256
SCORES_A_LANE = 4

VECTORS = "return load4_x((row * p.columns) / 4u + i);"
ELEMENTS = """let at = 4u * i + vec4<u32>(0u, 1u, 2u, 3u);
  let inside = at < vec4<u32>(p.columns);
  let place = row * p.columns + min(at, vec4<u32>(p.columns - 1u));
  let v = vec4<f32>(load_x(place.x), load_x(place.y), load_x(place.z), load_x(place.w));
  return select(vec4<f32>(-infinity()), v, inside);"""
READ = "for (var j = 0u; j < kept_vectors; j++) { kept[j] = four(row, min(first + j * lanes, vectors - 1u)); }"
EACH = "for (var first = lane; first < vectors; first += kept_vectors * lanes) {"
DECLARED = "var kept: array<vec4<f32>, kept_vectors>;"


def _choice(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, *settings = step.inputs
    rows, columns = rows_and_columns(x)
    if rows == 0:
        return []
    most = min(adapter.invocations, MOST_LANES, (adapter.storage - OTHERS) // SHARED)
    vectors = -(-columns // 4)
    bits = max(min(most.bit_length() - 1, (vectors - 1).bit_length()), 5)
    kept = -(-vectors // 2**bits)
    stays = kept <= KEPT
    aligned = columns % 4 == 0
    access: Access = "vectors" if aligned else "elements"
    variables = {
        "scores": source("choosing/scores").replace("$value", VECTORS if aligned else ELEMENTS),
        "lanes": str(2**bits),
        "bits": str(bits),
        "kept": str(kept if stays else AT_ONCE),
        "hold": f"{DECLARED}\n  {{ let first = lane; {READ} }}" if stays else DECLARED,
        "each": "{ let first = lane;" if stays else f"{EACH}\n    {READ}",
    }
    buffers = [Buffer("x", x, access), *(Buffer("settings", each) for each in settings)]
    buffers.append(Buffer("y", step.output, written=True))
    passes = 3 + 2 * LEVELS if settings else 1
    loops = passes * (7 * max(kept, AT_ONCE) + 2 * bits) + 8 * kept
    params = struct.pack("<2I8x", rows, columns)
    return [Dispatch(f"choosing/{step.op.name}", variables, params, tuple(buffers), spread(rows, 1), loops)]


def _penalty(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, tokens = step.inputs[:2]
    rows, columns = rows_and_columns(x)
    if rows * columns == 0:
        return []
    tile = SCORES_A_LANE * PENALTY_LANES
    variables = {"lanes": str(PENALTY_LANES), "each": f"{SCORES_A_LANE}u"}
    params = struct.pack("<4I", rows, columns, tokens.shape[1], int(step.inputs[3].shape[0] > 1))
    named = zip(("x", "tokens", "first", "end", "penalty"), step.inputs, strict=True)
    buffers = (*(Buffer(name, each) for name, each in named), Buffer("y", step.output, written=True))
    loops = tokens.shape[1] // PENALTY_LANES + 8
    groups = spread(rows * -(-columns // tile), 1)
    return [Dispatch("choosing/repetition_penalty", variables, params, buffers, groups, loops)]


KERNELS = [
    Kernel("likeliest", _choice, cut=along_rows),
    Kernel("sample", _choice, cut=along_rows),
    Kernel("repetition_penalty", _penalty),
]
