"""Linear algebra: the ``linalg`` extension of the Python array API, and ``norm`` as in NumPy.

Products, norms, ``cross``, ``diagonal``, ``trace`` and positive powers run on the device. Decompositions and what needs
them (:func:`inv`, :func:`solve`, :func:`det`, ...) are computed on the host, from values that are read for it: such a
call does not wait on the CPU device; elsewhere it needs a Python that can be suspended, else it raises ReadRequired. It
is refused inside of :func:`tensorcommons.compile`.
"""

from __future__ import annotations

from .ops.decompositions import (
    cholesky,
    det,
    eigh,
    eigvalsh,
    inv,
    matrix_rank,
    pinv,
    qr,
    slogdet,
    solve,
    svd,
    svdvals,
)
from .ops.linalg import (
    cross,
    diagonal,
    matrix_norm,
    matrix_power,
    norm,
    outer,
    tensordot,
    trace,
    vecdot,
    vector_norm,
)
from .ops.manipulation import matrix_transpose
from .ops.matmul import matmul

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "norm",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]
