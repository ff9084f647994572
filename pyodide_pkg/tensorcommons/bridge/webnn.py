"""WebNN from Python: the proxy of ``webnn.js``, with every call into JavaScript counted."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

from ..errors import DeviceLost, DeviceMemoryError, DeviceUnavailable, TensorCommonsError
from .byte_buffer import ByteBuffer, Data, raw_of
from .loader import load_js_module
from .reply import Reply, settle
from .runtime import IN_BROWSER
from .webgpu import WebGPUBridge

_settles = False  # replies, by a proxy that the module of webnn.js has
Pairs: TypeAlias = "Sequence[tuple[int, int]]"
Limits = dict[str, Any]  # opSupportLimits(): of each builder method, by operand, its dataTypes and rankRange


class WebNNBridge:
    """One MLContext. ``calls`` counts the calls into JavaScript since it was opened.

    ``wish`` is the kind of device that was requested; WebNN does not report the one in use.
    """

    def __init__(self, ml: Any, wish: str) -> None:
        self._attach(ml)
        self.wish = wish
        self.calls = 0
        info = json.loads(ml.info)
        self.limits: Limits = info["limits"]
        self.cores: int = info["cores"]
        self.no_constants: str = info["noConstants"]

    def _attach(self, ml: Any) -> None:
        """Call ``ml`` from now on. A bound method is kept for each call of a replayed run: a look-up takes as long."""
        from pyodide.ffi import to_js

        self.proxy, self._to_js, self._typed_errors = ml, to_js, _TypedErrors(ml)
        self._run_program, self._read_tensor = ml.runProgram, ml.replyWithTensor
        self._leaves: dict[int, list[int]] = {}  # handles of the leaves of each program's last run
        self._spares: dict[int, dict[int, int]] = {}  # handles that a program's next run writes, by output

    @classmethod
    async def open(cls, wish: str = "") -> WebNNBridge:
        """Request a context on a "cpu", "gpu" or "npu", or on the device that the browser chooses.

        Raises:
            DeviceUnavailable: there is none; the reason is the browser's.
        """
        return cls(await _open(wish), wish)

    @property
    def is_lost(self) -> bool:
        """True if the browser took the context away."""
        return bool(self.proxy.lost)

    @property
    def loss(self) -> str:
        """The browser's words for that, or nothing."""
        return str(self.proxy.lost) if self.proxy.lost else ""

    async def reopen(self) -> None:
        """Replace the context by a new one, with nothing on it. Raises DeviceUnavailable if there is none."""
        self.proxy.closeContext()
        self._attach(await _open(self.wish))
        self.limits = json.loads(self.proxy.info)["limits"]

    def create(self, handle: int, dtype: str, shape: Sequence[int]) -> None:
        """Create a zeroed MLTensor under ``handle``."""
        self.calls += 1
        self.proxy.createTensor(handle, dtype, json.dumps(shape))

    async def check(self, handles: Sequence[int]) -> None:
        """Wait until the tensors under ``handles`` exist. Raises DeviceMemoryError if one could not be made."""
        self.calls += 1
        with self._typed_errors:
            failure = str(await self.proxy.checkTensors(*handles))
        if failure:
            work, _, reason = failure.partition(": ")
            raise DeviceMemoryError("webnn", work, reason)

    def destroy(self, handle: int) -> None:
        """Destroy the tensor under ``handle``."""
        self.calls += 1
        self.proxy.destroyTensor(handle)

    def write(self, handle: int, offset: int, data: Data) -> None:
        """Queue a write of ``data``."""
        self.calls += 1
        with self._typed_errors:
            self.proxy.writeTensor(handle, offset, raw_of(data))

    def fill(self, handle: int, offset: int, data: Data) -> None:
        """Take the next bytes of a tensor that is written in order; it is written when the last ones arrive."""
        if not isinstance(data, ByteBuffer):
            with ByteBuffer.of(data) as block:
                self.fill(handle, offset, block)
        elif data.nbytes:
            self.calls += 1
            with self._typed_errors:
                self.proxy.fillTensor(handle, offset, data.raw)

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        """Queue a copy between tensors."""
        self.calls += 1
        self.proxy.copyTensor(source, source_offset, target, target_offset, nbytes)

    async def read(self, ranges: Sequence[tuple[int, int, int]]) -> list[memoryview]:
        """Read the bytes of all ranges (handle, offset, nbytes)."""
        rest: memoryview = (await self._read(ranges)).to_memoryview()
        if len(ranges) == 1:
            return [rest]
        result = []
        for _, _, nbytes in ranges:
            result.append(rest[:nbytes])
            rest = rest[nbytes:]
        return result

    async def read_block(self, handle: int, offset: int, nbytes: int) -> ByteBuffer:
        """Read one range without a copy in Python's memory."""
        return ByteBuffer.taking(await self._read([(handle, offset, nbytes)]))

    async def _read(self, ranges: Sequence[tuple[int, int, int]]) -> Any:
        """Read the bytes of all ranges, concatenated, into an array of JavaScript."""
        self.calls += 1
        with self._typed_errors:
            if len(ranges) == 1:
                reply = Reply()
                self._read_tensor(reply.number, *ranges[0])
                return await reply
            return await self.proxy.readTensors(_ints(value for each in ranges for value in each))

    async def lending(self, gpu: WebGPUBridge) -> str:
        """Try to lend a tensor to WebGPU, in a context of its own; return the reason if it fails, else "".

        If it works, every tensor that is created from now on can be lent.
        """
        self.calls += 1
        return str(await self.proxy.tryLending(gpu.proxy))

    async def lend(self, handle: int, gpu: WebGPUBridge, buffer: int, nbytes: int, *, give: bool) -> None:
        """Lend a tensor to WebGPU, which copies it to its ``buffer`` (``give``), or that to the tensor."""
        self.calls += 1
        with self._typed_errors:
            await self.proxy.lendTensor(handle, gpu.proxy, buffer, nbytes, give)

    async def build(self, program: int, description: str, tell: Callable[[int, int], bool]) -> None:
        """Build the graphs of a description (see ``webnn.js``) and keep them under ``program``.

        ``tell(done, total)`` is called for each graph; if it returns False the build ends there, and nothing is kept.
        """
        from pyodide.ffi import create_proxy

        self.calls += 1
        heard = create_proxy(tell)
        try:
            with self._typed_errors:
                await self.proxy.buildProgram(program, description, heard)
        finally:
            heard.destroy()

    def run(self, program: int, host: memoryview, leaves: list[int], outputs: Sequence[int]) -> Awaitable[None] | None:
        """Replay ``program`` over the handles of its leaves and outputs.

        Returns None once it is queued, or an awaitable if a tensor is not ready yet. Leaves that are those of the run
        before are not passed again: of a hundred, that would take longer than the rest of the call.
        """
        self.calls += 1
        others = None if leaves == self._leaves.get(program) else _ints(leaves)
        data, spares = self._to_js(host) if host.nbytes else None, self._spares.pop(program, {})
        with self._typed_errors:
            queued = self._run_program(
                program, data, others, *outputs, *[spares.get(i, 0) for i in range(len(outputs))]
            )
        self._leaves[program] = leaves
        return None if queued is True else self._queued(queued)

    async def _queued(self, promise: Any) -> None:
        with self._typed_errors:
            await promise

    async def time(
        self, program: int, classes: Sequence[int], least: float, host: memoryview, handles: Sequence[int]
    ) -> list[tuple[int, float]]:
        """Time a graph of each of ``classes`` for ``least`` milliseconds, over ``handles`` (leaves, then outputs)."""
        self.calls += 1
        with self._typed_errors:
            found = await self.proxy.timeProgram(program, _ints(classes), least, host, _ints(handles))
        return [(int(number), ms) for number, ms in json.loads(found)]

    def spare(self, program: int, number: int, handle: int) -> None:
        """Leave the tensor of ``handle`` to ``program``: the output ``number`` of its next run is written there."""
        self._spares.setdefault(program, {})[number] = handle

    def drop_spares(self, program: int) -> None:
        """Destroy what :meth:`spare` left to ``program``."""
        for handle in self._spares.pop(program, {}).values():
            self.destroy(handle)

    def discard(self, program: int) -> None:
        """Destroy a built program."""
        self.calls += 1
        self._leaves.pop(program, None)
        self.drop_spares(program)
        self.proxy.discardProgram(program)

    async def build_constants(self, number: int, description: str, given: Sequence[tuple[int, int]]) -> None:
        """Build one graph and keep it under ``number``, with the tensors of ``given`` (node, handle) as constants."""
        self.calls += 1
        with self._typed_errors:
            await self.proxy.buildConstants(number, description, _ints(itertools.chain(*given)))

    def use_constants(self, program: int, stage: int, number: int, inputs: Pairs, outputs: Pairs) -> None:
        """Have a stage of ``program`` run the graph ``number``, with these pairs of node and slot."""
        self.calls += 1
        self.proxy.useConstants(program, stage, number, json.dumps([inputs, outputs]))

    def use_inputs(self, program: int) -> None:
        """Have ``program`` run the graphs that it was built with."""
        self.calls += 1
        self.proxy.useInputs(program)

    def drop_constants(self, number: int) -> None:
        """Destroy the graph ``number``; programs that used it run the one that they were built with."""
        self.calls += 1
        self.proxy.dropConstants(number)

    async def wait(self) -> None:
        """Wait until everything queued is done."""
        self.calls += 1
        with self._typed_errors:
            await self.proxy.wait()

    def live(self) -> int:
        """Number of tensors that exist under handles."""
        return int(self.proxy.liveTensors())

    def close(self) -> None:
        """Destroy everything, the context too."""
        self.proxy.closeContext()


