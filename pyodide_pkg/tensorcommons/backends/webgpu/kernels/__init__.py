"""Kernels, from an op to its dispatches: one module a family, with the stem of its ``ops/`` file and its ``shaders/``
folder.

``KERNELS`` maps an op's name to a :class:`Kernel`: the table that is asked when a plan is compiled.
"""

from __future__ import annotations

from . import (
    attention,
    convolution,
    elementwise,
    indexing,
    layout,
    matmul,
    normalization,
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
        *(elementwise, layout, matmul, reduction, normalization, attention),
        *(indexing, sorting, convolution, pooling, resize, rotary),
    )
    for kernel in module.KERNELS
}

__all__ = ["KERNELS", "Adapter", "Kernel"]
