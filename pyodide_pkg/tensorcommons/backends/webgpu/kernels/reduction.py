"""Reductions over any axes, ``reduction.wgsl``, and running sums and products, ``cumulative.wgsl``."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass

from ....shapes import Layout, part_length
from ...base import Attribute, Operand, Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, along_rows, float32, is_leading, merge_axes, rows_and_columns, spread, vectors

LANES = 256  # of a workgroup on hardware
MOST_LANES = 1024  # the same, of neighbours
NEIGHBOURS = 16  # results side by side, where that is what makes reads neighbours
BUSY = 2**18  # invocations that keep hardware busy

SHARED = "var<workgroup> shared_states: array<State, ${workgroup}>;"
GATHER = """let stride = select(1u, results, p.beside != 0u);
  shared_states[lane] = total;
  for (var half = p.lanes / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (place < half) {
      total = merge(total, shared_states[lane + half * stride]);
      shared_states[lane] = total;
    }
  }"""

# One element of a row whose axes do not merge to one, of one that has one stride, and four neighbours of one. The loop
# over axes takes a software adapter two and a half times as long as the second, nine times as long as the third.
TAKE_ANY = "run = take(run, load_x(u32(base + offset_of(8u, p.reduced_rank, j))), j);"
TAKE_ONE = "run = take(run, load_x(u32(base + i32(j) * p.strides[2].x)), j);"
# The first with the axes written out, where a loop over them for each element would take too many iterations.
TAKE_WRITTEN_OUT = "run = take(run, load_x(u32(base + offset_of_reduced(j))), j);"
TAKE_FOUR = """let four = load4_x(u32(base) / 4u + j);
        run = take(take(run, four.x, 4u * j), four.y, 4u * j + 1u);
        run = take(take(run, four.z, 4u * j + 2u), four.w, 4u * j + 3u);"""


@dataclass(frozen=True)
class State:
    """State of a reduction: WGSL expressions of ``s`` (a state), ``x`` (an element), ``j`` (its position)."""

    type: str
    start: str
    take: str
    merge: str
    finish: str = "s"


def _state(op: str, x: str, y: str) -> State:
    """The state of ``op`` for elements of WGSL type ``x`` and results of type ``y``."""
    nonzero = {"f32": "is_nonzero(x)", "bool": "x"}.get(x, f"x != {x}()")
    key = {"f32": "float_key(x)", "i32": "int_key(x)"}.get(x, "x")
    largest = {"f32": "-infinity()", "i32": "-2147483647i - 1i"}.get(x, "0u")
    smallest = {"f32": "infinity()", "i32": "2147483647i"}.get(x, "0xffffffffu")
    higher, lower = ("op_maximum", "op_minimum") if x == "f32" else ("max", "min")
    return {
        "sum": State(y, f"{y}()", f"s + {y}(x)", "a + b"),
        "prod": State(y, f"{y}(1)", f"s * {y}(x)", "a * b"),
        "mean": State("f32", "0f", "s + f32(x)", "a + b", "s * p.factor"),
        "max": State(x, largest, f"{higher}(s, x)", f"{higher}(a, b)"),
        "min": State(x, smallest, f"{lower}(s, x)", f"{lower}(a, b)"),
        "any": State("u32", "0u", f"s | u32({nonzero})", "a | b", "s != 0u"),
        "all": State("u32", "1u", f"s & u32({nonzero})", "a & b", "s != 0u"),
        "count_nonzero": State("i32", "0", f"s + i32({nonzero})", "a + b"),
        "var": State("vec3<f32>", "vec3<f32>()", "welford_take(s, x - shift)", "welford_merge(a, b)", "s.z * p.factor"),
        "logsumexp": State(
            "vec2<f32>",
            "vec2<f32>()",
            "exponents_merge(s, vec2<f32>(x, 1f))",
            "exponents_merge(a, b)",
            "select(s.x + op_log(s.y), -infinity(), s.y == 0f)",
        ),
        "argmax": State(
            "vec2<u32>",
            "vec2<u32>(0u, ~0u)",
            f"first_largest(s, vec2<u32>({key}, j))",
            "first_largest(a, b)",
            "i32(s.y)",
        ),
        "argmin": State(
            "vec2<u32>",
            "vec2<u32>(0u, ~0u)",
            f"first_largest(s, vec2<u32>({'select(~float_key(x), ~0u, is_nan(x))' if x == 'f32' else '~' + key}, j))",
            "first_largest(a, b)",
            "i32(s.y)",
        ),
    }[op]


OPS = (
    *("sum", "prod", "mean", "max", "min", "any", "all", "count_nonzero", "var", "logsumexp", "argmax", "argmin"),
)  # fmt: skip


def _power_of_two(limit: float) -> int:
    """The largest power of two that is no more than ``limit``, at least 1."""
    return int(2 ** math.floor(math.log2(max(limit, 1))))


def _lanes(results: int, elements: int, kept: Layout, reduced: Layout, adapter: Adapter) -> tuple[int, int, bool]:
    """Choose for hardware: invocations of a workgroup; how many of them share a result; and whether neighbours then
    work on neighbouring results.
    """
    beside = bool(kept.shape) and abs(kept.strides[-1]) < min((abs(s) for s in reduced.strides), default=0)
    wanted = _power_of_two(elements / 4)
    if not beside:
        return LANES, min(wanted, LANES), False
    side = _power_of_two(min(kept.shape[-1], NEIGHBOURS))
    lanes = min(wanted, min(adapter.invocations, MOST_LANES) // side, _power_of_two(BUSY / results))
    return max(lanes * side, LANES), lanes, True


def _factor(step: Step, reduced: int) -> float:
    if step.op.name == "mean":
        return 1 / reduced if reduced else math.nan
    if step.op.name == "var":
        correction = step.attrs["correction"]
        assert isinstance(correction, float)
        return 1 / (reduced - correction) if reduced > correction else math.inf if reduced else math.nan
    return 1.0


def _kept_and_reduced(x: Operand, axes: Collection[Attribute]) -> tuple[Layout, Layout]:
    """The axes of ``x`` that are kept, and those that are reduced."""

    def part(chosen: list[int]) -> Layout:
        layout = Layout(tuple(x.shape[a] for a in chosen), tuple(x.layout.strides[a] for a in chosen))
        return merge_axes([layout])[0]

    every = range(len(x.shape))
    return part([axis for axis in every if axis not in axes]), part([axis for axis in every if axis in axes])


def _reduce(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    axes, parts = step.attrs["axes"], step.attrs.get("parts", 1)
    assert isinstance(axes, tuple) and isinstance(parts, int)

    kept, reduced = _kept_and_reduced(x, axes)
    results, elements = kept.size * parts, part_length(reduced.size, parts)
    if results == 0:
        return []
    by_four = reduced.strides == (1,) and not any(
        number % 4 for number in (reduced.size, elements, x.layout.offset, *kept.strides)
    )
    width = 4 if by_four else 1
    workgroup, lanes, beside, alone = adapter.workgroup, 1, False, adapter.fallback
    rank = len(reduced.shape)
    loops = _loops(elements // width, 128 // width, rank)
    if not adapter.fallback:
        whole = (step.whole or step).inputs[0]  # of which a part has the same bits
        all_kept, _ = _kept_and_reduced(whole, axes)
        workgroup, lanes, beside = _lanes(all_kept.size * parts, elements, all_kept, reduced, adapter)
    elif loops > adapter.loops:  # many invocations a result, as on hardware
        workgroup = lanes = _power_of_two(min(adapter.invocations, MOST_LANES))
        alone = False
        loops = _loops(-(-elements // (width * lanes)), 128 // width, 0)
    params = struct.pack(
        "<4Iif4I8x",
        *(results, reduced.size // width, len(kept.shape), len(reduced.shape), x.layout.offset),
        *(float32(_factor(step, reduced.size)), parts, elements // width, lanes, beside),
    )
    params += vectors(kept.shape, 2, "I") + vectors(reduced.shape, 2, "I")
    params += vectors(kept.strides, 2, "i") + vectors(reduced.strides, 2, "i")
    state = _state(step.op.name, str(x.dtype.wgsl), str(step.output.dtype.wgsl))
    variables = {
        "workgroup": str(workgroup),
        "state": state.type,
        "start": state.start,
        "taken": state.take,
        "merge": state.merge,
        "finish": state.finish,
        "run": f"{128 // width}u",
        "take": TAKE_FOUR if by_four else TAKE_ONE if rank < 2 else TAKE_ANY if alone else TAKE_WRITTEN_OUT,
        "reduced_offset": "" if by_four or rank < 2 or alone else _written_out(rank),
        "prepare": "shift = load_x(u32(base));" if step.op.name == "var" else "",
        "shared": "" if alone else SHARED,
        "gather": "" if alone else GATHER,
    }
    buffers = (Buffer("x", x, "vectors" if by_four else "elements"), Buffer("y", step.output, written=True))
    groups = spread(results, workgroup // lanes)
    return [Dispatch("reduction/reduction", variables, params, buffers, groups, loops)]


def _loops(count: int, run: int, rank: int) -> int:
    """Iterations of an invocation that takes ``count`` elements in runs, each with a loop over ``rank`` axes."""
    return count * (1 + (rank + 1 if rank > 1 else 0)) + 2 * -(-count // run) + 32


def _written_out(rank: int) -> str:
    """``offset_of`` for the reduced axes, without a loop."""
    lines = []
    for axis in range(rank - 1, -1, -1):
        part = f"[{2 + axis // 4}].{'xyzw'[axis % 4]}"
        lines.append(f"at += i32(rest % p.shape{part}) * p.strides{part}; rest /= p.shape{part};")
    text = " ".join(lines)
    return f"fn offset_of_reduced(element: u32) -> i32 {{ var rest = element; var at = 0; {text} return at; }}"


SCANNED = 4  # neighbours of a row that a lane has at a time


# What the lanes before this one have in this tile, by doubling steps (Hillis and Steele, 1986).
SCAN = """for (var j = first; j < end; j++) { run = combined(run, value(x_row + j)); }
    shared_results[lane] = run;
    for (var step = 1u; step < lanes; step *= 2u) {
      workgroupBarrier();
      var more = $start;
      if (place >= step) { more = shared_results[lane - step]; }
      workgroupBarrier();
      run = combined(more, run);
      shared_results[lane] = run;
    }
    workgroupBarrier();
    let whole = shared_results[lane - place + lanes - 1u];
    workgroupBarrier();
    run = select($start, shared_results[max(lane, 1u) - 1u], place > 0u);"""


def _cumulative(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    rows, columns = rows_and_columns(x)
    if step.output.layout.size == 0:
        return []
    workgroup, lanes, block = adapter.workgroup, 1, 128
    alone = adapter.fallback
    loops = columns + 2 * -(-columns // block)
    if alone and loops > adapter.loops:
        alone = False
        loops = -(-columns // (SCANNED * LANES)) * (2 * SCANNED + 12)
    if not alone:
        workgroup, block = LANES, SCANNED
        lanes = min(1 << max(-(-columns // SCANNED) - 1, 0).bit_length(), LANES)
    y = str(step.output.dtype.wgsl)
    state = State(y, f"{y}(0)", "x", "a + b")
    if step.op.name == "cumulative_prod":
        state = State(y, f"{y}(1)", "x", "a * b")
    if step.op.name == "cumulative_prod" and y == "f32":
        state = State("vec2<f32>", "vec2<f32>(1f, 0f)", "scaled_of(x)", "scaled_product(a, b)", "unscaled(s)")
    variables = {
        "workgroup": str(workgroup),
        "lanes": str(lanes),
        "result": state.type,
        "start": state.start,
        "taken": state.take,
        "combination": state.merge,
        "number": state.finish,
        "shared": "" if alone else "var<workgroup> shared_results: array<Result, ${workgroup}>;",
        "before": "" if alone else SCAN,
        "carry": "carry = combined(carry, run);"
        if alone
        else "workgroupBarrier();\n    carry = combined(carry, whole);",
    }
    params = struct.pack("<4I", rows, columns, step.attrs["include_initial"], block)
    buffers = (Buffer("x", x), Buffer("y", step.output, written=True))
    groups = spread(rows, workgroup // lanes)
    return [Dispatch("reduction/cumulative", variables, params, buffers, groups, loops)]


def _cut(step: Step, axis: int) -> list[int | None] | None:
    """Along the axes that are kept, where the result is one range of its bytes."""
    (x,) = step.inputs
    axes = step.attrs["axes"]
    assert isinstance(axes, tuple)
    if step.attrs.get("parts", 1) != 1 or not is_leading(step, axis):
        return None
    if len(step.output.shape) == len(x.shape):
        return None if axis in axes else [axis]
    return [[a for a in range(len(x.shape)) if a not in axes][axis]]


KERNELS = [
    *(Kernel(name, _reduce, lambda position, layout: True, _cut) for name in OPS),
    Kernel("cumulative_sum", _cumulative, cut=along_rows),
    Kernel("cumulative_prod", _cumulative, cut=along_rows),
]
