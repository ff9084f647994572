"""The contract between graphs and devices: the methods of a backend, and the plan that it runs.

A backend owns bytes and time on one device and nothing else: models and sharing are above it.
Bytes are named by *handles*, integers that the caller picks; a handle stays the same when its bytes leave the device
and come back, so a compiled plan never goes stale.

::

    graph ── Plan ──► Backend.compile ──► Executable ──► Backend.run(host, outputs)
                                                             │ one call into JS replays it
    sharing ── allocate / write / read / copy / free ────────┘

A device that runs steps over memory is given a :class:`Plan`, one that takes whole graphs and keeps its own memory a
:class:`Computation`: the same graph as values, where a view is an op like any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from ..bridge.byte_buffer import ByteBuffer, Data
from ..bridge.runtime import Slices
from ..dtypes import DType
from ..errors import TensorCommonsError
from ..shapes import Layout, Shape, size_of
from .facts import Facts

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
    ``epilogue``: a product can apply the op to its result, as its ``activation``.
    ``in_place`` ops write some elements of their first input, and nothing else: the plan puts that input where the
    result shall be, and kernels write what is new.

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
    in_place: bool = False
    epilogue: bool = False
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


E = TypeVar("E", bound=Executable)


def _unheard(done: int, total: int) -> None:
    """Ignore the report."""


def _has_room(hidden: int, reserved: int) -> None:
    """Make room for a program on a device that bounds none."""


class Backend(ABC, Generic[E]):
    """One device. Every backend has exactly these methods (a test reads the classes and compares)."""

    kind: str
    name: str
    is_software: bool
    facts: Facts
    limits: dict[str, int]
    features: Sequence[str] = ()  # what it has beside that, in words
    op_limits: Mapping[str, Any] = MappingProxyType({})  # opSupportLimits() of WebNN: by method and operand
    memory = 2**62  # bytes that values can take together, where that is known
    steps_cost = False  # whether a step costs more than what little it computes, so that few are better
    keeps_spares = False  # whether runs can write their outputs to buffers of earlier ones: see :meth:`spare`
    keeps_staging = False  # whether reads go through a buffer that is kept from one to the next: see :meth:`stage`
    most_hidden = most_reserved = 2**62  # bytes that compiled programs may keep together, and of address space
    reads_whole = False  # whether reading a part of a value takes as long as all of it
    takes_graphs = False  # whether :meth:`compile` is given a Computation instead of a Plan
    graph_nodes = 2**62  # most nodes of one program: more are run in parts
    on_build: Callable[[int, int], None] = staticmethod(
        _unheard
    )  # told how many graphs or pipelines of how many are made

    # called before a program is built, with what it takes beside its counted bytes: others are forgotten for it
    make_way: Callable[[int, int], None] = staticmethod(_has_room)

    @property
    def calls(self) -> int:
        """Calls into JavaScript so far; 0 for a backend that makes none."""
        return 0

    @abstractmethod
    def allocate(self, handle: int, nbytes: int, spec: Spec | None) -> None:
        """Create ``nbytes`` bytes of any content under ``handle``: a value of ``spec``, where that is known."""

    @abstractmethod
    def free(self, handle: int) -> None:
        """Free the bytes of ``handle`` at once; work already queued still reads them."""

    @abstractmethod
    def write(self, handle: int, offset: int, data: Data) -> None:
        """Copy ``data`` to ``offset`` bytes into ``handle``; ordered with everything queued before and after.

        The caller may change or free ``data`` at once.
        """

    def fill(self, handle: int, offset: int, data: Data) -> None:
        """:meth:`write` the next part of a new value, all of which comes in order before anything else is done with it.

        Parts but the last are of whole words of 4 bytes.
        """
        self.write(handle, offset, data)

    def parts_of_depth(self, rows: int, depth: int, columns: int) -> int:
        """Return in how many parts a product of (rows, depth) by (depth, columns) is fastest if sums are free."""
        return 1

    def stage(self, nbytes: int) -> None:
        """Keep ``nbytes`` on the device for reads of up to as many; 0 gives them back."""

    def spare(self, executable: E, number: int, handle: int) -> None:
        """Give ``handle`` up, and have the next run of ``executable`` write its output ``number`` to these bytes."""
        self.free(handle)

    def drop_spares(self, executable: E) -> None:
        """Free what :meth:`spare` left to ``executable``."""

    @abstractmethod
    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Read the bytes of every (handle, offset, nbytes), once all queued work is done; together, not one by one."""

    async def read_block(self, handle: int, offset: int, nbytes: int) -> ByteBuffer:
        """Read a part of a value as a block; ``offset`` is of whole words of 4 bytes."""
        return ByteBuffer.of((await self.read([(handle, offset, nbytes)]))[0])

    @property
    def buffer_bytes(self) -> int:
        """The most bytes that lie in one buffer of the device, and that one read may take."""
        return 2**62

    async def check(self, handles: Sequence[int]) -> None:
        """Return once ``handles`` are known to be made and filled. Raises DeviceMemoryError or DeviceError if not."""
        return

    @abstractmethod
    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        """Copy bytes between two handles of this device."""

    @abstractmethod
    def accepts_layout(self, op: Op, position: int, layout: Layout) -> bool:
        """Return whether the kernel of ``op`` reads input ``position`` through ``layout``; otherwise it gets a dense
        copy.
        """

    def refusal(self, tensors: Mapping[str, Spec]) -> str:
        """Return why the device cannot hold or run a model of these ``tensors``, by name, even alone; empty if it can.

        Asked before anything is downloaded.
        """
        return ""

    def misfit(self, plan: Any) -> tuple[Step, str] | None:
        """Find a step of ``plan`` that passes the device's limits in whatever parts it runs, and say by what."""
        return None

    def binds_whole(self, spec: Spec) -> bool:
        """Return whether a step sees all of a value at once, in one binding."""
        return True

    def refusals(self, plan: Computation) -> Slices[Mapping[int, str]]:
        """Return the values of ``plan`` that the device does not take, by number, each with the reason."""
        yield from ()
        return {}

    @abstractmethod
    async def compile(self, plan: Any) -> E:
        """Make ``plan`` ready to run again and again. Raises UnsupportedOp before anything is kept."""

    @abstractmethod
    async def run(
        self, executable: E, arena: int, host: memoryview, leaves: Sequence[int], outputs: Sequence[int]
    ) -> None:
        """Queue one run: write ``host`` to the arena, create ``outputs``, replay the steps over ``leaves``.

        ``arena``, ``leaves`` and ``outputs`` are handles, the last of them one after another. Returns once everything
        is queued. Cancelling it stops the rest of a run that is queued in parts; the outputs do not exist then.
        """

    @abstractmethod
    def commands(self, plan: Any) -> Iterator[Command]:
        """Describe the commands that ``plan`` compiles to, in their order."""

    @abstractmethod
    async def time(
        self,
        executable: E,
        classes: Sequence[int],
        arena: int,
        host: memoryview,
        leaves: Sequence[int],
        outputs: Sequence[int],
    ) -> dict[int, Timing]:
        """Run once more, and repeat one command of each of ``classes`` (by command; below 0: none) for TIMED ms.

        Every command runs after those before it, so it reads what it reads in a run. ``outputs``, and the leaves that
        the plan writes, exist, and hold anything afterwards. Gives the timing of each class.
        """

    @abstractmethod
    def probes(self, nbytes: int) -> tuple[Probe, Probe]:
        """Return the probes of copying about ``nbytes``, and of multiply-adds."""

    @abstractmethod
    def discard(self, executable: E) -> None:
        """Free what ``compile`` kept."""

    @abstractmethod
    async def wait(self) -> None:
        """Return when all queued work is done."""

    async def lending(self, other: Backend[Any]) -> str:
        """Try whether tensors can be lent to ``other``, so that bytes cross without the host; if not, why."""
        return f"{self.kind} and {other.kind} have no memory in common"

    async def lend(self, handle: int, other: Backend[Any], target: int, nbytes: int, *, give: bool) -> None:
        """Lend ``handle`` to ``other``, which copies its bytes to ``target`` (``give``) or those of ``target`` to it.

        ``nbytes`` are whole words. Nothing of this device can use the tensor meanwhile; returns once it is back.
        """
        raise TensorCommonsError(await self.lending(other))

    @property
    def is_lost(self) -> bool:
        """True if the device was taken away; :meth:`reopen` may bring it back, empty."""
        return False

    @property
    def loss(self) -> str:
        """The browser's reason for taking the device away; empty where it gave none."""
        return ""

    @abstractmethod
    async def reopen(self) -> None:
        """Open the device again, empty, with nothing compiled. Raises DeviceUnavailable if there is none any more."""

    @abstractmethod
    def live_buffers(self) -> int:
        """Number of handles that have bytes on the device now."""

    @abstractmethod
    def close(self) -> None:
        """Free everything. Safe to call twice."""


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device by its public name. ``open`` takes one of its ``wishes``, of which the first is usual.

    ``open`` raises DeviceUnavailable where the browser does not have it.
    """

    name: str
    open: Callable[[str], Awaitable[Backend[Any]]]
    wishes: Sequence[str] = ("",)
