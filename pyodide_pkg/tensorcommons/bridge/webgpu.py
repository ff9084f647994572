"""WebGPU from Python: the proxy of ``webgpu.js``, with every call into JavaScript counted.

A forward pass is one ``run``; the count is what proves it.
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import DeviceLost, DeviceUnavailable, TensorCommonsError
from .blocks import Data, raw_of
from .loader import load_js_module
from .runtime import IN_BROWSER


class WebGPUBridge:
    """One GPUDevice. ``calls`` counts the calls into JavaScript since it was opened."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self.calls = 0
        self._staging = 0
        info = json.loads(gpu.info)
        self.description: str = info["description"]
        self.fallback: bool = info["fallback"]
        self.features: frozenset[str] = frozenset(info["features"])
        self.subgroups: tuple[int, int] = tuple(info["subgroups"])
        self.matrices: frozenset[tuple[str | int, ...]] = frozenset(map(tuple, info["matrices"]))
        self.limits: dict[str, int] = info["limits"]

    @classmethod
    async def open(cls) -> WebGPUBridge:
        """Ask the browser for an adapter and its device.

        Raises:
            DeviceUnavailable: there is none; the reason is the browser's.
        """
        return cls(await _open())

    @property
    def proxy(self) -> Any:
        """The JavaScript side, for WebNN to lend tensors to."""
        return self._gpu

    @property
    def is_lost(self) -> bool:
        """Whether the browser took the device away."""
        return bool(self._gpu.lost)

    @property
    def loss(self) -> str:
        """The browser's words for that, or nothing."""
        return str(self._gpu.lost) if self._gpu.lost else ""

    async def reopen(self) -> None:
        """Another device in place of this one, with nothing on it. Raises DeviceUnavailable if there is none."""
        self._gpu.closeDevice()
        self._gpu = await _open()

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        """What JavaScript throws becomes DeviceLost or TensorCommonsError."""
        from pyodide.ffi import JsException

        try:
            yield
        except JsException as error:
            if self._gpu.lost:
                raise DeviceLost(f"the WebGPU device was lost ({self._gpu.lost}); open it again") from error
            raise TensorCommonsError(f"the WebGPU device reported: {error}") from error

    def create(self, handle: int, nbytes: int) -> None:
        """A zeroed storage buffer under ``handle``."""
        self.calls += 1
        self._gpu.createBuffer(handle, nbytes)

    def destroy(self, handle: int) -> None:
        """Destroy the buffer under ``handle``."""
        self.calls += 1
        self._gpu.destroyBuffer(handle)

    def write(self, handle: int, offset: int, data: Data) -> None:
        """Queue a write of ``data``."""
        self.calls += 1
        self._gpu.writeBuffer(handle, offset, raw_of(data))

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        """Queue a copy between buffers."""
        self.calls += 1
        self._gpu.copyBuffer(source, source_offset, target, target_offset, nbytes)

    def stage(self, nbytes: int) -> None:
        """Have the next read make a buffer of ``nbytes`` and keep it for those after it; 0 gives it back."""
        self._staging = nbytes
        if not nbytes:
            self.calls += 1
            self._gpu.stage(0)

    async def read(self, ranges: Sequence[tuple[int, int, int]]) -> list[memoryview]:
        """Map one copy of all ranges (handle, offset, nbytes) and give their bytes."""
        self.calls += 1
        rest = np.empty(sum(nbytes for _, _, nbytes in ranges), np.uint8).data
        with self._typed_errors():
            await self._gpu.readBuffers(rest, self._staging, *itertools.chain.from_iterable(ranges))
        result = []
        for _, _, nbytes in ranges:
            result.append(rest[:nbytes])
            rest = rest[nbytes:]
        return result

    async def compile(
        self, program: int, description: str, params: memoryview, tell: Callable[[int, int], None]
    ) -> None:
        """Compile the pipelines of a description (see ``webgpu.js``) and keep it under ``program``.

        ``tell(done, total)`` is called as they are compiled.
        """
        self.calls += 1
        with self._typed_errors():
            await self._gpu.compileProgram(program, description, params, tell)

    def run(
        self, program: int, arena: int, host: memoryview, first: int, leaves: Sequence[int] | None
    ) -> Awaitable[bool] | None:
        """Replay ``program`` over ``leaves``, or ``None`` for those of its run before. Outputs: ``first`` and on.

        ``None`` once it is queued. A program of several parts gives what to await; it is False if the run was stopped,
        without outputs then.
        """
        self.calls += 1
        with self._typed_errors():
            bound = None if leaves is None else memoryview(array("i", leaves))
            queued = self._gpu.runProgram(program, arena, host if host.nbytes else None, first, bound)
        return None if queued is True else self._rest_of(queued)

    async def _rest_of(self, parts: Any) -> bool:
        with self._typed_errors():
            return bool(await parts)

    def stop(self, program: int) -> None:
        """Ask the run of ``program`` to end at its next part."""
        self.calls += 1
        self._gpu.stopProgram(program)

    def discard(self, program: int) -> None:
        """Forget a compiled program."""
        self.calls += 1
        self._gpu.discardProgram(program)

    async def wait(self) -> None:
        """Until the queue is empty."""
        self.calls += 1
        await self._gpu.wait()

    def errors(self) -> str:
        """What the device complained about and no read has reported yet. For tests and diagnostics."""
        return str(self._gpu.takeErrors())

    def live(self) -> int:
        """How many buffers exist."""
        return int(self._gpu.liveBuffers())

    def close(self) -> None:
        """Destroy everything, the GPUDevice too."""
        self._gpu.closeDevice()


async def _open() -> Any:
    """The JavaScript side of a new device."""
    if not IN_BROWSER:
        raise DeviceUnavailable("webgpu", "this Python does not run in a browser")
    from pyodide.ffi import JsException

    module = await load_js_module("webgpu", "webgpu.js")
    try:
        gpu = await module.open()
    except JsException as error:
        raise DeviceUnavailable("webgpu", f"the browser refused a device: {error}") from error
    if not gpu:  # JavaScript's null is no None in Pyodide
        raise DeviceUnavailable("webgpu", str(module.reasonWithoutAdapter()))
    return gpu
