"""A number in a computation: no bytes are kept for it, and an elementwise op takes it as a parameter of a dispatch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Op, Spec, per_element
from ..dtypes import DType
from ..errors import UnsupportedDtype
from .node import Node


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return Spec((), dtypes.as_dtype(attrs["dtype"]))


FULL = Op("full", _infer, lambda value, dtype: np.asarray(value, dtype), elementwise=True, operations=per_element(0))


def constant(value: float, dtype: DType) -> Node:
    """The scalar ``value`` in ``dtype``: a Python number takes the dtype of the array that it meets.

    Raises:
        UnsupportedDtype: the dtype cannot hold it: a fraction in an int, a number in a bool, or one out of range.
    """
    kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "float"
    if (kind == "float" and dtype.kind != "float") or (kind == "int" and dtype.kind == "bool"):
        raise UnsupportedDtype(
            f"the {kind} {value} does not go with {dtype}: cast the array, for example with astype(x, 'float32')"
        )
    if dtype.kind in ("int", "uint"):
        limits = np.iinfo(dtype.numpy)
        if not limits.min <= value <= limits.max:
            raise UnsupportedDtype(f"{value} is outside {dtype}, which goes from {limits.min} to {limits.max}")
    exact = bool(value) if dtype.kind == "bool" else float(value) if dtype.kind == "float" else int(value)
    return Node(FULL, {"value": exact, "dtype": dtype.name}, (), Spec((), dtype))
