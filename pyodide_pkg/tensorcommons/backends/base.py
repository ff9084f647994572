"""The data between graphs and devices: ops, the plans that devices run, and the commands that these become.

A device that runs steps over memory is given a :class:`Plan`, one that takes whole graphs and keeps its own memory a
:class:`Computation`: the same graph as values, where a view is an op like any other. :mod:`~.backend` has the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from ..dtypes import DType
from ..shapes import Layout, Shape, size_of

Attribute: TypeAlias = "int | float | str | bool | tuple[Attribute, ...] | None"
Attributes: TypeAlias = Mapping[str, Attribute]
Range: TypeAlias = "tuple[int, int, int]"  # handle, offset, nbytes
TIMED = 5.0  # milliseconds for which a command is repeated to be timed


@dataclass(frozen=True)
class Spec:
    """Shape and dtype of a value, known before it exists."""

    shape: Shape
    dtype: DType

    @cached_property
    def nbytes(self) -> int:
        """Bytes of a dense copy."""
        return size_of(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class BlockSpec(Spec):
    """The spec of the storage of a quantised weight: bytes, with the name of their block format.

    ``weight_shape`` is the shape of the weight.
    """

    format: str
    weight_shape: Shape


Cost: TypeAlias = "Callable[[Sequence[Spec], Spec, Attributes], int]"  # of the inputs' specs, the result's, attributes


def _nothing(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    return 0


def per_element(count: int) -> Cost:
    """``count`` operations for each element of the result."""
    return lambda specs, result, attrs: count * size_of(result.shape)


def per_input(count: int) -> Cost:
    """``count`` operations for each element of the first input."""
    return lambda specs, result, attrs: count * size_of(specs[0].shape)


@dataclass(frozen=True)
class Op:
    """One primitive: its shape rule, its meaning in NumPy, and its cost.

    ``infer(specs, attrs)`` gives the result's spec or raises ShapeMismatch / UnsupportedDtype.
    ``reference(*arrays, **attrs)`` is the meaning that every device is tested against.
    ``view(layout, attrs)`` is there for ops that only look at the same bytes in another way; it gives ``None`` where
    that needs a copy. ``memory_order(spec)`` is the order of axes in which the result lies in memory, where it is not
    row-major: attention writes ``(batch, sequence, heads, head_dim)`` so that merging the heads is free.
    ``elementwise`` ops give each element of the result from the elements at its place: chains of them become one.
    ``epilogue``: a product can apply the op to its result, as its ``activation``. ``takes_epilogue``: a product that
    does so, and adds a last operand with ``residual``.
    ``in_place(*arrays, **attrs)`` is there for ops that write some elements of their first input, and nothing else: it
    writes them to this array. The plan puts that input where the result shall be, and kernels write what is new.

    The cost of one execution: ``multiply_adds`` of products, and ``operations``, all other arithmetic (by default one
    an element for elementwise ops, else none). ``traffic`` is the bytes that memory has to move at least, where that
    is not all of every input and the result; it is given specs whose axes are 1 where a value is broadcast.
    """

    name: str
    infer: Callable[[Sequence[Spec], Attributes], Spec]
    reference: Callable[..., Any]
    view: Callable[[Layout, Attributes], Layout | None] | None = None
    memory_order: tuple[int, ...] | None = None
    elementwise: bool = False
    in_place: Callable[..., None] | None = None
    epilogue: bool = False
    takes_epilogue: bool = False
    multiply_adds: Cost = _nothing
    operations: Cost | None = None
    traffic: Cost | None = None

    def flops(self, specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
        """Floating-point operations of one execution; a multiply-add is two of them, an exponential is one."""
        others = self.operations or (per_element(1) if self.elementwise else _nothing)
        return 2 * self.multiply_adds(specs, result, attrs) + others(specs, result, attrs)

    def bytes_moved(self, specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
        """Bytes that one execution reads and writes at least; the specs are as ``traffic`` is given them."""
        if self.view is not None:
            return 0
        if self.traffic is not None:
            return self.traffic(specs, result, attrs)
        return sum(spec.nbytes for spec in specs) + result.nbytes


# The same values where another step wants them.
COPY = Op("copy", lambda specs, attrs: specs[0], lambda x: x)


@dataclass(frozen=True)
class Place:
    """The place of a value while a plan runs.

    ``kind`` is "arena" (scratch that all plans share, host inputs first), "leaf" or "output" (``index`` counts the
    storages that a run is given to read, or to create). ``offset`` and ``nbytes`` are bytes.
    """

    kind: Literal["arena", "leaf", "output"]
    index: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Operand:
    """A value as one step sees it: the place of its bytes, and a layout (in elements) over them."""

    place: Place
    layout: Layout
    dtype: DType

    @property
    def shape(self) -> Shape:
        """Shape of the layout."""
        return self.layout.shape


@dataclass(frozen=True)
class Step:
    """One op to run: read ``inputs``, write ``output``. ``whole`` is the step that it does a part of, if it does."""

    op: Op
    attrs: Attributes
    inputs: tuple[Operand, ...]
    output: Operand
    whole: Step | None = None


@dataclass(frozen=True)
class Plan:
    """A graph made ready to run: steps in order, places planned.

    Host inputs are written as one block of ``host_bytes`` at the start of the arena; each run reads ``leaves`` storages
    and creates buffers of ``output_bytes``. Which storages is said by the run: one plan serves all weights of a shape.
    ``written`` are the numbers of the leaves that steps write; a run is given bytes there that it may change.
    """

    steps: tuple[Step, ...]
    arena_bytes: int
    host_bytes: int
    leaves: int
    output_bytes: tuple[int, ...]
    written: tuple[int, ...] = ()


@dataclass(frozen=True)
class Value:
    """One value of a computation: the result of ``op`` over earlier values, by their numbers.

    Without an op it is what a run is given: leaf ``index``, or with ``host`` the bytes from ``index`` on of its block.
    """

    op: Op | None
    attrs: Attributes
    inputs: tuple[int, ...]
    spec: Spec
    index: int = 0
    host: bool = False


@dataclass(frozen=True)
class Computation:
    """A graph made ready for a device that takes whole graphs: values in an order that can run.

    ``outputs`` numbers the values that a run stores, each once.
    """

    values: tuple[Value, ...]
    outputs: tuple[int, ...]
    host_bytes: int
    leaves: int

    @property
    def output_bytes(self) -> tuple[int, ...]:
        """Bytes of each output."""
        return tuple(self.values[number].spec.nbytes for number in self.outputs)

    @property
    def steps(self) -> tuple[Value, ...]:
        """The values that are computed."""
        return tuple(value for value in self.values if value.op is not None)

    @property
    def arena_bytes(self) -> int:
        """None: the device keeps its own memory."""
        return 0

    @property
    def written(self) -> tuple[int, ...]:
        """None: no leaf is written where it lies."""
        return ()


@dataclass(frozen=True)
class Executable:
    """A compiled plan: how many commands one replay has, and the device bytes that it keeps beside the arena.

    Beside them a device that plans its own memory keeps about ``hidden`` bytes for it, in ``reserved`` bytes of address
    space.
    """

    dispatches: int
    nbytes: int
    hidden: int = field(default=0, kw_only=True)
    reserved: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Work:
    """One operation as its cost is counted. ``read`` are its inputs with axes of 1 where a value is broadcast."""

    op: Op
    attrs: Attributes
    inputs: tuple[Spec, ...]
    read: tuple[Spec, ...]
    output: Spec

    @classmethod
    def of_step(cls, step: Step) -> Work:
        """The work of a step of a plan."""
        inputs = tuple(Spec(each.shape, each.dtype) for each in step.inputs)
        read = tuple(
            Spec(tuple(n if s else min(n, 1) for n, s in zip(each.shape, each.layout.strides, strict=True)), each.dtype)
            for each in step.inputs
        )
        return cls(step.op, step.attrs, inputs, read, Spec(step.output.shape, step.output.dtype))

    @property
    def flops(self) -> int:
        """Floating-point operations; see :meth:`Op.flops`."""
        return self.op.flops(self.inputs, self.output, self.attrs)

    @property
    def nbytes(self) -> int:
        """Bytes that memory has to move at least; see :meth:`Op.bytes_moved`."""
        return self.op.bytes_moved(self.read, self.output, self.attrs)


@dataclass(frozen=True)
class Command:
    """One command of a compiled plan, for looking inside: what it computes, and by which kernel.

    ``part`` of ``parts``: an operation that takes several commands. Commands of one ``key`` do the same over other
    bytes, so they take equally long. ``source`` is the text of its shader, on devices that have shaders.
    """

    work: tuple[Work, ...]
    kernel: str
    key: str
    part: int = 0
    parts: int = 1
    source: str = ""


@dataclass(frozen=True)
class Timing:
    """Milliseconds that one command takes, by the clock of the host and, where it has one, of the device."""

    milliseconds: float
    on_device: float | None = None


@dataclass(frozen=True)
class Probe:
    """A plan of one command that shows what a device can do: it moves ``amount`` bytes, or takes as many operations."""

    plan: Any
    amount: int
    leaves: tuple[Spec, ...]
