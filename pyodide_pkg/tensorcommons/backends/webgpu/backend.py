"""The WebGPU device: turns a plan into dispatches once, and replays them with one call into JavaScript."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from ...bridge.byte_buffer import ByteBuffer, Data
from ...bridge.runtime import Slices, in_slices
from ...bridge.webgpu import WebGPUBridge
from ...dtypes import ALL
from ...errors import TensorCommonsError, UnsupportedOp
from ...shapes import Layout, size_of
from ..backend import Backend, DeviceKind
from ..base import TIMED, BlockSpec, Command, Executable, Op, Place, Plan, Probe, Range, Spec, Step, Timing, Work
from ..facts import Facts, Rates
from .cutting import TooLarge, excess, lowered
from .kernels import KERNELS, Adapter, append, few_queries, few_rows
from .kernels.common import ENDLESS, LOOPS, require_shader_types
from .kernels.matmul import parts_of_depth
from .kernels.probe import PROBES, probes
from .packing import DECODERS
from .shader import Dispatch, compose
from .windows import ALIGNMENT, MOST, Windows

UNIFORM, ARENA, LEAVES = 0, 1, 2  # slots of bridge/webgpu/program.js: from 2 on a program's leaves and then its outputs
BESIDE = 3  # bindings that a step with a weight needs for its other operands
PART = 8  # dispatches a part on a software adapter: a run can be stopped between parts, a few ms apart each


def _named(plan: Plan) -> str:
    """Name a program by its ops, for messages."""
    names = list(dict.fromkeys(step.op.name for step in plan.steps))
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"a run of {', '.join(names[:4])}{more}"


@dataclass(frozen=True)
class _Composed:
    """A dispatch with its shader: ``part`` of the ``parts`` dispatches of ``steps``, and what :func:`compose` gives."""

    steps: tuple[Step, ...]
    dispatch: Dispatch
    part: int
    parts: int
    code: str
    letters: str
    places: list[Place]
    table: bytes

    @property
    def label(self) -> str:
        return f"{self.steps[-1].op.name} ({self.dispatch.shader})"

    @cached_property
    def key(self) -> str:
        """The identity of the pipeline."""
        return hashlib.sha256(f"{self.letters}\0{self.code}".encode()).hexdigest()


@dataclass(frozen=True)
class Replay(Executable):
    """A compiled plan: its id on the JavaScript side, and the leaves that it is bound to there."""

    id: int
    bound: list[int] = field(default_factory=list)


DTYPES = tuple(name for name, dtype in ALL.items() if dtype.wgsl is not None)
HARDWARE = Facts(
    rank=0,
    fallback_rank=0,
    what="a hardware GPU",
    why="it is a hardware GPU",
    rates=Rates(1.0, 1e9, 1e8, 5e5),  # orders of magnitude
    granularity=4,
    dtypes=DTYPES,
)
SOFTWARE = Facts(
    rank=3,
    fallback_rank=2,  # compiling takes longer than small work on the CPU device
    what="a software GPU adapter",
    why="neither a hardware GPU nor WebNN was found",
    rates=Rates(0.8, 2e6, 1e5, 4.5e5),
    granularity=4,
    badge="software",
    dtypes=DTYPES,
)


class WebGPUBackend(Backend[Replay]):
    """One GPUDevice behind the bridge."""

    kind = "webgpu"
    block_formats = frozenset(DECODERS)
    keeps_kernels = True
    keeps_spares = True
    keeps_staging = True

    def __init__(self, bridge: WebGPUBridge) -> None:
        self.bridge = bridge
        self.name = bridge.description
        self.is_software = bridge.fallback
        self.facts = SOFTWARE if bridge.fallback else HARDWARE
        self.limits = bridge.limits
        self.features = sorted(bridge.features)
        self.adapter = Adapter(
            bridge.fallback,
            bridge.features,
            bridge.subgroups,
            bridge.matrices,
            bridge.limits["maxComputeInvocationsPerWorkgroup"],
            bridge.limits["maxComputeWorkgroupStorageSize"],
            # Mesa's llvmpipe cannot be told by its name in every browser; of the others in software SwiftShader can.
            LOOPS if bridge.fallback and "swiftshader" not in bridge.description.lower() else ENDLESS,
        )
        self._ids = itertools.count(1)

    @property
    def calls(self) -> int:
        return self.bridge.calls

    @property
    def steps_cost(self) -> bool:  # type: ignore[override]
        return not self.adapter.fallback

    def joins_products(self, x: Spec, *, block_format: str = "", normed: bool = False, fast: bool = False) -> bool:
        fits = few_rows.fits(size_of(x.shape[:-1]), x.shape[-1], self.adapter, normed=normed, fast=fast)
        return fits and few_rows.reads(block_format)

    def rounds(self, x: Spec, block_format: str) -> bool:
        return self.joins_products(x, block_format=block_format, fast=True)

    @property
    def multiplies_int8(self) -> bool:  # type: ignore[override]
        return not self.adapter.fallback and "packed_4x8_integer_dot_product" in self.adapter.features

    def rotates(self, operands: Sequence[Spec]) -> bool:
        first, second = operands[:2]
        few = min(first.shape[2], second.shape[2]) <= few_queries.MOST and all(map(self.binds_whole, operands))
        return not self.adapter.fallback and few and all(each.shape[3] % 4 == 0 for each in operands[:2])

    def attends_in_pages(self, operands: Sequence[Spec]) -> bool:
        query, key, value, _ = operands
        whole = key.shape[:3] == value.shape[:3] and all(map(self.binds_whole, operands))
        return not self.adapter.fallback and whole and few_queries.fits(query.shape, value.shape)

    def keys_of_part(self, keys: int) -> int:
        return keys if self.adapter.fallback else few_queries.keys_of_part(keys)

    def parts_of_depth(self, rows: int, depth: int, columns: int) -> int:
        return 1 if self.adapter.fallback else parts_of_depth(rows, depth, columns)

    def allocate(self, handle: int, nbytes: int, spec: Spec | None) -> None:
        self.bridge.create(handle, nbytes)

    @property
    def _windows(self) -> Windows:
        """The sizes that the device binds at once."""
        return Windows.of_limits(self.limits)

    @property
    def _most_groups(self) -> int:
        """Workgroups along an axis."""
        return self.limits["maxComputeWorkgroupsPerDimension"]

    @property
    def buffer_bytes(self) -> int:
        return self.limits["maxBufferSize"] // ALIGNMENT * ALIGNMENT  # asked at each read

    def refusal(self, tensors: Mapping[str, Spec]) -> str:
        windows = self._windows
        most = (windows.count - BESIDE) * windows.binding
        for name, spec in tensors.items():
            if isinstance(spec, BlockSpec) and size_of(spec.weight_shape) > MOST:
                return f"{name} of shape {spec.weight_shape} has more numbers than the {MOST:,} that a shader counts to"
            rows = spec.shape[0] if len(spec.shape) in (2, 3) else 1  # of others a step reads all
            nbytes = spec.nbytes // max(rows, 1)
            if nbytes > most:
                return (
                    f"{name} of shape {spec.shape} has {nbytes:,} bytes that one step needs at once, and this WebGPU "
                    f"lets it bind {most:,}, in {windows.count - BESIDE} bindings of {windows.binding:,}"
                )
        return ""

    def misfit(self, plan: Plan) -> tuple[Step, str] | None:
        adapter = replace(self.adapter, windows=self._windows)
        for step in plan.steps:
            if any(operand.place.nbytes > adapter.windows.binding for operand in (*step.inputs, step.output)):
                try:
                    for _ in lowered(step, KERNELS[step.op.name], adapter, self._most_groups):
                        pass
                except TooLarge as error:
                    return step, str(error)
        return None

    def binds_whole(self, spec: Spec) -> bool:
        return spec.nbytes <= self._windows.binding

    def free(self, handle: int) -> None:
        self.bridge.destroy(handle)

    def write(self, handle: int, offset: int, data: Data) -> None:
        self.bridge.write(handle, offset, data)

    def stage(self, nbytes: int) -> None:
        self.bridge.stage(nbytes)

    def spare(self, executable: Replay, number: int, handle: int) -> None:
        self.bridge.spare(executable.id, number, handle)

    def drop_spares(self, executable: Replay) -> None:
        self.bridge.drop_spares(executable.id)

    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        return await self.bridge.read(ranges)

    async def read_block(self, handle: int, offset: int, nbytes: int) -> ByteBuffer:
        return await self.bridge.read_block(handle, offset, nbytes)

    async def caught_up(self) -> None:
        await self.bridge.caught_up()

    async def check(self, handles: Sequence[int]) -> None:
        await self.bridge.check(handles)

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        self.bridge.copy(source, source_offset, target, target_offset, nbytes)

    def accepts_layout(self, op: Op, position: int, layout: Layout) -> bool:
        return op.name in KERNELS and KERNELS[op.name].accepts(position, layout)

    async def compile(self, plan: Plan) -> Replay:
        dispatches, params, description = await in_slices(self._described(plan))
        executable = Replay(dispatches, len(params), next(self._ids))
        compiling = asyncio.ensure_future(
            self.bridge.compile(executable.id, description, memoryview(params), self.on_build)
        )
        try:
            await asyncio.wait([compiling])
            compiling.result()
        except asyncio.CancelledError:  # JavaScript finishes anyway, seconds later on a software adapter
            self.bridge.abandon(executable.id)
            compiling.add_done_callback(partial(self._forget, executable.id))
            raise
        finally:
            del compiling  # or its failure would keep this frame, and this frame its failure
        return executable

    def _forget(self, program: int, compiling: asyncio.Future[None]) -> None:
        """Discard a program that was compiled just before it was abandoned, and ignore any other's failure."""
        if not compiling.cancelled() and compiling.exception() is None:
            self.bridge.discard(program)

    def _described(self, plan: Plan) -> Slices[tuple[int, bytearray, str]]:
        """The number of dispatches of ``plan``, the bytes of their parameters, and all of it for JavaScript."""
        pipelines: dict[str, tuple[int, list[str]]] = {}
        dispatches = []
        params = bytearray()
        alignment = self.limits["minUniformBufferOffsetAlignment"]
        for each in self._dispatches(plan):
            yield
            index, _ = pipelines.setdefault(each.key, (len(pipelines), [each.key, each.label, each.code, each.letters]))
            uniforms = []
            for table in (each.dispatch.params, *([each.table] if each.table else [])):
                uniforms.append((UNIFORM, len(params), -(-len(table) // 16) * 16))
                params += table
                params += bytes(-len(params) % alignment)
            bindings = [uniforms[0], *(self._binding(place, plan.leaves) for place in each.places), *uniforms[1:]]
            dispatches.append((index, each.dispatch.groups, bindings))
        description = json.dumps(
            {
                "work": _named(plan),
                "pipelines": [entry for _, entry in pipelines.values()],
                "dispatches": dispatches,
                "outputs": plan.output_bytes,
                "written": plan.written,
                "part": PART if self.is_software else len(dispatches),
                "host": plan.host_bytes,
            }
        )
        return len(dispatches), params, description

    def _dispatches(self, plan: Plan) -> Iterator[_Composed]:
        """The dispatches of ``plan`` with their shaders. Raises UnsupportedOp."""
        adapter, waiting = replace(self.adapter, windows=self._windows), list(reversed(plan.steps))
        while waiting:
            step = waiting.pop()
            both = append.joined(step, waiting[-1], adapter) if waiting else None
            if both is None or excess(both, adapter.windows, self._most_groups):
                yield from self._composed(step, adapter)
            else:
                yield _Composed((step, waiting.pop()), both, 0, 1, *compose(both, adapter.windows))

    def _composed(self, step: Step, adapter: Adapter) -> Iterator[_Composed]:
        """The dispatches of ``step`` with their shaders. Raises UnsupportedOp."""
        kernel = KERNELS.get(step.op.name) or PROBES.get(step.op.name)
        if kernel is None:
            raise UnsupportedOp(step.op.name, "webgpu", "it has no kernel")
        require_shader_types(step)
        try:
            for half, dispatches in lowered(step, kernel, adapter, self._most_groups):
                done = [dispatch for dispatch in dispatches if min(dispatch.groups)]
                for part, dispatch in enumerate(done):
                    if dispatch.loops > self.adapter.loops:
                        raise UnsupportedOp(
                            step.op.name,
                            "webgpu",
                            f"it takes {dispatch.loops:,} iterations of a loop, and a software adapter like this may "
                            f"end loops after {self.adapter.loops:,}: compute smaller pieces, or use the cpu device",
                        )
                    yield _Composed((half,), dispatch, part, len(done), *compose(dispatch, adapter.windows))
        except TooLarge as error:
            reason = f"{error}: use fewer or shorter rows, float16, or another device"
            raise UnsupportedOp(step.op.name, "webgpu", reason) from None

    def commands(self, plan: Plan) -> Iterator[Command]:
        for each in self._dispatches(plan):
            sizes = [place.nbytes for place in each.places]
            given = f"{each.key} {each.dispatch.groups} {sizes} {each.dispatch.params.hex()}"
            work = tuple(map(Work.of_step, each.steps))
            yield Command(work, each.dispatch.shader, given, each.part, each.parts, each.code)

    async def time(
        self,
        executable: Replay,
        classes: Sequence[int],
        arena: int,
        host: memoryview,
        leaves: Sequence[int],
        outputs: Sequence[int],
    ) -> dict[int, Timing]:
        timing = asyncio.ensure_future(
            self.bridge.time(executable.id, classes, TIMED, arena, host, [*leaves, *outputs])
        )
        try:
            await asyncio.wait([timing])
            found = timing.result()
        except asyncio.CancelledError:
            self.bridge.stop(executable.id)
            await asyncio.wait([timing])
            with suppress(TensorCommonsError):
                timing.result()
            raise
        finally:
            del timing
        return {number: Timing(host_ms, device_ms if device_ms > 0 else None) for number, host_ms, device_ms in found}

    def probes(self, nbytes: int) -> tuple[Probe, Probe]:
        return probes(nbytes, hardware=not self.is_software)

    @staticmethod
    def _binding(place: Place, leaves: int) -> tuple[int, int, int]:
        slot = {"arena": ARENA, "leaf": LEAVES + place.index, "output": LEAVES + leaves + place.index}[place.kind]
        return slot, place.offset, max(-(-place.nbytes // 16) * 16, 16)

    async def run(
        self, executable: Replay, arena: int, host: memoryview, leaves: Sequence[int], outputs: Sequence[int]
    ) -> None:
        news = None if executable.bound == leaves else leaves
        parts = self.bridge.run(executable.id, arena, host, outputs[0] if outputs else 0, news)
        executable.bound[:] = leaves
        if parts is None:
            return
        running = asyncio.ensure_future(parts)
        try:
            await asyncio.wait([running])
            running.result()
        except asyncio.CancelledError:
            self.bridge.stop(executable.id)
            await asyncio.wait([running])
            # Too late to stop: the outputs exist and are not used. A lost device has none.
            if running.exception() is None and running.result():
                for handle in outputs:
                    self.bridge.destroy(handle)
            raise
        finally:
            del running  # the traceback of its failure has this frame: a cycle that would keep what the callers hold

    @property
    def chains_runs(self) -> bool:  # type: ignore[override]
        return not self.is_software

    @property
    def samples(self) -> bool:  # type: ignore[override]
        return not self.is_software

    async def run_chain(
        self,
        executable: Replay,
        arena: int,
        hosts: memoryview,
        leaves: Sequence[int],
        outputs: Sequence[int],
        chain: tuple[int, int, int],
    ) -> None:
        executable.bound.clear()
        self.bridge.run_chain(executable.id, arena, hosts, outputs[0], leaves, chain)

    def discard(self, executable: Replay) -> None:
        self.bridge.discard(executable.id)

    async def wait(self) -> None:
        await self.bridge.wait()

    def close(self) -> None:
        self.bridge.close()

    @property
    def is_lost(self) -> bool:
        return self.bridge.is_lost

    @property
    def loss(self) -> str:
        return self.bridge.loss

    async def reopen(self) -> None:
        await self.bridge.reopen()

    def live_buffers(self) -> int:
        return self.bridge.live()


async def _open(wish: str) -> WebGPUBackend:
    return WebGPUBackend(await WebGPUBridge.open())


KIND = DeviceKind(WebGPUBackend.kind, _open)
