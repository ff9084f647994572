"""Softmax, layer and RMS norm: short rows, and all on a software adapter, one an invocation, others one a workgroup."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from ...base import Operand, Step
from ..accessors import Access, Buffer
from ..shader import Dispatch, source
from .common import Adapter, Kernel, along_rows, float32, rows_and_columns, spread

NAN = 0x7FC00000
SHORT = 32  # columns; a workgroup a row pays above
KEPT = 8  # vectors of a row that an invocation keeps in registers
OUTCOMES = {
    "softmax": {"total": "$sum", "result": "$power / total"},
    "log_softmax": {"total": "op_log($sum)", "result": "$shifted - total"},
}


TAKEN = """fn row_{n}(row: u32) -> i32 {{
  let take = p.takes[{take}];
  let id = load_ids{n}(u32(take.w) + row * u32(take.z));
  let place = select(id, id + take.x, id < 0 && take.y != 0);
  return select(-1, place, place >= 0 && place < take.x);
}}
"""
ONE_TAKEN = """fn one_{n}(row: u32, j: u32) -> f32 {{
  let place = row_{n}(row);
  if (place < 0) {{ return bitcast<f32>(p.nothing); }}
  let start = u32(place) * p.columns;
  return load_table{n}(start + j);
}}
"""
FOUR_TAKEN = """fn four_{n}(row: u32, i: u32) -> vec4<f32> {{
  let place = row_{n}(row);
  if (place < 0) {{ return vec4<f32>(bitcast<f32>(p.nothing)); }}
  let start = u32(place) * p.columns;
  return {four};
}}
"""


def _softmax(step: Step, adapter: Adapter) -> list[Dispatch]:
    return _rows("softmax", step, dict(zip("x", step.inputs, strict=True)), 0.0, adapter, OUTCOMES[step.op.name])


def _layer_norm(step: Step, adapter: Adapter) -> list[Dispatch]:
    operands = dict(zip(("x", "weight", "bias", "residual"), step.inputs, strict=False))
    return _rows("layer_norm", step, operands, _eps(step), adapter, {"functions": "", "more": ""})


def _rms_norm(step: Step, adapter: Adapter) -> list[Dispatch]:
    return _rows("rms_norm", step, dict(zip(("x", "weight"), step.inputs, strict=True)), _eps(step), adapter)


def _sum_norm(step: Step, adapter: Adapter) -> list[Dispatch]:
    """:func:`_layer_norm` of a sum whose terms are read where they lie; see graph/embedding_norm.py."""
    _, columns = rows_and_columns(step.output)
    rest, terms = list(step.inputs), step.attrs["terms"]
    assert isinstance(terms, tuple)
    operands: dict[str, Operand] = {}
    ones, fours, functions, takes, period = [], [], "", b"", 1
    for n, term in enumerate(terms):
        assert isinstance(term, tuple)
        kind, wraps = term
        first = rest.pop(0)
        if kind == "taken":
            operands |= {f"ids{n}": first, f"table{n}": rest.pop(0)}
            functions += TAKEN.format(n=n, take=len(takes) // 16)
            if _in_scalars(columns, adapter):
                functions += ONE_TAKEN.format(n=n)
            else:
                functions += FOUR_TAKEN.format(n=n, four=_four(f"table{n}", "start + ", columns % 4 == 0))
            layout = first.layout
            takes += struct.pack("<4i", operands[f"table{n}"].shape[0], bool(wraps), layout.strides[0], layout.offset)
            ones.append(f"one_{n}(row, {{0}})")
            fours.append(f"four_{n}(row, i)")
        elif kind == "parts":
            operands[f"x{n}"] = first
            starts = [f"(row + {part}u * p.rows) * p.columns + " for part in range(first.shape[0])]
            ones += [f"load_x{n}({start}{{0}})" for start in starts]
            fours += [_four(f"x{n}", start, columns % 4 == 0) for start in starts]
        else:
            operands[f"x{n}"] = first
            row = "row" if kind == "whole" else "row % p.period"
            period = period if kind == "whole" else rows_and_columns(first)[0]
            ones.append(f"load_x{n}(({row}) * p.columns + {{0}})")
            fours.append(_four(f"x{n}", f"({row}) * p.columns + ", columns % 4 == 0))
    operands["weight"], operands["bias"] = rest
    more = "nothing: u32,\n  period: u32,\n  "
    more += f"takes: array<vec4<i32>, {len(takes) // 16}>," if takes else ""
    params = struct.pack("<2I12x", NAN, period) + takes
    outcome = {"functions": functions, "more": more}
    return _rows("layer_norm", step, operands, _eps(step), adapter, outcome, (ones, fours), params)


def _eps(step: Step) -> float:
    eps = step.attrs["eps"]
    assert isinstance(eps, float)
    return float32(eps)


def _in_scalars(columns: int, adapter: Adapter) -> bool:
    """Return whether one invocation takes a row, element by element."""
    return columns <= SHORT or (adapter.fallback and _loops(columns) <= adapter.loops)


def _loops(count: int) -> int:
    """Iterations of the kernels that go three times through ``count`` elements, in runs of 128."""
    return 3 * count + 4 * -(-count // 128) + 64


def _rows(
    name: str,
    step: Step,
    operands: Mapping[str, Operand],
    eps: float,
    adapter: Adapter,
    outcome: Mapping[str, str] | None = None,
    values: tuple[Sequence[str], Sequence[str]] | None = None,
    more: bytes = bytes(4),
) -> list[Dispatch]:
    """One dispatch over the rows of the result.

    What is normalised is the sum of ``values``: of one element and of four, x and the residual unless they are given.
    ``more`` are parameters of theirs.
    """
    rows, columns = rows_and_columns(step.output)
    if rows * columns == 0:
        return []
    summed = [each for each in operands if each in ("x", "residual")]
    ones, fours = values or (
        [f"load_{each}(start + {{0}})" for each in summed],
        [_four(each, "row * p.columns + ", columns % 4 == 0) for each in summed],
    )
    params = struct.pack("<2If", rows, columns, eps) + more
    variables = dict(outcome or {})
    if _in_scalars(columns, adapter):
        value = " + ".join(ones)
        # The first pass leaves its values in y for the next ones, but for float16, where they would lose digits.
        keeps = step.output.dtype.lanes == 1 and step.op.name != "log_softmax"
        variables |= {
            "workgroup": str(adapter.workgroup),
            "value": f"({value.format('j')})",
            "first": value.format("0u"),
            "keep": "store_y(start + j, v);" if keeps else "",
            "again": "load_y(start + j)" if keeps else "($value - shift)",
            "sum": "sum",
            "power": "load_y(start + j)" if keeps else "op_exp($value - largest)",
            "shifted": "($value - largest)",
        }
        buffers = [Buffer(each, operand) for each, operand in operands.items()]
        buffers.append(Buffer("y", step.output, written=True))
        groups = spread(rows, adapter.workgroup)
        return [Dispatch(f"normalization/{name}", variables, params, tuple(buffers), groups, _loops(columns))]
    vectors = columns % 4 == 0
    count = -(-columns // 4)
    lanes = next((lanes for lanes in (32, 64, 128, 256) if count <= KEPT * lanes), min(adapter.invocations, 1024))
    kept = -(-count // lanes)
    again = "value_of(row, i)" if kept > KEPT else "kept[j]"
    keep = f"""var kept: array<vec4<f32>, {kept}>;
  for (var j = 0u; j < steps; j++) {{
    let i = lane + j * lanes;
    if (i < count) {{ kept[j] = value_of(row, i); }}
  }}"""
    variables |= {
        "rows": source("normalization/rows"),
        "lanes": str(lanes),
        "kept": str(kept),
        "steps": "let steps = (count + lanes - 1u) / lanes;" if kept > KEPT else f"const steps = {kept}u;",
        "keep": "" if kept > KEPT else keep,
        "again": again,
        "sum": "sum_over_all",
        "power": f"power({again} - top, i)",
        "shifted": f"({again} - top)",
        "value": f"return {' + '.join(fours)};",
        "weight": f"return {_four('weight', '', vectors)};",
        "bias": f"return {_four('bias', '', vectors)};",
        "put": "store4_y((row * p.columns) / 4u + i, v);"
        if vectors
        else "for (var j = 0u; j < 4u && 4u * i + j < p.columns; j++) { store_y(row * p.columns + 4u * i + j, v[j]); }",
    }
    access: Access = "vectors" if vectors else "elements"
    reads = [
        Buffer(each, operand, "elements" if each.startswith("ids") else access) for each, operand in operands.items()
    ]
    result = Buffer("y", step.output, access, written=True)
    loops = (4 if vectors else 9) * kept + 64 if adapter.fallback else 0  # a loop of four stores an element each
    return [Dispatch(f"normalization/{name}_row", variables, params, (*reads, result), spread(rows, 1), loops)]


def _four(name: str, start: str, vectors: bool) -> str:
    """Four neighbours of an operand, the last element again past the end of a row."""
    if vectors:
        return f"load4_{name}(({start}4u * i) / 4u)"
    return f"vec4<f32>({', '.join(f'load_{name}({start}min(4u * i + {j}u, p.columns - 1u))' for j in range(4))})"


KERNELS = [
    Kernel("softmax", _softmax, cut=along_rows),
    Kernel("log_softmax", _softmax, cut=along_rows),
    Kernel("layer_norm", _layer_norm, cut=along_rows),
    Kernel("sum_norm", _sum_norm, lambda position, layout: len(layout.shape) == 2 and layout.strides[1] == 0),
    Kernel("rms_norm", _rms_norm, cut=along_rows),
]
