"""WebGPU from Python: the proxy of ``webgpu.js``, with every call into JavaScript counted.

A forward pass is one ``run``; the count is what proves it.
"""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DeviceError, DeviceLost, DeviceMemoryError, DeviceUnavailable, TensorCommonsError
from .byte_buffer import ByteBuffer, Data, raw_of
from .loader import load_js_module
from .reply import Reply, settle
from .runtime import IN_BROWSER

if IN_BROWSER:
    from pyodide.ffi import JsException, create_once_callable, create_proxy


_log = logging.getLogger("tensorcommons")


class WebGPUBridge:
    """One GPUDevice. ``calls`` counts the calls into JavaScript since it was opened."""

    def __init__(self, gpu: Any) -> None:
        self.calls = 0
        self._staging = 0
        self._lowered: dict[str, int] = {}
        self._hosts: dict[int, Any] = {}  # by program: what its next run writes first
        self._targets: dict[int, memoryview | None] = {}  # of the reads under way, by the numbers of their replies
        self._callbacks = _callbacks(self._targets)
        self._watch(gpu)
        info = json.loads(gpu.info)
        self.description: str = info["description"]
        self.fallback: bool = info["fallback"]
        self.features: frozenset[str] = frozenset(info["features"])
        self.subgroups: tuple[int, int] = tuple(info["subgroups"])
        self.matrices: frozenset[tuple[str | int, ...]] = frozenset(map(tuple, info["matrices"]))
        self.limits: dict[str, int] = info["limits"]

    @classmethod
    async def open(cls) -> WebGPUBridge:
        """Request an adapter and its device from the browser.

        Raises:
            DeviceUnavailable: there is none; the reason is the browser's.
        """
        return cls(await _open())

    def lower(self, limits: Mapping[str, int]) -> None:
        """Apply lower limits than the device has, as of a smaller one: by their names, in bytes or counts."""
        self._lowered = {name: min(value, self.limits[name]) for name, value in limits.items()}
        self._obey()

    def _obey(self) -> None:
        self.limits |= self._lowered
        if "maxBufferSize" in self._lowered:
            self._gpu.bufferBytes = self.limits["maxBufferSize"] // 256 * 256

    @property
    def proxy(self) -> Any:
        """The JavaScript side, to which WebNN lends tensors."""
        return self._gpu

    @property
    def is_lost(self) -> bool:
        """True if the browser took the device away."""
        return bool(self._loss)

    @property
    def loss(self) -> str:
        """The browser's words for that, or nothing."""
        return self._loss

    async def reopen(self) -> None:
        """Replace the device by a new one, with nothing on it. Raises DeviceUnavailable if there is none."""
        self._gpu.closeDevice()
        self._hosts.clear()
        self._watch(await _open())
        self._obey()

    def _watch(self, gpu: Any) -> None:
        """Use ``gpu`` from now on, and record its loss by a callback, because a query is a call into JavaScript."""
        self._gpu, self._reads, self._programs = gpu, gpu.reads, gpu.programs
        self._loss = ""

        def lost(why: str) -> None:
            if self._gpu is gpu:
                self._loss = why

        gpu.whenLost(create_once_callable(lost))
        gpu.listen(*self._callbacks)

    def _typed(self, error: Exception | str) -> TensorCommonsError:
        """Make DeviceLost, DeviceMemoryError or DeviceError of an exception of JavaScript, or the text of a Fault."""
        if self._gpu.lost:
            return DeviceLost(f"the WebGPU device was lost ({self._gpu.lost}); open it again")
        if isinstance(error, str):
            fault = json.loads(error)
        else:
            thrown = getattr(error, "js_error", error)
            fault = {name: str(getattr(thrown, name, "")) for name in ("kind", "work", "message")}
            fault["message"] = fault["message"] or str(error)
        kind = DeviceMemoryError if fault["kind"] == "out-of-memory" else DeviceError
        return kind("webgpu", fault["work"] or "a command", fault["message"])

    def create(self, handle: int, nbytes: int) -> None:
        """Create a zeroed storage buffer under ``handle``."""
        self.calls += 1
        try:
            self._gpu.createBuffer(handle, nbytes)
        except JsException as error:
            raise self._typed(error) from error

    async def check(self, handles: Sequence[int]) -> None:
        """Wait until the device confirms that ``handles`` were created and filled. Raises the error of a failure."""
        self.calls += 1
        fault = str(await self._gpu.checkBuffers(*handles))
        if fault:
            raise self._typed(fault)

    def destroy(self, handle: int) -> None:
        """Destroy the buffer under ``handle``."""
        self.calls += 1
        self._gpu.destroyBuffer(handle)

    async def caught_up(self) -> None:
        """Return once the browser has taken all queued work, so that the next write does not block."""
        self.calls += 1
        await self._gpu.caughtUp()

    def write(self, handle: int, offset: int, data: Data) -> None:
        """Queue a write of ``data``."""
        if not data.nbytes:
            return
        self.calls += 1
        self._gpu.writeBuffer(handle, offset, raw_of(data))

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        """Queue a copy between buffers."""
        if not nbytes:
            return
        self.calls += 1
        self._gpu.copyBuffer(source, source_offset, target, target_offset, nbytes)

    def stage(self, nbytes: int) -> None:
        """Keep a buffer of ``nbytes`` for reads from the next one on; 0 destroys it."""
        self._staging = nbytes
        if not nbytes:
            self.calls += 1
            self._reads.stage(0)

    async def read(self, ranges: Sequence[tuple[int, int, int]]) -> list[memoryview]:
        """Map one copy of all ranges (handle, offset, nbytes) and return their bytes."""
        self.calls += 1
        words: list[int] = []  # copies and maps need whole words: both ends of a range are widened and then cut
        cuts, length = [], 0
        for handle, offset, nbytes in ranges:
            start = offset & ~3
            whole = (offset + nbytes + 3 & ~3) - start
            words += handle, start, whole
            cuts.append(slice(length + offset - start, length + offset - start + nbytes))
            length += whole
        if not length:
            return [memoryview(b"") for _ in ranges]
        data = np.empty(length, np.uint8).data
        await self._replied(data, lambda number: self._reads.begin(number, self._staging, *words))
        return [data[cut] for cut in cuts]

    async def read_block(self, handle: int, offset: int, nbytes: int) -> ByteBuffer:
        """Read ``nbytes`` from ``offset``, a multiple of 4, without a copy in Python's memory."""
        block = ByteBuffer(nbytes)
        if nbytes:
            self.calls += 1
            words = handle, offset, nbytes + 3 & ~3
            await self._replied(None, lambda number: self._reads.beginInto(number, self._staging, block.raw, *words))
        return block

    async def _replied(self, data: memoryview | None, begin: Callable[[int], None]) -> None:
        """Wait for a read that ``begin`` starts under the number of a reply. Raises the error of a failure."""
        with Reply() as reply:
            self._targets[reply.number] = data
            try:
                begin(reply.number)
                error = await reply
            finally:
                del self._targets[reply.number]
        if error:
            raise self._typed(error)

    async def compile(
        self, program: int, description: str, params: memoryview, tell: Callable[[int, int], None]
    ) -> None:
        """Compile the pipelines of a description (see ``webgpu/programs.js``) and keep it under ``program``.

        ``tell(done, total)`` is called as they are compiled.
        """
        self.calls += 1
        try:
            self._hosts[program] = await self._programs.compile(program, description, params, tell)
        except JsException as error:
            raise self._typed(error) from error

    def run(
        self, program: int, arena: int, host: memoryview, first: int, leaves: Sequence[int] | None
    ) -> Awaitable[bool] | None:
        """Replay ``program`` over ``leaves``, or ``None`` for those of its run before. Outputs: ``first`` and on.

        ``None`` once it is queued. A program of several parts gives what to await; it is False if the run was stopped,
        without outputs then.
        """
        self.calls += 1
        bound = None if leaves is None else memoryview(array("i", leaves))
        try:
            if host.nbytes:
                self._hosts[program].assign(host)
            queued = self._programs.run(program, arena, first, bound)
        except JsException as error:
            raise self._typed(error) from error
        return None if queued is True else self._rest_of(queued)

    def run_chain(
        self,
        program: int,
        arena: int,
        hosts: memoryview,
        first: int,
        leaves: Sequence[int],
        chain: tuple[int, int, int],
    ) -> None:
        """Replay ``program`` several times: ``chain`` is how often, the output that is fed back, and its leaf."""
        self.calls += 1
        try:
            self._programs.runChain(program, arena, first, memoryview(array("i", leaves)), hosts, *chain)
        except JsException as error:
            raise self._typed(error) from error

    async def _rest_of(self, parts: Any) -> bool:
        try:
            return bool(await parts)
        except JsException as error:
            raise self._typed(error) from error

    async def time(
        self, program: int, classes: Sequence[int], least: float, arena: int, host: memoryview, handles: Sequence[int]
    ) -> list[tuple[int, float, float]]:
        """Time a dispatch of each of ``classes`` for ``least`` milliseconds, over ``handles`` (leaves, then outputs).

        Returns the class, milliseconds by the host's clock, and by the device's (0 if it has none). Raises the error
        of a failure, and DeviceError if it was stopped.
        """
        self.calls += 1
        numbers, bound = memoryview(array("i", classes)), memoryview(array("i", handles))
        try:
            found = await self._programs.time(program, numbers, least, arena, host, bound)
        except JsException as error:
            raise self._typed(error) from error
        return [(int(number), ms, on_device) for number, ms, on_device in json.loads(found)]

    def stop(self, program: int) -> None:
        """End the run of ``program`` at its next part."""
        self.calls += 1
        self._programs.stop(program)

    def spare(self, program: int, number: int, handle: int) -> None:
        """Leave the buffer of ``handle`` to ``program``: the output ``number`` of its next run is written there."""
        self.calls += 1
        self._programs.spare(program, number, handle)

    def drop_spares(self, program: int) -> None:
        """Destroy what :meth:`spare` left to ``program``."""
        self.calls += 1
        self._programs.dropSpares(program)

    def discard(self, program: int) -> None:
        """Destroy a compiled program."""
        self.calls += 1
        self._hosts.pop(program, None)
        self._programs.discard(program)

    def abandon(self, program: int) -> None:
        """Forget a program, also one that is still being compiled: its compilation then fails."""
        self.calls += 1
        self._programs.abandon(program)

    async def wait(self) -> None:
        """Wait until the queue is empty."""
        self.calls += 1
        await self._gpu.wait()

    def errors(self) -> str:
        """Take the device errors that belong to no operation, for tests and diagnostics; they were logged."""
        return str(self._gpu.takeErrors())

    def live(self) -> int:
        """Number of buffers that exist."""
        return int(self._gpu.liveBuffers())

    def close(self) -> None:
        """Destroy everything, the GPUDevice too."""
        self._gpu.closeDevice()
        self._hosts.clear()


def _callbacks(targets: Mapping[int, memoryview | None]) -> tuple[Any, Any, Any]:
    """Make the callbacks for JavaScript: the bytes of a read, the end of a read, and errors without an operation.

    The bytes of a read that was cancelled are ignored.
    """

    def take(number: int, data: Any) -> None:
        target = targets.get(number)
        if target is not None and target.nbytes:
            data.assign_to(target)

    def log_error(message: str) -> None:
        _log.error("the WebGPU device reported an error of %s", message)

    return create_proxy(take), create_proxy(settle), create_proxy(log_error)


async def _open() -> Any:
    """Open a new device, and return its JavaScript side."""
    if not IN_BROWSER:
        raise DeviceUnavailable("webgpu", "this Python does not run in a browser")
    module = await load_js_module("webgpu", "webgpu.js")
    try:
        gpu = await module.open()
    except JsException as error:
        raise DeviceUnavailable("webgpu", f"the browser refused a device: {error}") from error
    if not gpu:  # JavaScript's null is not None in Pyodide
        raise DeviceUnavailable("webgpu", str(module.reasonWithoutAdapter()))
    return gpu
