"""Elementwise ops: one formula for each element, with NumPy broadcasting between the operands.

Each op is one line: its name, its NumPy reference, the kinds of dtypes that it accepts, and its docstring. Its WGSL is
in ``backends/webgpu/kernels/elementwise_wgsl.py``. Dtypes promote by the table of the Python array API
(:func:`tensorcommons.dtypes.result_type`); a Python number takes the dtype of the other operand.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from copy import copy as copied
from typing import Any, TypeAlias, TypeVar

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Op, Spec
from ..backends.device import Device
from ..dtypes import DType
from ..errors import UnsupportedDtype
from ..graph.constant import FULL
from ..shapes import broadcast_shapes
from ..tensor import Tensor, TensorLike, as_tensor, asarray
from .registry import apply, define, register

Function = TypeVar("Function", bound=Callable[..., Tensor])
ShapeRule: TypeAlias = Callable[[Sequence[Spec], Attributes], Spec]

FLOATS = ("float",)
INTS = ("int", "uint")
NUMBERS = FLOATS + INTS
BITS = (*INTS, "bool")
ANY = (*NUMBERS, "bool")
WORDS = {FLOATS: "floats", INTS: "ints", NUMBERS: "numbers", BITS: "ints and bools", ("bool",): "bools"}


def rule(name: str, kinds: tuple[str, ...], result: DType | None = None) -> ShapeRule:
    """Make the shape rule of an elementwise op on dtypes of ``kinds``; its dtype is ``result`` or the operands'."""

    def infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
        dtype = dtypes.result_type([spec.dtype for spec in specs])
        if dtype.kind not in kinds:
            raise UnsupportedDtype(f"{name} takes {WORDS[kinds]}, not {dtype}: cast with tc.astype()")
        return Spec(broadcast_shapes(*(spec.shape for spec in specs)), result or dtype)

    return infer


def _define(
    name: str,
    reference: Callable[..., Any],
    kinds: tuple[str, ...],
    result: DType | None = None,
    *,
    epilogue: bool = False,
) -> Op:
    return define(name, rule(name, kinds, result), reference, elementwise=True, epilogue=epilogue)


def unary(
    name: str,
    reference: Callable[..., Any],
    kinds: tuple[str, ...],
    doc: str,
    result: DType | None = None,
    *,
    example: tuple[str, str],
    epilogue: bool = False,
) -> Callable[[TensorLike], Tensor]:
    """Define an op of one operand and return its function; ``example`` is a call's argument and what it prints."""
    op = _define(name, reference, kinds, result, epilogue=epilogue)

    def function(x: TensorLike, /) -> Tensor:
        return apply(op, x)

    return _named(function, name, doc, kinds, result, example)


