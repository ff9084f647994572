"""The contract between graphs and devices: the methods of a backend.

A backend owns bytes and time on one device and nothing else: models and sharing are above it.
Bytes are named by *handles*, integers that the caller picks; a handle stays the same when its bytes leave the device
and come back, so a compiled plan never goes stale.

::

    graph ── Plan ──► Backend.compile ──► Executable ──► Backend.run(host, outputs)
                                                             │ one call into JS replays it
    sharing ── allocate / write / read / copy / free ────────┘
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from ..bridge.byte_buffer import ByteBuffer, Data
from ..bridge.runtime import Slices
from ..errors import TensorCommonsError
from ..shapes import Layout
from .base import Command, Computation, Executable, Op, Probe, Range, Spec, Step, Timing
from .facts import Facts

E = TypeVar("E", bound=Executable)


def _ignore(done: int, total: int) -> None:
    """No-op callback."""


def _has_room(hidden: int, reserved: int) -> None:
    """Make room for a program on a device that bounds none."""


def _uncounted(nbytes: int) -> bool:
    """Refuse constants on a device that does not count them."""
    return False


class Backend(ABC, Generic[E]):
    """One device. Every backend has exactly these methods (a test reads the classes and compares)."""

    kind: str
    name: str
    is_software: bool
    facts: Facts
    block_formats: frozenset[str] = frozenset()  # of weights that it stores as they are, and computes with
    # True if quantised products of the precision "fast" differ from "exact" ones, and are faster.
    multiplies_int8 = False
    limits: dict[str, int]
    features: Sequence[str] = ()  # what it has beside that, in words
    op_limits: Mapping[str, Any] = MappingProxyType({})  # opSupportLimits() of WebNN: by method and operand
    memory = 2**62  # bytes that values can take together, where that is known
    chains_runs = False  # whether run_chain() exists
    samples = False  # whether a generation draws tokens on the device: the host does it as fast where both are one
    steps_cost = False  # whether a step costs more than what little it computes, so that few are better
    keeps_spares = False  # whether runs can write their outputs to buffers of earlier ones: see :meth:`spare`
    keeps_staging = False  # whether reads go through a buffer that is kept from one to the next: see :meth:`stage`
    most_hidden = most_reserved = 2**62  # bytes that compiled programs may keep together, and of address space
    reads_whole = False  # whether reading a part of a value takes as long as all of it
    keeps_kernels = False  # whether the kernels of a discarded program are kept for later ones
    takes_graphs = False  # whether :meth:`compile` is given a Computation instead of a Plan
    graph_nodes = 2**62  # most nodes of one program: more are run in parts
    on_build: Callable[[int, int], None] = staticmethod(_ignore)  # called with (done, total) graphs or pipelines

    # called before a program is built, with what it takes beside its counted bytes: others are forgotten for it
    make_way: Callable[[int, int], None] = staticmethod(_has_room)

    # called with the bytes of constants that would make programs faster; returns whether they were free and are counted
    # from now on. A negative number gives bytes back; 0 says that those counted last can be dropped from now on
    count_constants: Callable[[int], bool] = staticmethod(_uncounted)

    @property
    def constant_bytes(self) -> int:
        """Bytes of constants that :meth:`drop_constants` can free."""
        return 0

    def drop_constants(self) -> None:
        """Free the constants of one graph, the oldest; its programs use the tensors again."""

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

    def joins_products(self, x: Spec, *, block_format: str = "", normed: bool = False, fast: bool = False) -> bool:
        """Return whether a step can compute several products of ``x``, of few rows, or of its norm.

        ``block_format`` is that of a quantised weight. Products of the precision "fast" (``fast``) round x in the step.
        """
        return False

    def rounds(self, x: Spec, block_format: str) -> bool:
        """Return whether kernels round ``x`` of a product of the precision "fast", with such a weight, themselves."""
        return True

    def rotates(self, operands: Sequence[Spec]) -> bool:
        """Return whether attention, or an append to its cache, of these ``operands`` can rotate what it is given."""
        return False

    def attends_in_pages(self, operands: Sequence[Spec]) -> bool:
        """Return whether attention of these ``operands`` (query, keys, values, table) can read keys in their pages."""
        return False

    def keys_of_part(self, keys: int) -> int:
        """Return the number of keys in each part of attention over ``keys`` in pages; ``keys`` for a single part."""
        return keys

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

    async def caught_up(self) -> None:
        """Return once the device has taken all earlier writes; one that is queued before that may block the thread."""
        return

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

    def chains(self, op: Op, specs: Sequence[Spec], result: Spec) -> bool:
        """Return whether an elementwise op of operands ``specs`` has the same bits in a chain as alone."""
        return True

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

    async def run_chain(
        self,
        executable: E,
        arena: int,
        hosts: memoryview,
        leaves: Sequence[int],
        outputs: Sequence[int],
        chain: tuple[int, int, int],
    ) -> None:
        """Queue several runs at once, where ``chains_runs``.

        ``chain`` is the number of runs, and the numbers of an output and of the leaf as which each run but the first
        reads it. ``hosts`` has what each run writes first. The last of ``outputs`` gets that output of every run.
        """
        raise TensorCommonsError(f"the {self.kind} device runs one program at a time")

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
