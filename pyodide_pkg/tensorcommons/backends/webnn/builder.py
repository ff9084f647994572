"""Calls of an MLGraphBuilder as data, each checked against ``opSupportLimits()``; none is made here.

``webnn.js`` makes them in one go. An operand that WebNN does not take in its dtype, but in a wider one that holds the
same numbers, is cast on the way in and the result on the way out; what is refused then raises UnsupportedOp.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import UnsupportedOp
from ...shapes import Shape, broadcast_shapes, size_of
from .splitting import GRAPH_BYTES, Calls, Kind, bytes_of, references

# A dtype's numbers are all numbers of these, in the order in which they are tried.
WIDER = {"uint8": ("int32", "float32"), "int8": ("int32", "float32"), "uint32": ("int64",), "float16": ("float32",)}
# Casting there and back gives every bit again, though the numbers between may differ.
MOVED = {**WIDER, "uint32": ("int32", "int64")}
# Options that are a ``double``, which Chromium refuses beyond float32; all others are an ``MLNumber``.
FINITE = ("alpha", "beta", "epsilon")
LARGEST = float(np.finfo(np.float32).max)
MOST = 2**25  # bytes of one constant: it lies in the description of the graph, in Python, JavaScript and WebNN at once


@dataclass(frozen=True)
class Operand:
    """One value of the graph that is built: its node, shape and dtype by WebNN's name.

    An empty value has no node, because WebNN has no empty operands.
    """

    node: int
    shape: Shape
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return size_of(self.shape)


EMPTY = -1


class GraphBuilder:
    """Calls of one MLGraphBuilder. ``op`` is the op that is being lowered, for what is refused.

    With ``wide_halves`` float16 is computed in float32: a CPU has to convert it anyway, and sums keep their digits.
    ``most`` bytes is what one graph may take at once. ``constants`` are the numbers of inputs that will be constants.
    """

    def __init__(
        self, limits: Mapping[str, Any], wide_halves: bool, most: int = GRAPH_BYTES, constants: Collection[int] = ()
    ) -> None:
        self._constants = constants
        self.limits = limits
        self.wide_halves = wide_halves
        self.most = most
        self.op = ""
        self.nodes: list[list[Any]] = []
        self.kinds: list[Kind] = []  # of each node
        self._total = 0  # bytes of all of them
        self._known: dict[str, Operand] = {}
        self._transposed: dict[int, tuple[Operand, Shape]] = {}
        self._reshaped: dict[int, Operand] = {}
        self._biased: dict[int, tuple[Operand, Operand]] = {}  # sums of a transposition and a bias

    # --- what every call goes through ---

    def refuse(self, reason: str) -> UnsupportedOp:
        """The error for what WebNN does not do here."""
        return UnsupportedOp(self.op, "webnn", reason)

    def takes(self, method: str, operand: str, dtype: str, rank: int) -> bool:
        """Return whether the limits have ``dtype`` and ``rank`` for an operand of a method."""
        return not self._why_not(method, operand, dtype, rank)

    def _why_not(self, method: str, operand: str, dtype: str, rank: int) -> str:
        if method not in self.limits:
            return f"this browser's WebNN has no {method}"
        limit = self.limits[method].get(operand)
        if limit is None:
            return ""
        if dtype not in limit["dataTypes"]:
            return f"{method} takes {', '.join(limit['dataTypes'])} here, not {dtype}"
        ranks = limit.get("rankRange") or {}
        if not ranks.get("min", 0) <= rank <= ranks.get("max", rank):
            return f"{method} takes {ranks['min']} to {ranks['max']} axes here, not {rank}"
        return ""

    def call(
        self, method: str, operands: Mapping[str, Operand], shape: Shape, dtype: str, *args: Any, **options: Any
    ) -> Operand:
        """One call of ``method``: operands by their names in the limits, then plain arguments, then options.

        Operands that are options are given among both. Raises UnsupportedOp for what the limits do not have.
        """
        for name, operand in operands.items():
            if reason := self._why_not(method, name, operand.dtype, len(operand.shape)):
                raise self.refuse(reason)
        if reason := self._why_not(method, "output", dtype, len(shape)):
            raise self.refuse(reason)
        for name in FINITE:
            if name in options and not abs(options[name]) <= LARGEST:
                raise self.refuse(f"{method} takes an {name} within float32, not {options[name]}")
        first = [_reference(operand) for name, operand in operands.items() if name not in options]
        named = {
            name: _reference(operands[name]) if name in operands else _spelled(value) for name, value in options.items()
        }
        return self._add([method, *first, *args, *([named] if named else [])], shape, dtype)

    def _add(self, node: list[Any], shape: Shape, dtype: str) -> Operand:
        key = repr(node)
        if key not in self._known:
            self.nodes.append(node)
            self.kinds.append((dtype, tuple(shape)))
            self._total += bytes_of(self.kinds[-1])
            self._known[key] = Operand(len(self.nodes) - 1, shape, dtype)
        return self._known[key]

    def input(self, number: int, shape: Shape, dtype: str) -> Operand:
        """The graph's input ``number``."""
        return (
            self._add(["input", dtype, list(shape), number], shape, dtype)
            if size_of(shape)
            else self.empty(shape, dtype)
        )

    def is_constant(self, x: Operand) -> bool:
        """Return whether ``x`` is an input that will be a constant."""
        return bool(self._constants) and self.nodes[x.node][0] == "input" and self.nodes[x.node][3] in self._constants

    def constant(self, values: Any, dtype: str) -> Operand:
        """An array in the graph. Raises UnsupportedOp above :data:`MOST`."""
        array = np.ascontiguousarray(values, dtype)
        if not array.size:
            return self.empty(array.shape, dtype)
        if array.nbytes > MOST:
            raise self.refuse(f"it needs a constant of {array.nbytes:,} bytes in the graph, more than {MOST:,}")
        data = base64.b64encode(array.tobytes()).decode()
        return self._add(["constant", dtype, list(np.shape(values)), data], np.shape(values), dtype)

    def known(self, x: Operand) -> Any | None:
        """Return the array that ``x`` is known to be; None if it is computed."""
        source = self._reshaped.get(x.node, x)
        kind, *rest = self.nodes[source.node]
        return np.frombuffer(base64.b64decode(rest[2]), x.dtype).reshape(x.shape) if kind == "constant" else None

    def filled(self, value: float, shape: Sequence[int], like: Operand) -> Operand:
        """``shape`` filled with one number, in the dtype of ``like``."""
        return self.expand(self.number(value, like), tuple(shape))

    @staticmethod
    def empty(shape: Shape, dtype: str) -> Operand:
        """A value without elements."""
        return Operand(EMPTY, tuple(shape), dtype)

    # --- elementwise ---

    def cast(self, x: Operand, dtype: str) -> Operand:
        """``x`` in another dtype."""
        if x.dtype == dtype or not x.size:
            return Operand(x.node, x.shape, dtype)
        return self.call("cast", {"input": x}, x.shape, dtype, dtype)

    def wide(self, x: Operand) -> Operand:
        """``x`` in the dtype that it is computed in."""
        return self.cast(x, "float32") if x.dtype == "float16" and self.wide_halves else x

    def accepted(
        self, method: str, operand: str, dtype: str, rank: int, wider: Mapping[str, Sequence[str]] = WIDER
    ) -> str:
        """The dtype to cast to, so that ``method`` takes it; ``dtype`` itself where that or nothing is taken."""
        for kind in (dtype, *wider.get(dtype, ())):
            if self.takes(method, operand, kind, rank) and self.takes("cast", "input", kind, rank):
                return kind
        return dtype

    def unary(
        self, method: str, x: Operand, result: str | None = None, operand: str = "input", **options: Any
    ) -> Operand:
        """A method of one operand, elementwise; its dtype is that of the operand, or ``result``."""
        if not x.size:
            return self.empty(x.shape, result or x.dtype)
        kind = self.accepted(method, operand, x.dtype, len(x.shape))
        y = self.call(method, {operand: self.cast(x, kind)}, x.shape, result or kind, **options)
        return self.cast(y, result or x.dtype)

    def binary(self, method: str, a: Operand, b: Operand, result: str | None = None) -> Operand:
        """A method of two operands that broadcast."""
        shape = broadcast_shapes(a.shape, b.shape)
        if not size_of(shape):
            return self.empty(shape, result or a.dtype)
        kind = self.accepted(method, "a", a.dtype, len(shape))
        y = self.call(method, {"a": self.cast(a, kind), "b": self.cast(b, kind)}, shape, result or kind)
        return self.cast(y, result or a.dtype)

    def number(self, value: Any, like: Operand) -> Operand:
        """A scalar in the dtype of ``like``."""
        with np.errstate(over="ignore"):  # a Python float beyond the dtype is an infinity
            return self.constant(np.asarray(value).astype(like.dtype), like.dtype)

    def where(self, condition: Operand, a: Operand, b: Operand) -> Operand:
        """``a`` where ``condition`` (uint8) is not 0, else ``b``."""
        shape = broadcast_shapes(condition.shape, a.shape, b.shape)
        if not size_of(shape):
            return self.empty(shape, a.dtype)
        kind = self.accepted("where", "trueValue", a.dtype, len(shape), MOVED)
        operands = {"condition": condition, "trueValue": self.cast(a, kind), "falseValue": self.cast(b, kind)}
        return self.cast(self.call("where", operands, shape, kind), a.dtype)

    # --- the same elements elsewhere ---

    def moved(
        self, method: str, x: Operand, shape: Shape, *args: Any, operand: str = "input", **options: Any
    ) -> Operand:
        """A method that only moves elements, in any dtype that comes back bit for bit."""
        if not size_of(shape):
            return self.empty(shape, x.dtype)
        kind = self.accepted(method, operand, x.dtype, len(x.shape), MOVED)
        return self.cast(self.call(method, {operand: self.cast(x, kind)}, shape, kind, *args, **options), x.dtype)

    def reshape(self, x: Operand, shape: Shape) -> Operand:
        """The same elements in row-major order under another shape."""
        if x.shape == tuple(shape) or not x.size:
            return Operand(x.node, tuple(shape), x.dtype) if not x.size else x
        x = self._reshaped.get(x.node, x)
        if x.shape == tuple(shape):
            return x
        y = self.moved("reshape", x, tuple(shape), list(shape))
        self._reshaped[y.node] = x
        return y

    def transpose(self, x: Operand, axes: Sequence[int]) -> Operand:
        """Axes in another order; one transposition of another is one, also with a reshape or a bias in between."""
        if x.node in self._transposed:
            x, before = self._transposed[x.node]
            axes = [before[axis] for axis in axes]
        order = tuple(axes)
        if order == tuple(range(len(order))):
            return x
        shape = tuple(x.shape[axis] for axis in order)
        if [axis for axis in order if x.shape[axis] > 1] == sorted(axis for axis in order if x.shape[axis] > 1):
            return self.reshape(x, shape)  # only axes of size 1 move
        if (composed := self._composed(x, order)) is not None:
            return self.reshape(composed, shape)
        y = self.moved("transpose", x, shape, permutation=list(order))
        if y.node != EMPTY and y.dtype == self.accepted("transpose", "input", y.dtype, len(order), MOVED):
            self._transposed[y.node] = (x, order)
        return y

    def _composed(self, x: Operand, order: Sequence[int]) -> Operand | None:
        """Return the elements of a transposition of ``x``, a reshape of a transposition or of one with a bias.

        None where it is neither, or where the axes of both shapes do not correspond.
        """
        source = self._reshaped.get(x.node, x)
        pieces = common_factors(source.shape, x.shape)
        if pieces is None:
            return None
        if source.node in self._biased:
            y, bias = self._biased[source.node]
            varies = [size > 1 for size in ((1,) * (len(y.shape) - len(bias.shape)) + bias.shape)]
            found = [{varies[a] for _, a, b in pieces if b == axis} for axis in range(len(x.shape))]
            if any(len(each) > 1 for each in found):
                return None
            shape = tuple(size if True in each else 1 for size, each in zip(x.shape, found, strict=True))
            turned = [self.transpose(self.reshape(y, x.shape), order), self.transpose(self.reshape(bias, shape), order)]
            return self.biased(turned[0], turned[1])
        if source.node not in self._transposed:
            return None
        inner, before = self._transposed[source.node]
        stored = sorted(range(len(pieces)), key=lambda number: before[pieces[number][1]])
        sizes = tuple(pieces[number][0] for number in stored)
        if tuple(size for size in inner.shape if size > 1) != sizes:
            inner = self.reshape(inner, (1,) * sum(size == 1 for size in x.shape) + sizes)
        ones = [axis for axis, size in enumerate(inner.shape) if size == 1]
        places = [axis for axis, size in enumerate(inner.shape) if size > 1]
        wanted = list[int]()
        for axis in order:
            if x.shape[axis] == 1:
                wanted += ones[:1]
                ones = ones[1:]
            wanted += [places[stored.index(n)] for n, piece in enumerate(pieces) if piece[2] == axis]
        return self.transpose(inner, [*ones, *wanted])

    def biased(self, x: Operand, bias: Operand) -> Operand:
        """``x + bias``; a transposition of it is one of ``x``, if that is a transposition itself."""
        y = self.binary("add", x, bias)
        if self.is_transposed(x) or self.is_transposed(self._reshaped.get(x.node, x)):
            self._biased[y.node] = x, bias
        return y

    def is_transposed(self, x: Operand) -> bool:
        """Return whether ``x`` is a transposition of an operand, which another one cancels."""
        return x.node in self._transposed

    def apart(self, x: Operand) -> Operand:
        """``x`` with a reshape that changes nothing between it and the transposition that it comes from, if it does.

        LiteRT lets transpose, softmax, transpose cancel, as if softmax had no axis.
        """
        if not self.is_transposed(x):
            return x
        return self._add(["reshape", _reference(x), list(x.shape)], x.shape, x.dtype)

    def expand(self, x: Operand, shape: Shape) -> Operand:
        """``x`` broadcast to ``shape``."""
        return x if x.shape == tuple(shape) else self.moved("expand", x, tuple(shape), list(shape))

    def slice(self, x: Operand, starts: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> Operand:
        """``sizes`` elements of each axis from ``starts`` on, every ``strides``-th; backwards if that is negative."""
        if not size_of(sizes):
            return self.empty(tuple(sizes), x.dtype)
        turned = [
            axis for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)) if stride < 0 and size > 1
        ]
        steps = [abs(stride) if size > 1 else 1 for size, stride in zip(sizes, strides, strict=True)]
        lows = [
            s - (n - 1) * step if axis in turned else s
            for axis, (s, n, step) in enumerate(zip(starts, sizes, steps, strict=True))
        ]
        spans = [(n - 1) * step + 1 for n, step in zip(sizes, steps, strict=True)]
        if lows != [0] * len(lows) or tuple(spans) != x.shape or any(step > 1 for step in steps):
            options: dict[str, Any] = {"strides": steps} if any(step > 1 for step in steps) else {}
            x = self.moved("slice", x, tuple(sizes), lows, spans, **options)
        return self.moved("reverse", x, x.shape, axes=turned) if turned else x

    def concat(self, xs: Sequence[Operand], axis: int) -> Operand:
        """Operands one after another."""
        parts = [x for x in xs if x.size]
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        if not parts:
            return self.empty(tuple(shape), xs[0].dtype)
        if len(parts) == 1:
            return parts[0]
        if reason := self._why_not("concat", "inputs", parts[0].dtype, len(shape)):
            raise self.refuse(reason)
        return self._add(["concat", [_reference(x) for x in parts], axis], tuple(shape), parts[0].dtype)

    # --- products and reductions ---

    def matmul(self, a: Operand, b: Operand) -> Operand:
        """The matrix product over the last two axes; the others broadcast."""
        shape = (*broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if not size_of(shape):
            return self.empty(shape, a.dtype)
        if not a.shape[-1]:
            return self.filled(0, shape, a)
        return self.call("matmul", {"a": a, "b": b}, shape, a.dtype)

    def gemm(self, x: Operand, weight: Operand, *, is_transposed: bool = False) -> Operand:
        """The product of ``x`` with the matrix ``weight``, or with its transposition."""
        shape = (x.shape[0], weight.shape[0 if is_transposed else 1])
        return self.call("gemm", {"a": x, "b": weight}, shape, x.dtype, bTranspose=is_transposed)

    def reduce(self, method: str, x: Operand, axes: Sequence[int], keepdims: bool) -> Operand:
        """One of the ``reduce`` methods."""
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape) if keepdims or axis not in axes)
        if not axes:
            return x
        if not size_of(shape):
            return self.empty(shape, x.dtype)
        kind = self.accepted(method, "input", x.dtype, len(x.shape))
        y = self.call(method, {"input": self.cast(x, kind)}, shape, kind, axes=list(axes), keepDimensions=keepdims)
        return self.cast(y, x.dtype)

    # --- the finished graph ---

    def finished(self, outputs: Sequence[Operand]) -> Calls:
        """Return the calls that ``outputs`` need. WebNN requires that each output is a node of its own, and neither an
        input nor a constant.
        """
        results: list[int] = []
        for operand in outputs:
            node = operand.node
            if self.nodes[node][0] in ("input", "constant") or node in results:
                self.nodes.append(["reshape", _reference(operand), list(operand.shape)])
                self.kinds.append((operand.dtype, operand.shape))
                node = len(self.nodes) - 1
            results.append(node)
        return Calls(self.nodes, self.kinds, results).pruned(results)

    def check_size(self, first: int) -> None:
        """Raises UnsupportedOp where a node from ``first`` on is too much for a graph of its own."""
        if 3 * self._total <= self.most:
            return
        for node in range(first, len(self.nodes)):
            around = sum(bytes_of(self.kinds[source]) for source in references(self.nodes[node]))
            if 4 * (around + bytes_of(self.kinds[node])) > self.most:
                nbytes = Calls(self.nodes, self.kinds, []).bytes_alone(node)
                if nbytes > self.most:
                    raise self.refuse(f"its graph would take {nbytes:,} bytes at once, more than {self.most:,}")


def common_factors(before: Shape, after: Shape) -> list[tuple[int, int, int]] | None:
    """Return factors of the axes of two shapes of one size, in order: each with its axis in both.

    Axes of size 1 are left out. None if the axes do not have common factors.
    """
    result: list[tuple[int, int, int]] = []
    rest = [(size, axis) for axis, size in enumerate(after) if size > 1]
    for axis, size in enumerate(before):
        while size > 1:
            other, b = rest.pop(0)
            part = min(size, other)
            if size % part or other % part:
                return None
            result.append((part, axis, b))
            size //= part
            if other > part:
                rest.insert(0, (other // part, b))
    return result


def _spelled(value: Any) -> Any:
    """An option as JSON can hold it: what is not finite as ``{"number": how JavaScript spells it}``."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    return value


def _reference(operand: Operand) -> dict[str, int]:
    assert operand.node != EMPTY
    return {"v": operand.node}
