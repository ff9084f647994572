"""List the ops and dtypes that WebNN cannot run, by lowering the samples under the limits of a WebNN context.

docs/ops.md (scripts/ops_table.py) uses the limits of the test browser, the page those of its own browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .backends.device import Device
from .backends.webnn.builder import GraphBuilder
from .backends.webnn.lowering import lower_supported
from .errors import UnsupportedDtype
from .graph.computation import make_computation
from .graph.fuse import fuse
from .graph.graph import Graph
from .samples import DTYPES, SAMPLES
from .tensor import Tensor, asarray


def reasons(result: Tensor, limits: Mapping[str, Any], *, wide_halves: bool) -> list[str]:
    """List the reasons why WebNN cannot compute ``result``.

    With ``wide_halves`` the context computes float16 in float32, as on a CPU.
    """
    computation = make_computation(fuse(Graph([result.node]))).plan
    with np.errstate(over="ignore"):  # a constant that float16 cannot hold becomes infinite
        return sorted(set((lower_supported(computation, GraphBuilder(limits, wide_halves)).why or {}).values()))


def refused(limits: Mapping[str, Any], device: Device, *, wide_halves: bool) -> dict[str, dict[str, list[str]]]:
    """Return ``{reason: {op: [dtypes]}}`` over all samples, which are made on the NumPy ``device`` and not computed."""
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
