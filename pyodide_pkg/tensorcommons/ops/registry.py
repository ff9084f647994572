"""Define ops and apply them to tensors: ``apply`` adds a node to the graph.

An op is defined once, in the file of its family: a shape rule, a reference implementation in NumPy, and for views a
layout rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.base import Attribute, Attributes, Cost, Op, Spec
from ..backends.ops import OPS, register
from ..errors import DeviceMismatch, MemoryBudgetError
from ..graph.node import Node
from ..shapes import Layout
from ..tensor import Tensor, TensorLike, as_tensor

__all__ = ["LARGEST", "OPS", "apply", "as_float32", "check_size", "define", "register", "written_copy"]

LARGEST = 2**32  # bytes of a value: the address space of WebAssembly, and more than any WebGPU or WebNN buffer


def define(
    name: str,
    infer: Callable[[Sequence[Spec], Attributes], Spec],
    reference: Callable[..., Any],
    view: Callable[[Layout, Attributes], Layout | None] | None = None,
    memory_order: tuple[int, ...] | None = None,
    elementwise: bool = False,
    in_place: Callable[..., None] | None = None,
    epilogue: bool = False,
    takes_epilogue: bool = False,
    **cost: Cost,
) -> Op:
    """Register an op. Each name can be defined once. ``cost`` are the cost fields of :class:`Op`."""
    return register(
        Op(name, infer, reference, view, memory_order, elementwise, in_place, epilogue, takes_epilogue, **cost)
    )


def apply(op: Op, *inputs: TensorLike, **attrs: Attribute) -> Tensor:
    """Apply ``op`` and return its result as a tensor, which is computed when it is read.

    Raises:
        ShapeMismatch, UnsupportedDtype: the op does not accept the inputs; the graph is unchanged.
        DeviceMismatch: the inputs are on different devices.
        MemoryBudgetError: the result is larger than :data:`LARGEST`.
    """
    tensors = [as_tensor(value, like=inputs) for value in inputs]
    spec = op.infer([tensor.spec for tensor in tensors], attrs)
    if op.view is None:
        check_size(op.name, spec)
    devices = {tensor.own_device for tensor in tensors if tensor.own_device is not None}
    if len(devices) > 1:
        raise DeviceMismatch(op.name, devices)
    return Tensor.symbolic(Node(op, attrs, tuple(tensor.node for tensor in tensors), spec), next(iter(devices), None))


def written_copy(in_place: Callable[..., None]) -> Callable[..., Any]:
    """Return the reference of an op that writes elements ``in_place``."""

    def reference(first: Any, *others: Any, **attrs: Any) -> Any:
        result = np.array(first)
        in_place(result, *others, **attrs)
        return result

    return reference


def check_size(what: str, spec: Spec) -> None:
    """Raise MemoryBudgetError for a value that is larger than :data:`LARGEST`."""
    if spec.nbytes > LARGEST:
        remedy = f"{what} to {spec.shape} of {spec.dtype} must be smaller"
        raise MemoryBudgetError(spec.nbytes, LARGEST, [], remedy if len(remedy) < 200 else f"{what} must be smaller")


def as_float32(array: Any) -> Any:
    """Convert ``array`` to float32, in which devices compute, too."""
    return np.asarray(array, np.float32)
