"""Kernels, which turn ops into dispatches: one module a family, named like its ``ops/`` file and ``shaders/`` folder.

``KERNELS`` maps an op's name to the :class:`Kernel` that plans are compiled with.
"""

from __future__ import annotations

from . import (
    append,
    attention,
    choosing,
    convolution,
    elementwise,
    few_queries,
    few_rows,
    indexing,
    int8_blocks,
    layout,
    matmul,
    normalization,
    paging,
    pooling,
    reduction,
    resize,
    rotary,
    sorting,
)
from .common import Adapter, Kernel

KERNELS: dict[str, Kernel] = {
    kernel.op: kernel
    for module in (
        *(elementwise, layout, matmul, few_rows, int8_blocks, reduction, normalization, attention, few_queries, append),
        *(paging, choosing, indexing, sorting, convolution, pooling, resize, rotary),
    )
    for kernel in module.KERNELS
}

__all__ = ["KERNELS", "Adapter", "Kernel"]
