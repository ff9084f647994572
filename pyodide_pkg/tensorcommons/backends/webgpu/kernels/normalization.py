"""Softmax, layer and RMS norm: short rows, and all on a software adapter, one an invocation, others one a workgroup."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from ...base import Step
from ..elements import Access, Buffer
from ..shader import Dispatch, source
from .common import Adapter, Kernel, rows_and_columns, spread

SHORT = 32  # columns; a workgroup a row pays above
KEPT = 8  # vectors of a row that an invocation keeps in registers
OUTCOMES = {
    "softmax": {"total": "$sum", "result": "$power / total"},
    "log_softmax": {"total": "op_log($sum)", "result": "$shifted - total"},
}


def _softmax(step: Step, adapter: Adapter) -> list[Dispatch]:
    return _rows("softmax", step, ("x",), 0.0, adapter, OUTCOMES[step.op.name])


def _layer_norm(step: Step, adapter: Adapter) -> list[Dispatch]:
    return _rows("layer_norm", step, ("x", "weight", "bias", "residual"), _eps(step), adapter)


def _rms_norm(step: Step, adapter: Adapter) -> list[Dispatch]:
    return _rows("rms_norm", step, ("x", "weight"), _eps(step), adapter)


def _eps(step: Step) -> float:
    eps = step.attrs["eps"]
    assert isinstance(eps, float)
    return eps


def _rows(
    name: str, step: Step, names: Sequence[str], eps: float, adapter: Adapter, outcome: Mapping[str, str] | None = None
) -> list[Dispatch]:
    """One dispatch over the rows of the first input; ``names`` are those of the inputs."""
    rows, columns = rows_and_columns(step.inputs[0])
    if rows * columns == 0:
        return []
    operands = dict(zip(names, step.inputs, strict=False))
    params = struct.pack("<2IfI", rows, columns, eps, 0)
    variables = dict(outcome or {})
    if adapter.fallback or columns <= SHORT:
        value = "load_x(start + {0})" + (" + load_residual(start + {0})" if "residual" in operands else "")
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
        return [Dispatch(f"normalization/{name}", variables, params, tuple(buffers), groups)]
    vectors = columns % 4 == 0
    terms = [_four(each, "row * p.columns + ", vectors) for each in operands if each in ("x", "residual")]
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
        "value": f"return {' + '.join(terms)};",
        "weight": f"return {_four('weight', '', vectors)};",
        "bias": f"return {_four('bias', '', vectors)};",
        "put": "store4_y((row * p.columns) / 4u + i, v);"
        if vectors
        else "for (var j = 0u; j < 4u && 4u * i + j < p.columns; j++) { store_y(row * p.columns + 4u * i + j, v[j]); }",
    }
    access: Access = "vectors" if vectors else "elements"
    reads = [Buffer(each, operand, access) for each, operand in operands.items()]
    result = Buffer("y", step.output, access, written=True)
    return [Dispatch(f"normalization/{name}_row", variables, params, (*reads, result), spread(rows, 1))]


def _four(name: str, start: str, vectors: bool) -> str:
    """Four neighbours of an operand, the last element again past the end of a row."""
    if vectors:
        return f"load4_{name}(({start}4u * i) / 4u)"
    return f"vec4<f32>({', '.join(f'load_{name}({start}min(4u * i + {j}u, p.columns - 1u))' for j in range(4))})"


KERNELS = [
    Kernel("softmax", _softmax),
    Kernel("log_softmax", _softmax),
    Kernel("layer_norm", _layer_norm),
    Kernel("rms_norm", _rms_norm),
]
