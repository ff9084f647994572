"""Softmax and layer norm, a row an invocation: ``softmax.wgsl`` and ``layer_norm.wgsl``."""

from __future__ import annotations

import struct

from ...base import Step
from ..elements import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, rows_and_columns, spread


def _softmax(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    rows, columns = rows_and_columns(x)
    if rows * columns == 0:
        return []
    buffers = (Buffer("x", x), Buffer("y", step.output, written=True))
    params = struct.pack("<4I", rows, columns, 0, 0)
    variables = {"workgroup": str(adapter.workgroup)}
    return [Dispatch("normalization/softmax", variables, params, buffers, spread(rows, adapter.workgroup))]


def _layer_norm(step: Step, adapter: Adapter) -> list[Dispatch]:
    rows, columns = rows_and_columns(step.inputs[0])
    eps = step.attrs["eps"]
    assert isinstance(eps, float)
    if rows * columns == 0:
        return []
    names = ("x", "weight", "bias", "residual")
    buffers = [Buffer(name, operand) for name, operand in zip(names, step.inputs, strict=False)]
    buffers.append(Buffer("y", step.output, written=True))
    value = "load_x(start + {0})" + (" + load_residual(start + {0})" if len(step.inputs) == 4 else "")
    variables = {
        "workgroup": str(adapter.workgroup),
        "value": f"({value.format('j')})",
        "first": value.format("0u"),
    }
    params = struct.pack("<2IfI", rows, columns, eps, 0)
    return [Dispatch("normalization/layer_norm", variables, params, tuple(buffers), spread(rows, adapter.workgroup))]


KERNELS = [Kernel("softmax", _softmax), Kernel("layer_norm", _layer_norm)]