def binary(
    name: str,
    reference: Callable[..., Any],
    kinds: tuple[str, ...],
    doc: str,
    result: DType | None = None,
    *,
    example: tuple[str, str],
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """Define an op of two operands, which broadcast, and return its function; ``example`` is as in :func:`unary`."""
    op = _define(name, reference, kinds, result)

    def function(x1: TensorLike, x2: TensorLike, /) -> Tensor:
        return apply(op, x1, x2)

    return _named(function, name, doc, kinds, result, example)


def _named(
    function: Function, name: str, doc: str, kinds: tuple[str, ...], result: DType | None, example: tuple[str, str]
) -> Function:
    """Give ``function`` its name, and a docstring of ``doc`` and ``example``."""
    arguments, printed = example
    digits = ".round(4)" if kinds == FLOATS and result is None else ""
    function.__name__, function.__qualname__ = name, name
    function.__doc__ = f"{inspect.cleandoc(doc)}\n\n>>> print(tc.{name}({arguments}).numpy(){digits})\n{printed}"
    return function


def _power(x1: Any, x2: Any) -> Any:
    """Compute a power. A negative power of an int, an error in NumPy, is the truncated fraction, as in the shader."""
    if np.result_type(x1, x2).kind != "i":
        return np.power(x1, x2)
    inverse = np.where(x1 == 1, 1, np.where(x1 == -1, np.where(x2 % 2 == 0, 1, -1), 0))
    return np.where(x2 < 0, inverse, np.power(x1, np.maximum(x2, 0)))


def _test(function: Callable[[Any], Any], of_ints: bool) -> Callable[[Any], Any]:
    return lambda x: function(x) if x.dtype.kind == "f" else np.full(x.shape, of_ints)


CAST = define(
    "cast",
    lambda specs, attrs: Spec(specs[0].shape, dtypes.as_dtype(attrs["dtype"])),
    dtypes.converted,
    elementwise=True,
)
WHERE = define(
    "where",
    lambda specs, attrs: Spec(broadcast_shapes(*(s.shape for s in specs)), _branches(specs)),
    np.where,
    elementwise=True,
)
register(FULL)

# Arithmetic.
negative = unary("negative", np.negative, NUMBERS, "``-x``; an unsigned int wraps.", example=("[1, -2]", "[-1  2]"))
abs = unary("abs", np.abs, NUMBERS, "``|x|``; the smallest int is unchanged.", example=("[-1.5, 2.0]", "[1.5 2. ]"))
sign = unary("sign", np.sign, NUMBERS, "-1, 0 or 1; NaN for NaN.", example=("[-2.0, 0.0, 3.0]", "[-1.  0.  1.]"))
square = unary("square", np.square, NUMBERS, "``x * x``.", example=("[2, 3]", "[4 9]"))
sqrt = unary("sqrt", np.sqrt, FLOATS, "Square root; NaN below 0.", example=("[4.0, 9.0]", "[2. 3.]"))
rsqrt = unary(
    "rsqrt",
    lambda x: 1 / np.sqrt(x),
    FLOATS,
    "``1 / sqrt(x)``; infinite at 0, NaN below.",
    example=("[4.0, 0.25]", "[0.5 2. ]"),
)
reciprocal = unary("reciprocal", lambda x: 1 / x, FLOATS, "``1 / x``.", example=("[2.0, 4.0]", "[0.5  0.25]"))
add = binary("add", np.add, NUMBERS, "``x1 + x2``; ints wrap.", example=("[1, 2], [3, 4]", "[4 6]"))
subtract = binary("subtract", np.subtract, NUMBERS, "``x1 - x2``; ints wrap.", example=("[3, 4], 1", "[2 3]"))
multiply = binary("multiply", np.multiply, NUMBERS, "``x1 * x2``; ints wrap.", example=("[1, 2], [3, 4]", "[3 8]"))
_divide = binary(
    "divide",
    np.divide,
    FLOATS,
    "``x1 / x2`` of floats; division by 0 gives an infinity or NaN.",
    example=("[1.0, 3.0], 2.0", "[0.5 1.5]"),
)


def divide(x1: TensorLike, x2: TensorLike, /) -> Tensor:
    """``x1 / x2`` of floats; division by 0 gives an infinity or NaN. Ints are divided as float32 (float64 in NumPy).

    >>> print(tc.divide([1.0, 3.0], 2.0).numpy())
    [0.5 1.5]
    >>> print(tc.divide([1, 3], 2).numpy())
    [0.5 1.5]
    """
    operands = [x if isinstance(x, (int, float)) else as_tensor(x, like=(x1, x2)) for x in (x1, x2)]
    operands = [
        astype(x, dtypes.float32, copy=False) if isinstance(x, Tensor) and x.dtype.kind in INTS else x for x in operands
    ]
    wide = [as_tensor(x, like=operands) for x in operands]
    return _divide(*(astype(x, dtypes.float32, copy=False) if x.dtype.kind in INTS else x for x in wide))


floor_divide = binary(
    "floor_divide",
    np.floor_divide,
    NUMBERS,
    """``floor(x1 / x2)``. As in NumPy, an int by 0 is 0, and the smallest int by -1 is itself.

    For floats it is exact if the quotient is below 2 ** 22.""",
    example=("[7, -7], 2", "[ 3 -4]"),
)
remainder = binary(
    "remainder",
    np.remainder,
    NUMBERS,
    """``x1 - floor(x1 / x2) * x2``, with the sign of ``x2``. As in NumPy, an int by 0 is 0.

    For floats it is exact if the quotient is below 2 ** 22.""",
    example=("[7, -7], 3", "[1 2]"),
)
pow = binary(
    "pow",
    _power,
    NUMBERS,
    """``x1 ** x2``. Ints wrap; a negative power of an int is truncated to an int.""",
    example=("[2, 3], 2", "[4 9]"),
)
maximum = binary(
    "maximum", np.maximum, NUMBERS, "The larger of the two; NaN if either is NaN.", example=("[1, 5], [3, 4]", "[3 5]")
)
minimum = binary(
    "minimum", np.minimum, NUMBERS, "The smaller of the two; NaN if either is NaN.", example=("[1, 5], [3, 4]", "[1 4]")
)

# Exponentials and logarithms.
exp = unary("exp", np.exp, FLOATS, "``e ** x``.", example=("[0.0, 1.0]", "[1.     2.7183]"))
expm1 = unary("expm1", np.expm1, FLOATS, "``e ** x - 1``, exact near 0.", example=("[0.0, 1.0]", "[0.     1.7183]"))
log = unary(
    "log", np.log, FLOATS, "Natural logarithm; ``-inf`` at 0 and NaN below.", example=("[1.0, 10.0]", "[0.     2.3026]")
)
log1p = unary("log1p", np.log1p, FLOATS, "``log(1 + x)``, exact near 0.", example=("[0.0, 9.0]", "[0.     2.3026]"))
log2 = unary("log2", np.log2, FLOATS, "Logarithm to base 2.", example=("[1.0, 8.0]", "[0. 3.]"))
log10 = unary("log10", np.log10, FLOATS, "Logarithm to base 10.", example=("[1.0, 1000.0]", "[0. 3.]"))

# Trigonometry, in radians.
sin = unary(
    "sin", np.sin, FLOATS, "Sine; to 1e-5 relative for ``|x|`` up to 10,000.", example=("[0.0, 1.0]", "[0.     0.8415]")
)
cos = unary(
    "cos",
    np.cos,
    FLOATS,
    "Cosine; to 1e-5 relative for ``|x|`` up to 10,000.",
    example=("[0.0, 1.0]", "[1.     0.5403]"),
)
tan = unary(
    "tan",
    np.tan,
    FLOATS,
    "Tangent; to 1e-5 relative for ``|x|`` up to 10,000.",
    example=("[0.0, 1.0]", "[0.     1.5574]"),
)
asin = unary(
    "asin",
    np.arcsin,
    FLOATS,
    "Inverse sine, from -pi / 2 to pi / 2; NaN outside -1 to 1.",
    example=("[0.0, 1.0]", "[0.     1.5708]"),
)
acos = unary(
    "acos",
    np.arccos,
    FLOATS,
    "Inverse cosine, from 0 to pi; NaN outside -1 to 1.",
    example=("[1.0, 0.0]", "[0.     1.5708]"),
)
atan = unary(
    "atan", np.arctan, FLOATS, "Inverse tangent, from -pi / 2 to pi / 2.", example=("[0.0, 1.0]", "[0.     0.7854]")
)
atan2 = binary(
    "atan2",
    np.arctan2,
    FLOATS,
    "The angle of the point ``(x2, x1)``, from -pi to pi.",
    example=("[1.0, 1.0], [1.0, -1.0]", "[0.7854 2.3562]"),
)
sinh = unary("sinh", np.sinh, FLOATS, "Hyperbolic sine.", example=("[0.0, 1.0]", "[0.     1.1752]"))
cosh = unary("cosh", np.cosh, FLOATS, "Hyperbolic cosine.", example=("[0.0, 1.0]", "[1.     1.5431]"))
tanh = unary("tanh", np.tanh, FLOATS, "Hyperbolic tangent.", epilogue=True, example=("[0.0, 1.0]", "[0.     0.7616]"))
asinh = unary("asinh", np.arcsinh, FLOATS, "Inverse hyperbolic sine.", example=("[0.0, 1.0]", "[0.     0.8814]"))
acosh = unary(
    "acosh", np.arccosh, FLOATS, "Inverse hyperbolic cosine; NaN below 1.", example=("[1.0, 2.0]", "[0.    1.317]")
)
atanh = unary(
    "atanh",
    np.arctanh,
    FLOATS,
    "Inverse hyperbolic tangent; infinite at -1 and 1, NaN outside.",
    example=("[0.0, 0.5]", "[0.     0.5493]"),
)

# Rounding; ints are unchanged.
ceil = unary(
    "ceil",
    lambda x: np.ceil(x).astype(x.dtype),
    NUMBERS,
    "The smallest integer that is not below x.",
    example=("[1.2, -1.2]", "[ 2. -1.]"),
)
floor = unary(
    "floor",
    lambda x: np.floor(x).astype(x.dtype),
    NUMBERS,
    "The largest integer that is not above x.",
    example=("[1.2, -1.2]", "[ 1. -2.]"),
)
trunc = unary(
    "trunc",
    lambda x: np.trunc(x).astype(x.dtype),
    NUMBERS,
    "x rounded towards zero.",
    example=("[1.7, -1.7]", "[ 1. -1.]"),
)
round = unary(
    "round",
    lambda x: np.round(x).astype(x.dtype),
    NUMBERS,
    "The nearest integer; halves to even.",
    example=("[1.4, 1.5, 2.5]", "[1. 2. 2.]"),
)

# Tests and comparisons: bools.
isnan = unary(
    "isnan",
    _test(np.isnan, False),
    NUMBERS,
    "True if x is NaN.",
    dtypes.bool,
    example=("[1.0, float('nan')]", "[False  True]"),
)
isinf = unary(
    "isinf",
    _test(np.isinf, False),
    NUMBERS,
    "True if x is infinite.",
    dtypes.bool,
    example=("[1.0, float('inf')]", "[False  True]"),
)
isfinite = unary(
    "isfinite",
    _test(np.isfinite, True),
    NUMBERS,
    "True if x is neither NaN nor infinite.",
    dtypes.bool,
    example=("[1.0, float('inf')]", "[ True False]"),
)
equal = binary(
    "equal",
    np.equal,
    ANY,
    "``x1 == x2``; false if either is NaN.",
    dtypes.bool,
    example=("[1, 2], [1, 3]", "[ True False]"),
)
not_equal = binary(
    "not_equal",
    np.not_equal,
    ANY,
    "``x1 != x2``; true if either is NaN.",
    dtypes.bool,
    example=("[1, 2], [1, 3]", "[False  True]"),
)
less = binary(
    "less",
    np.less,
    NUMBERS,
    "``x1 < x2``; false if either is NaN.",
    dtypes.bool,
    example=("[1, 2], 2", "[ True False]"),
)
less_equal = binary(
    "less_equal",
    np.less_equal,
    NUMBERS,
    "``x1 <= x2``; false if either is NaN.",
    dtypes.bool,
    example=("[1, 2, 3], 2", "[ True  True False]"),
)
greater = binary(
    "greater",
    np.greater,
    NUMBERS,
    "``x1 > x2``; false if either is NaN.",
    dtypes.bool,
    example=("[1, 2, 3], 2", "[False False  True]"),
)
greater_equal = binary(
    "greater_equal",
    np.greater_equal,
    NUMBERS,
    "``x1 >= x2``; false if either is NaN.",
    dtypes.bool,
    example=("[1, 2, 3], 2", "[False  True  True]"),
)

# Logic and bits.
logical_not = unary("logical_not", np.logical_not, ("bool",), "Not ``x``.", example=("[True, False]", "[False  True]"))
logical_and = binary(
    "logical_and",
    np.logical_and,
    ("bool",),
    "``x1`` and ``x2``.",
    example=("[True, True], [True, False]", "[ True False]"),
)
logical_or = binary(
    "logical_or",
    np.logical_or,
    ("bool",),
    "``x1`` or ``x2``.",
    example=("[True, False], [False, False]", "[ True False]"),
)
logical_xor = binary(
    "logical_xor",
    np.logical_xor,
    ("bool",),
    "Either ``x1`` or ``x2``, not both.",
    example=("[True, True], [True, False]", "[False  True]"),
)
bitwise_invert = unary(
    "bitwise_invert", np.invert, BITS, "``~x``; for a bool, not ``x``.", example=("[0, 5]", "[-1 -6]")
)
bitwise_and = binary("bitwise_and", np.bitwise_and, BITS, "``x1 & x2``.", example=("[6, 5], 3", "[2 1]"))
bitwise_or = binary("bitwise_or", np.bitwise_or, BITS, "``x1 | x2``.", example=("[6, 5], 3", "[7 7]"))
bitwise_xor = binary("bitwise_xor", np.bitwise_xor, BITS, "``x1 ^ x2``.", example=("[6, 5], 3", "[5 6]"))
bitwise_left_shift = binary(
    "bitwise_left_shift",
    np.left_shift,
    INTS,
    "``x1 << x2``; 0 if ``x2`` is negative, or 32 or more.",
    example=("[1, 3], 2", "[ 4 12]"),
)
bitwise_right_shift = binary(
    "bitwise_right_shift",
    np.right_shift,
    INTS,
    "``x1 >> x2``, an arithmetic shift; only sign bits if ``x2`` is negative, or 32 or more.",
    example=("[8, -8], 2", "[ 2 -2]"),
)


def positive(x: TensorLike, /) -> Tensor:
    """``+x``: the same numbers.

    >>> print(tc.positive([1, -2]).numpy())
    [ 1 -2]
    """
    tensor = as_tensor(x)
    rule("positive", NUMBERS)([tensor.spec], {})
    return copied(tensor)


def astype(x: TensorLike, dtype: object, /, *, copy: bool = True, device: Device | str | None = None) -> Tensor:
    """Cast ``x`` to another dtype, on its device or on ``device``.

    Floats are truncated to ints, values outside the int's range are clamped to it, and NaN becomes 0 (in NumPy both
    depend on the processor). Floats that are too large for float16 become infinite. With ``copy=False`` a tensor that
    has the dtype is returned itself.

    >>> print(tc.astype([1.7, -1.7], "int32").numpy())
    [ 1 -1]
    """
    tensor, target = as_tensor(x), dtypes.as_dtype(dtype)
    if target is dtypes.float64 and not tensor.device.facts.is_host:
        raise UnsupportedDtype(f"the {tensor.device.kind} device has no float64: use float32")
    result = (
        apply(CAST, tensor, dtype=target.name) if tensor.dtype is not target else copied(tensor) if copy else tensor
    )
    return result if device is None else result.to_device(device)


def _branches(specs: Sequence[Spec]) -> DType:
    if specs[0].dtype is not dtypes.bool:
        raise UnsupportedDtype(f"where takes a bool condition, not {specs[0].dtype}: use a comparison, as in x != 0")
    return dtypes.result_type([spec.dtype for spec in specs[1:]])


def where(condition: TensorLike, x1: TensorLike, x2: TensorLike, /) -> Tensor:
    """``x1`` where the bool ``condition`` is true, else ``x2``; all three broadcast.

    >>> print(tc.where([True, False], [1, 2], [3, 4]).numpy())
    [1 4]
    """
    chosen = [x for x in (x1, x2) if isinstance(x, Tensor)]
    if not chosen and isinstance(condition, Tensor):  # two numbers or arrays: the first one determines the dtype
        x1 = asarray(x1, device=condition.own_device)
        chosen = [x1]
    return apply(WHERE, condition, *(as_tensor(x, like=chosen) for x in (x1, x2)))


def clip(
    x: TensorLike,
    /,
    min: TensorLike | None = None,  # noqa: A002
    max: TensorLike | None = None,  # noqa: A002
) -> Tensor:
    """``minimum(maximum(x, min), max)``; both bounds are optional. NaN for NaN.

    >>> print(tc.clip([-1, 2, 7], 0, 5).numpy())
    [0 2 5]
    """
    result = as_tensor(x)
    result = result if min is None else maximum(result, min)
    return result if max is None else minimum(result, max)


def signbit(x: TensorLike, /) -> Tensor:
    """True if x is below 0 or is -0; false for NaN, whose sign differs between devices.

    >>> print(tc.signbit([-1.0, -0.0, 0.0]).numpy())
    [ True  True False]
    """
    tensor = as_tensor(x)
    return logical_or(less(tensor, 0), less(divide(1, tensor), 0))


def copysign(x1: TensorLike, x2: TensorLike, /) -> Tensor:
    """The magnitude of ``x1`` with the sign of ``x2``, by :func:`signbit`.

    >>> print(tc.copysign([1.0, -2.0], [-1.0, 1.0]).numpy())
    [-1.  2.]
    """
    size = abs(as_tensor(x1, like=(x2,)))
    return where(signbit(as_tensor(x2, like=(x1,))), negative(size), size)


def hypot(x1: TensorLike, x2: TensorLike, /) -> Tensor:
    """``sqrt(x1 ** 2 + x2 ** 2)`` without intermediate overflow; infinite if either is infinite.

    >>> print(tc.hypot([3.0, 5.0], [4.0, 12.0]).numpy())
    [ 5. 13.]
    """
    a, b = abs(as_tensor(x1, like=(x2,))), abs(as_tensor(x2, like=(x1,)))
    large, small = maximum(a, b), minimum(a, b)
    share = where(equal(large, small), 1, divide(small, large))
    length = multiply(large, sqrt(add(multiply(share, share), 1)))
    return where(logical_or(isinf(a), isinf(b)), math.inf, length)


def logaddexp(x1: TensorLike, x2: TensorLike, /) -> Tensor:
    """``log(exp(x1) + exp(x2))`` without overflow.

    >>> print(tc.logaddexp([0.0, 100.0], [0.0, 100.0]).numpy().round(4))
    [  0.6931 100.6931]
    """
    a, b = as_tensor(x1, like=(x2,)), as_tensor(x2, like=(x1,))
    more = log1p(exp(negative(abs(subtract(a, b)))))
    return where(equal(a, b), add(a, math.log(2)), add(maximum(a, b), more))
