"""Products by kernels of WebAssembly (kernels.c) on the memory of NumPy's arrays.

They compute float32 products with an epilogue. Everything else, and everything under CPython, is computed by the op's
NumPy meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import numpy as np

from ...bridge.wasm import instantiate
from ...errors import DeviceUnavailable
from ..base import Operand, Step

Array: TypeAlias = "np.ndarray[Any, Any]"
Kernel: TypeAlias = "Callable[[Step, Array, Sequence[Array]], None]"  # writes the output of a step from its inputs

ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2, "gelu": 3, "tanh": 4}  # as in kernels.c
MODULES = {"relaxed": "WebAssembly with relaxed SIMD", "plain": "WebAssembly with SIMD"}


@cache
def loaded() -> tuple[Any, str]:
    """Return the kernels and what they are in words, or None and why there are none. They are loaded once."""
    files = [resources.files(__package__).joinpath(f"{name}.wasm") for name in MODULES]
    try:
        number, exports = instantiate([file.read_bytes() for file in files if file.is_file()])
    except DeviceUnavailable as error:
        return None, str(error)
    return exports, list(MODULES.values())[number]


def kernel_of(step: Step) -> Kernel | None:
    """Return the kernel that computes ``step``, or None where NumPy does."""
    operands = (*step.inputs, step.output)
    if any(each.dtype.name != "float32" for each in operands) or loaded()[0] is None:
        return None
    kernel = KERNELS.get(step.op.name)
    if kernel is None or not _has_rows(step.output) or step.attrs.get("activation") not in ACTIVATIONS:
        return None
    return kernel


def _has_rows(operand: Operand) -> bool:
    """Return whether the elements of the last axis are contiguous."""
    return operand.layout.strides[-1] == 1 or operand.shape[-1] == 1


def _linear(step: Step, output: Array, inputs: Sequence[Array]) -> None:
    x, weight, *more = inputs
    after = [more.pop()] if step.attrs["residual"] else []
    bias = np.ascontiguousarray(more[0]) if more else None
    activation = step.attrs["activation"]
    assert activation is None or isinstance(activation, str)
    _product(x, weight.T, output, bias, after[0] if after else None, ACTIVATIONS[activation])


def _linears(step: Step, output: Array, inputs: Sequence[Array]) -> None:
    """Compute products of one value by several weights, each with the bits of ``_linear``."""
    x, count = inputs[0], len(output)
    weights, biases = inputs[1 : 1 + count], inputs[1 + count :]
    activation = step.attrs["activation"]
    assert activation is None or isinstance(activation, str)
    for i, (weight, out) in enumerate(zip(weights, output, strict=True)):
        bias = np.ascontiguousarray(biases[i]) if biases else None
        _product(x, weight.T, out, bias, None, ACTIVATIONS[activation])


def _matmul(step: Step, output: Array, inputs: Sequence[Array]) -> None:
    a, b = inputs
    _product(a, b, output, None, None, 0)


def _product(a: Array, b: Array, out: Array, bias: Array | None, residual: Array | None, activation: int) -> None:
    """Compute ``a @ b``, with leading axes as in NumPy, and its epilogue to ``out``."""
    if not out.size:
        return
    if residual is not None:
        residual = _with_rows(np.broadcast_to(residual, out.shape))
    a, b = _with_rows(a if a.ndim > 1 else a[None]), _with_one_step(b)
    out, residual = (out, residual) if out.ndim > 1 else (out[None], None if residual is None else residual[None])
    if b.ndim == 2 and all(_is_matrix(each) for each in (a, out, residual) if each is not None):
        a, out, residual = _matrix(a), _matrix(out), None if residual is None else _matrix(residual)
    lead, (m, n), k = out.shape[:-2], out.shape[-2:], a.shape[-1]
    is_transposed = (b.strides[-2] == b.itemsize and b.shape[-1] > 1) or b.strides[-1] != b.itemsize
    call = loaded()[0].dots if is_transposed else loaded()[0].rows
    ldb = b.strides[-1 if is_transposed else -2] // 4
    a, b = (np.broadcast_to(each, (*lead, *each.shape[-2:])) for each in (a, b))
    lda, ldc, ldr = a.strides[-2] // 4, out.strides[-2] // 4, 0 if residual is None else residual.strides[-2] // 4
    each_a, each_b, each_out = map(_addresses, (a, b, out))
    each_residual = [0] * math.prod(lead) if residual is None else _addresses(residual)
    bias_at = 0 if bias is None else _address(bias)
    for at, bt, to, after in zip(each_a, each_b, each_out, each_residual, strict=True):
        call(m, n, k, at, lda, bt, ldb, to, ldc, bias_at, after, ldr, activation)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _addresses(array: Array) -> list[int]:
    """Return the address of each matrix of the last two axes."""
    first, lead = _address(array), array.shape[:-2]
    offsets = np.zeros(lead, np.int64)
    for axis, (size, stride) in enumerate(zip(lead, array.strides[:-2], strict=True)):
        offsets += (np.arange(size) * stride).reshape(-1, *(1,) * (len(lead) - axis - 1))
    return [first + offset for offset in offsets.ravel().tolist()]


def _with_rows(array: Array) -> Array:
    """Return the array with contiguous elements of the last axis, copied if they are not."""
    return array if array.strides[-1] == array.itemsize else np.ascontiguousarray(array)


def _with_one_step(array: Array) -> Array:
    """Return matrices that are contiguous along one of their axes, copied if they are not."""
    return array if array.itemsize in array.strides[-2:] else np.ascontiguousarray(array)


def _is_matrix(array: Array) -> bool:
    """Return whether all axes but the last are one axis in memory."""
    sizes, strides = array.shape[:-1], array.strides
    return all(strides[i] == strides[i + 1] * sizes[i + 1] or sizes[i] == 1 for i in range(len(sizes) - 1))


def _matrix(array: Array) -> Array:
    return np.lib.stride_tricks.as_strided(
        array, (math.prod(array.shape[:-1]), array.shape[-1]), array.strides[-2:], writeable=array.flags.writeable
    )


KERNELS: dict[str, Kernel] = {"linear": _linear, "linears": _linears, "matmul": _matmul}
