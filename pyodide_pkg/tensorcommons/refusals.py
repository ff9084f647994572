"""Refusals of WebNN by op and dtype: the samples lowered by the rules, under what a context's limits say.

For docs/ops.md (scripts/ops_table.py) with the limits of the tests' browser, and for the page with those of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .backends.device import Device
from .backends.webnn.builder import GraphBuilder
from .backends.webnn.lowering import refusals
from .errors import UnsupportedDtype
from .graph.computation import make_computation
from .graph.fuse import fuse
from .graph.graph import Graph
from .samples import DTYPES, SAMPLES
from .tensor import Tensor, asarray


def reasons(result: Tensor, limits: Mapping[str, Any], *, wide_halves: bool) -> list[str]:
    """List what WebNN refuses of ``result``; ``wide_halves``: it computes float16 in float32, as on a CPU."""
    computation = make_computation(fuse(Graph([result.node]))).plan
    with np.errstate(over="ignore"):  # a constant that float16 cannot hold becomes infinite
        return sorted(set(refusals(computation, GraphBuilder(limits, wide_halves)).values()))


def refused(limits: Mapping[str, Any], device: Device, *, wide_halves: bool) -> dict[str, dict[str, list[str]]]:
    """Reason: {op: [dtypes]}, of all samples. They are made on ``device`` (NumPy's) and never computed."""
    found: dict[str, dict[str, list[str]]] = {}
    rng = np.random.default_rng(0)
    for sample in sorted(SAMPLES, key=lambda sample: sample.op):
        for dtype in DTYPES:
            try:
                operands = sample.operands(rng, dtype, sample.shapes[0])
                result = sample.call(*(asarray(operand, device=device) for operand in operands))
            except UnsupportedDtype:
                continue
            for reason in reasons(result, limits, wide_halves=wide_halves):
                dtypes = found.setdefault(reason, {}).setdefault(sample.op, [])
                if dtype not in dtypes:
                    dtypes.append(dtype)
    return found
