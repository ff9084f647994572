"""The models that the page loaded, by its names for them, and one run at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import tensorcommons as tc
from tensorcommons.errors import TensorReleased

from .progress import Progress, at_most_every

Send: TypeAlias = Callable[[Any], None]


class Session:
    """The models of the page for its panels; ``runtime`` loads them, on the ``devices`` of its ``manager``."""

    def __init__(self) -> None:
        self.runtime: Any = None
        self.models: dict[str, tc.Model] = {}
        self._running = asyncio.Lock()  # one run at a time: the time shown is the run's own
        self._runs: set[asyncio.Task[Any]] = set()

    @property
    def manager(self) -> tc.TensorSharingManager:
        """The manager of all models."""
        manager: tc.TensorSharingManager = self.runtime.manager
        return manager

    @property
    def devices(self) -> tc.Devices:
        """The devices that are open."""
        return self.manager.devices

    def model(self, name: str) -> tc.Model:
        """Return a loaded model. Raises TensorReleased if it was unloaded meanwhile."""
        if name not in self.models:
            raise TensorReleased(f"{name} is not loaded: load it, then try again")
        return self.models[name]

    async def end_runs(self) -> None:
        """Cancel the runs under way, and wait for their end."""
        if using := self._runs - {asyncio.current_task()}:
            for run in using:
                run.cancel()
            await asyncio.wait(using)

    @asynccontextmanager
    async def turn(self, send: Send) -> AsyncIterator[dict[str, Any]]:
        """Wait for earlier runs. Yields the account of the runs in the block, which is complete at its end.

        Meanwhile the graphs or kernels that a run waits for are sent as parts {"part": "building", ...}.
        """
        task, account = asyncio.current_task(), dict[str, Any]()
        assert task is not None
        self._runs.add(task)
        try:
            async with self._running:
                self.devices.on_build(at_most_every(0.05, lambda event: send({"part": "building", **event})))
                started = time.perf_counter()
                yield account
                account |= {**self.manager.last_run, "seconds": time.perf_counter() - started}
        finally:
            self._runs.discard(task)


session = Session()


async def start(runtime: Any) -> None:
    """Keep the runtime. Called once."""
    session.runtime = runtime


async def load(name: str, source: Any, options: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Load a model under the page's ``name``, after those requested earlier: {"name", "device", "mask"}.

    ``options`` are those of ``from_pretrained``. "mask" is the tokenizer's mask token, or None.
    """
    model = session.models[name] = await session.runtime.load(name, source, Progress(send), **options)
    tokenizer = model.tokenizer
    mask = None
    if tokenizer is not None and tokenizer.mask_id is not None:
        (mask,) = tokenizer.tokens_of([tokenizer.mask_id])
    return {"name": model.name, "device": model.device.kind, "mask": mask}


async def unload(name: str) -> None:
    """Unload a model; weights that others share stay."""
    session.models.pop(name, None)
    await session.end_runs()  # they may be using it; the page runs its panels again afterwards
    await session.runtime.release(name)


async def move(name: str, kind: str, *, send: Send) -> dict[str, Any]:
    """Move a loaded model to a kind of device, or the one that "auto" chooses: {"device"}."""
    model = await session.model(name).to(kind, lambda done, total: send({"loaded": done, "total": total}))
    return {"device": model.device.kind}


def pin(kind: str) -> None:
    """Load models on ``kind`` from now on; "auto" chooses by the devices' facts."""
    session.devices.pin(None if kind == "auto" else kind)
    session.runtime.changed()


async def cost(source: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Describe a model that is not loaded: the fields of ``LoadEstimate``, and "limit_bytes" and "device_bytes" now.

    ``options`` are those of ``estimate_load``.
    """
    manager = session.manager
    estimate = await tc.estimate_load(source, manager=manager, **options)
    now = {"limit_bytes": manager.limit_bytes, "device_bytes": manager.report().device_bytes}
    return {**vars(estimate), "new_bytes": estimate.new_bytes, **now}


def limits() -> dict[str, Any]:
    """Return what WebNN supports here, as its context reports, and the ops that the rules refuse.

    {"missing"} with the reason, or {"device", "fallback", "limits": {op: {operand: ...}}, "refused"}.
    """
    from tensorcommons.refusals import refused  # imports all samples, so not before it is needed

    devices: Any = session.devices
    webnn = devices.webnn
    if webnn is None:
        return {"missing": devices.missing["webnn"]}
    op_limits = webnn.backend.op_limits
    rest = refused(op_limits, devices.cpu, wide_halves=webnn.is_software)
    fallback = webnn.fallback.kind if webnn.fallback is not None else "nothing"
    return {"device": webnn.name, "fallback": fallback, "limits": op_limits, "refused": rest}
