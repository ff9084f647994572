"""tensorcommons in the contest: plain Python in Pyodide, written as a user writes it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import tensorcommons as tc
from bench.report import OURS
from bench.workloads import HEADS, Work

Array: TypeAlias = np.ndarray[Any, Any]
Run: TypeAlias = Callable[[], Awaitable[Array]]
MEMORY_MB = 16_384  # far above what any work needs: nothing is evicted


class Prepared:
    """A run, and what ends it."""

    def __init__(self, run: Run, close: Callable[[], None]) -> None:
        self._run = run
        self._close = close
        self._last = np.zeros(0, np.float32)

    async def sample(self) -> float:
        started = time.perf_counter()
        self._last = await self._run()
        return (time.perf_counter() - started) * 1e3

    def result(self) -> Array:
        return self._last

    async def close(self) -> None:
        self._close()


class Ours:
    """The contestant. ``bytes_of`` counts the bytes of its WebGPU buffers from outside, as for everybody."""

    name = OURS
    version = tc.__version__
    device = "webgpu"

    def __init__(self, devices: tc.Devices, bytes_of: Callable[[], int]) -> None:
        assert devices.webgpu is not None
        self.gpu = devices.webgpu
        self.devices = devices
        self.device_bytes = bytes_of

    async def prepare(self, work: Work) -> Prepared:
        if work.group in ("encoder", "heads"):
            return await self._models(work)
        return self._chain(work)

    def _chain(self, work: Work) -> Prepared:
        tensors = {name: tc.asarray(array, device=self.gpu) for name, array in work.arrays.items()}

        async def run() -> Array:
            older = newer = tensors["x"]
            if work.kind == "add":
                newer = tensors["y"]
            for _ in range(work.steps):
                older, newer = newer, step(newer, older)
            return await newer[:1].read()

        def step(x: tc.Tensor, older: tc.Tensor) -> tc.Tensor:
            if work.kind == "matmul":
                return tc.matmul(x, tensors["b"])
            if work.kind == "add":
                return tc.add(x, older)
            if work.kind == "softmax":
                return tc.softmax(x, axis=-1)
            return tc.layer_norm(x, tensors["weight"], tensors["bias"])

        def close() -> None:
            for tensor in tensors.values():
                tensor.release()

        return Prepared(run, close)

    async def _models(self, work: Work) -> Prepared:
        manager = tc.TensorSharingManager(max_memory_mb=MEMORY_MB, devices=self.devices)

        async def load(folder: Path) -> tc.Model:
            return await tc.from_pretrained(str(folder), manager=manager, device=self.gpu, tokenizer=False)

        place = Path(work.folder)
        if work.kind == "encoder":
            models = [await load(place)]
        elif work.kind == "backbone":
            models = [await load(place / "MiniLM")]
        else:
            models = [await load(place / f"head-{i}") for i in range(HEADS)]
        inputs = {name: work.arrays[name] for name in work.feeds}
        output = {"encoder": "last_hidden_state", "backbone": "sentence_embedding"}.get(work.kind, "logits")

        async def run() -> Array:
            if work.kind == "together":
                answers = await manager.run_together([(model, inputs) for model in models])
                return [await answer[output].read() for answer in answers][-1]
            for model in models:
                result = await (await model(outputs=[output], **inputs))[output].read()
            return result

        def close() -> None:
            for model in models:
                model.unload()

        return Prepared(run, close)


async def host_times(devices: tc.Devices, folder: Path, length: int, runs: int = 50) -> dict[str, Any]:
    """What a replayed forward costs beside the device: milliseconds of Python, and calls into JavaScript.

    ``python_ms`` is the time from the call to the answer less what the one call into JavaScript took: checking and
    padding the inputs, finding the program, wrapping the outputs. ``submit_ms`` has that call, too; where commands go
    to the device in parts it includes the wait for all but the last, so it means something on hardware only.
    """
    gpu = devices.webgpu
    assert gpu is not None
    manager = tc.TensorSharingManager(max_memory_mb=MEMORY_MB, devices=devices)
    model = await tc.from_pretrained(str(folder), manager=manager, device=gpu, tokenizer=False)
    ids = np.random.default_rng(0).integers(1000, 20000, (1, length))
    bridge = gpu.backend.bridge  # type: ignore[attr-defined]
    inner = bridge.run
    inside = 0.0

    async def timed(*args: Any) -> Any:
        nonlocal inside
        started = time.perf_counter()
        try:
            return await inner(*args)
        finally:
            inside = time.perf_counter() - started

    python, submitted, calls, reads = [], [], set(), set()
    bridge.run = timed
    try:
        for turn in range(runs + 2):
            before = bridge.calls
            started = time.perf_counter()
            outputs = await model(outputs=["last_hidden_state"], input_ids=ids)
            elapsed = time.perf_counter() - started
            after = bridge.calls
            await outputs["last_hidden_state"].read()
            reading = bridge.calls - after
            del outputs
            if turn >= 2:  # the first one compiles
                python.append((elapsed - inside) * 1e3)
                submitted.append(elapsed * 1e3)
                calls.add(after - before)
                reads.add(reading)
    finally:
        del bridge.run
        model.unload()
    return {
        "python_ms": python,
        "submit_ms": submitted,
        "calls_a_forward": sorted(calls),
        "calls_a_read": sorted(reads),
    }
