"""Rows of a table by number: ``embedding.wgsl``."""

from __future__ import annotations

import math
import struct

from ...base import Step
from ..elements import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, spread


def _embedding(step: Step, adapter: Adapter) -> list[Dispatch]:
    table, ids = step.inputs
    rows, columns = table.shape
    count = ids.layout.size
    if count * columns == 0:
        return []
    buffers = (
        Buffer("table", table),
        Buffer("ids", ids),
        Buffer("y", step.output, written=True),
    )
    params = struct.pack("<3If", count, columns, rows, math.nan)
    groups = spread(count * columns, adapter.workgroup)
    return [Dispatch("embedding/embedding", {"workgroup": str(adapter.workgroup)}, params, buffers, groups)]


KERNELS = [Kernel("embedding", _embedding)]