class _TypedErrors:
    """Turn JavaScript's exceptions in a block into DeviceLost or TensorCommonsError."""

    def __init__(self, ml: Any) -> None:
        self._ml = ml

    def __enter__(self) -> None:
        """Do nothing: a replayed run enters several times."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        from pyodide.ffi import JsException

        if isinstance(error, JsException):
            if self._ml.lost:
                raise DeviceLost(f"the WebNN context was lost ({self._ml.lost}); open it again") from error
            raise TensorCommonsError(f"WebNN reported: {error}") from error


def _ints(values: Iterable[int]) -> memoryview:
    """Pack whole numbers for JavaScript as one buffer, instead of a proxy each."""
    return memoryview(array("i", values))


async def _open(wish: str) -> Any:
    """Open a new context, and return its JavaScript side."""
    if not IN_BROWSER:
        raise DeviceUnavailable("webnn", "this Python does not run in a browser")
    from pyodide.ffi import JsException, create_proxy

    global _settles
    module = await load_js_module("webnn", "webnn.js")
    if not _settles:
        _settles = True
        module.settleBy(create_proxy(settle))
    if reason := str(module.reasonWithoutContext()):
        raise DeviceUnavailable("webnn", reason)
    try:
        return await module.open(wish)
    except JsException as error:
        raise DeviceUnavailable("webnn", f"the browser refused a context: {error}") from error
