"""The CPU device, which exists everywhere: the executable specification of every op, and the last fallback.

It runs the steps of a plan one after another: each by the NumPy reference of its op, or in a browser by a kernel of
WebAssembly (kernels.py, code.py). NumPy in a browser has no BLAS; its ``rates`` and those of the kernels are below.
A run yields to the event loop every :data:`TURN` seconds, so that a page stays responsive and a run can be cancelled.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from ...bridge.byte_buffer import ByteBuffer, Data
from ...dtypes import ALL, float32
from ...errors import DeviceMemoryError
from ...shapes import Layout
from ..backend import Backend, DeviceKind
from ..base import COPY, TIMED, Command, Op, Operand, Place, Plan, Probe, Range, Spec, Step, Timing, Work
from ..facts import Facts, Rates
from .code import Code, CodeRange, address_of, assemble
from .elementwise import computes
from .kernels import reads, records_of
from .paging import attends
from .quantized import BLOCKS
from .record import loaded

ADDRESSES = 2**32 - 2**16  # the largest size of WebAssembly's memory in bytes
RESERVED = 2**28  # bytes of it for Python, NumPy and the temporary arrays of a run
TURN = 0.02  # seconds between two yields to the event loop

PRODUCT = Op("matmul", lambda specs, attrs: specs[0], np.matmul)
SIDE = 256  # of the matrices of a probe: 34 million operations, which NumPy in a browser takes 20 ms for


def _step_of(op: Op, spec: Spec, leaves: int) -> Step:
    """One step from ``leaves`` values to a result, all of one spec."""
    layout = Layout.contiguous(spec.shape)
    operands = [Operand(Place("leaf", i, 0, spec.nbytes), layout, spec.dtype) for i in range(leaves)]
    return Step(op, {}, tuple(operands), Operand(Place("output", 0, 0, spec.nbytes), layout, spec.dtype))


class CpuBackend(Backend[Code]):
    """A device whose values are NumPy arrays of bytes.

    In a browser these are in WebAssembly's memory, which has 32-bit addresses: an array has at most ``largest`` bytes,
    and all arrays together at most ``memory``, which leaves room for Python and for the temporary arrays of a run.
    """

    kind = "cpu"
    block_formats = frozenset(BLOCKS)
    name = f"NumPy {np.__version__}"
    is_software = True
    facts = Facts(
        rank=4,
        fallback_rank=1,
        what="the slowest",
        why="neither a GPU adapter nor WebNN was found",
        rates=Rates(0.25, 1e6, 2e5, 5e5),
        is_host=True,
        dtypes=tuple(ALL),
    )

    def __init__(self) -> None:
        kernels, what = loaded()
        self.features = (what if kernels else f"no kernels: {what}",)
        self.multiplies_int8 = kernels is not None
        if kernels:
            self.name = f"{what}, NumPy {np.__version__}"
            why = "neither a hardware GPU nor WebNN was found"
            self.facts = replace(self.facts, rank=2, what="on one core", why=why, rates=Rates(0.25, 2e7, 8e5, 5e5))
        self.limits: dict[str, int] = {}
        self.largest = sys.maxsize
        if sys.maxsize < 2**32:
            self.memory = ADDRESSES - RESERVED
        self.arrays: dict[int, np.ndarray[Any, np.dtype[np.uint8]]] = {}

    def allocate(self, handle: int, nbytes: int, spec: Spec | None) -> None:
        self.arrays[handle] = self._empty(nbytes)

    def _empty(self, nbytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Allocate bytes that are written before they are read: zeroing a gigabyte takes a browser half a second."""
        try:
            if nbytes <= self.largest:
                return np.empty(nbytes, np.uint8)
            reason = f"an array there has at most {self.largest:,} bytes"
        except (MemoryError, ValueError) as error:  # the latter for more bytes than an address has
            reason = str(error)
        raise DeviceMemoryError(self.kind, f"a value of {nbytes:,} bytes", reason, nbytes)

    def refusal(self, tensors: Mapping[str, Spec]) -> str:
        for name, spec in tensors.items():
            if spec.nbytes > self.largest:
                return f"{name} takes {spec.nbytes:,} bytes, and an array there at most {self.largest:,}"
        return ""

    def free(self, handle: int) -> None:
        del self.arrays[handle]

    def write(self, handle: int, offset: int, data: Data) -> None:
        target = self.arrays[handle][offset : offset + data.nbytes]
        if isinstance(data, ByteBuffer):
            data.copy_to(target.data)
        else:
            target[:] = np.frombuffer(data, np.uint8)

    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        return [memoryview(self.arrays[handle][start : start + size].copy()) for handle, start, size in ranges]

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        self.arrays[target][target_offset : target_offset + nbytes] = self.arrays[source][
            source_offset : source_offset + nbytes
        ]

    def accepts_layout(self, op: Op, position: int, layout: Layout) -> bool:
        return reads(op, position, layout)

    def chains(self, op: Op, specs: Sequence[Spec], result: Spec) -> bool:
        return computes(op, specs, result) or not loaded()[0]

    def attends_in_pages(self, operands: Sequence[Spec]) -> bool:
        return loaded()[0] is not None and attends(operands)

    async def compile(self, plan: Plan) -> Code:
        return assemble(plan)

    async def run(
        self, executable: Code, arena: int, host: memoryview, leaves: Sequence[int], outputs: Sequence[int]
    ) -> None:
        if host.nbytes:
            self.write(arena, 0, host)
        results = [self._empty(nbytes) for nbytes in executable.plan.output_bytes]
        view = self._bind(executable, arena, leaves, results)
        turn = -math.inf
        with np.errstate(all="ignore"):  # infinities and NaN are results here, as on every other device
            for part in executable.parts:
                self._execute(executable, part, view)
                if perf_counter() - turn > TURN:
                    await asyncio.sleep(0)
                    turn = perf_counter()
        self.arrays.update(zip(outputs, results, strict=True))

    def _bind(
        self, executable: Code, arena: int, leaves: Sequence[int], results: Sequence[Any]
    ) -> Callable[[Operand], Any]:
        """Write the addresses of a run into the code, and return the function that views an operand as an array."""
        scratch = self._empty(executable.scratch_bytes)
        arrays = [self.arrays.get(arena), *(self.arrays[leaf] for leaf in leaves), *results, scratch]
        executable.link([0 if array is None else address_of(array) for array in arrays])
        first = {"arena": 0, "leaf": 1, "output": 1 + len(leaves)}

        def view(operand: Operand) -> Any:
            place, layout, dtype = operand.place, operand.layout, operand.dtype.numpy
            if not layout.size:
                return np.empty(layout.shape, dtype)
            raw = arrays[first[place.kind] + place.index]
            strides = [stride * dtype.itemsize for stride in layout.strides]
            try:
                return np.ndarray(layout.shape, dtype, raw, place.offset + layout.offset * dtype.itemsize, strides)
            except ValueError as error:  # a broadcast view of more bytes than an address has
                raise DeviceMemoryError(self.kind, f"a view of {layout.size:,} elements", str(error)) from None

        return view

    def _execute(self, executable: Code, part: CodeRange, view: Callable[[Operand], Any]) -> None:
        step = part.step
        if step is None:
            executable.execute(part)
            return
        try:
            if step.op.in_place:
                step.op.in_place(*map(view, step.inputs), **step.attrs)  # the first of them is where the result is
            else:
                view(step.output)[...] = step.op.reference(*map(view, step.inputs), **step.attrs)
        except MemoryError as error:
            raise DeviceMemoryError(self.kind, step.op.name, str(error)) from None

    def commands(self, plan: Plan) -> Iterator[Command]:
        for step in plan.steps:
            layouts = [(each.layout, each.dtype.name) for each in (*step.inputs, step.output)]
            yield Command(
                (Work.of_step(step),),
                "NumPy" if records_of(step) is None else "WebAssembly",
                f"{step.op.name} {dict(step.attrs)} {layouts}",
            )

    async def time(
        self,
        executable: Code,
        classes: Sequence[int],
        arena: int,
        host: memoryview,
        leaves: Sequence[int],
        outputs: Sequence[int],
    ) -> dict[int, Timing]:
        if host.nbytes:
            self.write(arena, 0, host)
        apart = assemble(executable.plan, apart=True).parts  # ranges of the same words
        view = self._bind(executable, arena, leaves, [self.arrays[handle] for handle in outputs])
        timed: dict[int, Timing] = {}
        with np.errstate(all="ignore"):
            for step, number in enumerate(classes):
                parts = [part for part in apart if part.number == step]
                count, began = 0, perf_counter()
                while count == 0 or (number >= 0 and number not in timed and perf_counter() - began < TIMED / 1e3):
                    for part in parts:
                        self._execute(executable, part, view)
                    count += 1
                if number >= 0 and number not in timed:
                    timed[number] = Timing((perf_counter() - began) * 1e3 / count)
                await asyncio.sleep(0)
        return timed

    def probes(self, nbytes: int) -> tuple[Probe, Probe]:
        flat = Spec((max(nbytes // 8, 1),), float32)
        square = Spec((min(math.isqrt(flat.shape[0]), SIDE),) * 2, float32)
        copied = Plan((_step_of(COPY, flat, 1),), 0, 0, 1, (flat.nbytes,))
        product = Plan((_step_of(PRODUCT, square, 2),), 0, 0, 2, (square.nbytes,))
        return Probe(copied, 2 * flat.nbytes, (flat,)), Probe(product, 2 * square.shape[0] ** 3, (square, square))

    def discard(self, executable: Code) -> None:
        pass

    async def wait(self) -> None:
        pass

    def close(self) -> None:
        self.arrays.clear()

    async def reopen(self) -> None:
        self.arrays.clear()

    def live_buffers(self) -> int:
        return len(self.arrays)


async def _open(wish: str) -> CpuBackend:
    return CpuBackend()


KIND = DeviceKind(CpuBackend.kind, _open)
