"""Runtime: one manager and its pipelines, for the pages that are connected to it by messages.

A page is a tab, or a part of one: it has a name, and its messages are pairs of JSON text and buffers (messages.py).
Requests are ``{"call": number, "do": name, ...arguments}`` and ``{"cancel": number}``; replies are any number of
``{"call", "part"}``, and at last ``{"call", "value"}`` or ``{"call", "error": {"kinds", "message", ...}}``. Reports are
``{"report": ...}``.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ..backends.select import Devices
from ..diagnostics import diagnostics
from ..errors import TensorCommonsError, quoted
from ..hub.open_cache import cache_of_this_page
from ..models.model import Model
from ..opening import open_devices
from ..pipelines import check_defaults, pipeline
from ..sharing.manager import TensorSharingManager
from ..sharing.report import MemoryReport
from ..tasks.pipeline import Pipeline, run_pipelines
from ..tasks.text_generation import TextGeneration
from .loads import Loads, Progress
from .messages import Buffers, pack, unpack
from .programs import Programs, Send
from .shapes import BITS, OWN, adapted, arguments

Post = Callable[[str, str, Buffers], object]
REPORT_EVERY = 0.1  # seconds; a load changes the report about a hundred times a second
PROGRESS_EVERY = 0.05  # seconds
LOADING = ("dtype", "precision", "cache_dtype", "device", "cache", "token")  # options of pipeline() that load the model


@dataclass
class Page:
    """The state of one page: its calls and pipelines by number, and whether it receives reports.

    ``defaults`` are the options of each pipeline's calls, with those of transformers.js alone.
    """

    name: str
    calls: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    pipelines: dict[int, Pipeline] = field(default_factory=dict)
    defaults: dict[int, dict[str, Any]] = field(default_factory=dict)
    running: dict[int, list[int]] = field(default_factory=dict)  # the pipelines of each call
    gets_reports: bool = False


class Runtime:
    """One manager on ``devices``, and the pages that use it; ``post`` sends a message to a page by name.

    Programs of a page use ``manager``, ``devices`` and :meth:`load`.
    """

    def __init__(self, devices: Devices, post: Post, max_memory_mb: float = 1024) -> None:
        self.devices = devices
        self.manager = TensorSharingManager(max_memory_mb=max_memory_mb, devices=devices)
        self._post = post
        self._pages: dict[str, Page] = {}
        self._loads = Loads(self.manager)
        self._programs = Programs()
        self._started: dict[str, asyncio.Future[None]] = {}
        self._due = False
        self.manager.subscribe(lambda report: self.changed())

    # --- for a page's own program ---

    async def load(
        self, user: str, source: str | Mapping[str, bytes], progress: Progress | None = None, **options: Any
    ) -> Model:
        """Load a model for ``user``, a name of the program's choice; equal models of several users are one."""
        model = await self._loads.acquire(user, source, progress, **options)
        self.changed()
        return model

    @property
    def models(self) -> list[Model]:
        """The models that pages and programs loaded."""
        return self._loads.models

    async def release(self, user: str) -> None:
        """Release the models of ``user``; those without another user are unloaded."""
        await self._loads.release(user)

    # --- messages ---

    def receive(self, name: str, text: str, buffers: Sequence[Any]) -> None:
        """Start what a message of the page ``name`` requests, or cancel it."""
        page = self._pages.setdefault(name, Page(name))
        try:
            request = unpack(text, buffers)
        except TensorCommonsError as error:  # an array that does not match its dims
            self._send(page, {"call": json.loads(text)["call"], "error": described(error)})
            return
        if "cancel" in request:
            asyncio.get_running_loop().call_soon(self._cancel, page, request["cancel"])  # earlier calls have begun then
            return
        number = request.pop("call")
        page.running[number] = (
            [request["pipeline"]] if "pipeline" in request else [call[0] for call in request.get("calls", ())]
        )
        page.calls[number] = asyncio.ensure_future(self._reply(page, number, request.pop("do"), request))

    async def leave(self, name: str) -> None:
        """Cancel the calls of a page that was closed, and release what it alone used."""
        page = self._pages.pop(name, None)
        if page is not None:
            await _cancelled(list(page.calls.values()))
            for number in list(page.pipelines):
                await self._dispose(page, pipeline=number)
            await self._programs.leave(name)

    def _cancel(self, page: Page, number: int) -> None:
        if number in page.calls:
            page.calls[number].cancel()

    async def _reply(self, page: Page, number: int, name: str, given: dict[str, Any]) -> None:
        def send(part: Any) -> None:
            self._send(page, {"call": number, "part": part})

        try:
            do = OPERATIONS.get(name)
            if do is None:
                raise TensorCommonsError(f"unknown operation {quoted(name)}: {', '.join(OPERATIONS)}")
            more = {"send": send} if "send" in inspect.signature(do).parameters else {}
            self._send(page, {"call": number, "value": await do(self, page, **given, **more)})
        except (asyncio.CancelledError, Exception) as error:
            self._send(page, {"call": number, "error": described(error)})
        finally:
            del page.calls[number], page.running[number]

    def _send(self, page: Page, message: Any) -> None:
        if self._pages.get(page.name) is page:
            self._post(page.name, *pack(message))

    # --- reports ---

    def changed(self) -> None:
        """Send a report soon to the pages that get them."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(REPORT_EVERY, self._report)

    def _report(self) -> None:
        self._due = False
        receivers = [page.name for page in self._pages.values() if page.gets_reports]
        if receivers and not self.manager.is_closed:
            text, _ = pack({"report": self.report()})
            for name in receivers:
                self._post(name, text, [])

    def report(self) -> dict[str, Any]:
        """Return the memory report with "devices" and "storage", the status of the browser's storage."""
        report: MemoryReport = self.manager.report()
        cache = cache_of_this_page()
        return {
            **report.to_dict(),
            "devices": self._about_devices(),
            "storage": "" if cache is None else cache.status,
        }

    def _about_devices(self) -> dict[str, Any]:
        """Describe the choice of "auto" with its reason, each kind, and the reason for each model's device."""
        devices, kinds = self.devices, {}
        decision = devices.decide()
        others = devices.alternatives(decision.device)
        for kind in ("webgpu", "webnn", "cpu"):
            device = getattr(devices, kind)
            state = "missing" if device is None else "lost" if device.is_gone else device.facts.badge or "present"
            kinds[kind] = {
                "state": state,
                "is": others.get(kind, decision.device.name).replace("WebNN, asked for cpu", "asked to use the CPU"),
            }
        models = {model.name: model.explain() for model in self.models}
        why = "you chose it" if decision.why == "it is pinned" else decision.why
        return {"chosen": decision.device.kind, "why": why, "kinds": kinds, "models": models}

    async def _reports(self, page: Page, *, on: bool) -> dict[str, Any]:
        page.gets_reports = on
        return self.report()

    # --- pipelines ---

    async def _pipeline(
        self, page: Page, *, number: int, task: str, source: Any, options: dict[str, Any], send: Send
    ) -> dict[str, Any]:
        user = (page.name, number)
        of_calls = {"precision"} if task in OWN and options.get("precision") in BITS else set()
        loading = {name: options.pop(name) for name in LOADING if name in options and name not in of_calls}
        defaults = {name: value for name, value in options.items() if name not in OWN.get(task, ())}
        check_defaults(task, defaults)
        events = Events(task, source if isinstance(source, str) else "files", send)
        model = await self._loads.acquire(user, source, events, task=task, **loading)
        try:
            pipe = await pipeline(task, model, manager=self.manager, **defaults)
            page.pipelines[number], page.defaults[number] = pipe, options
        except BaseException:
            await self._loads.release(user)
            raise
        self.changed()
        events.ready()
        return {"task": task, "model": model.name, "device": model.device.kind}

    async def _run(self, page: Page, *, pipeline: int, inputs: list[Any]) -> Any:
        pipe = _found(page, pipeline)
        given, options = arguments(pipe.task, inputs)
        options, show = adapted(pipe.task, given, {**page.defaults[pipeline], **options})
        return show(await pipe(given, **options))

    async def _run_together(self, page: Page, *, calls: list[Any]) -> list[Any]:
        prepared = []
        for number, *inputs in calls:
            pipe = _found(page, number)
            given, options = arguments(pipe.task, inputs)
            prepared.append((pipe, given, *adapted(pipe.task, given, {**page.defaults[number], **options})))
        results = await run_pipelines([call[:3] for call in prepared])
        return [show(result) for (*_, show), result in zip(prepared, results, strict=True)]

    async def _stream(self, page: Page, *, pipeline: int, inputs: list[Any], send: Send) -> None:
        pipe = _found(page, pipeline)
        if not isinstance(pipe, TextGeneration):
            raise TensorCommonsError(f"{pipe.task} has no stream: call the pipeline")
        given, options = arguments(pipe.task, inputs)
        async with aclosing(pipe.stream(given, **options)) as arriving:
            async for piece in arriving:
                send(piece)

    async def _move(self, page: Page, *, pipeline: int, device: str, send: Send) -> dict[str, Any]:
        model = _found(page, pipeline).model
        await model.to(device, lambda loaded, total: send({"loaded": loaded, "total": total}))
        return {"device": model.device.kind}

    async def _dispose(self, page: Page, *, pipeline: int) -> None:
        page.defaults.pop(pipeline, None)
        if page.pipelines.pop(pipeline, None) is not None:
            own = asyncio.current_task()
            using = [page.calls[call] for call, pipelines in page.running.items() if pipeline in pipelines]
            await _cancelled([task for task in using if task is not own])
            await self._loads.release((page.name, pipeline))

    # --- the rest ---

    async def _limit(self, page: Page, *, max_memory_mb: float) -> None:
        await self.manager.set_memory_limit(max_memory_mb)

    async def _now(self, page: Page) -> dict[str, Any]:
        return self.report()

    async def _stats(self, page: Page) -> Any:
        return self.manager.get_stats()

    async def _diagnostics(self, page: Page) -> str:
        return diagnostics()

    async def _import(self, page: Page, *, name: str, files: dict[str, str]) -> None:
        module, is_new = self._programs.add(name, files)
        if is_new:
            self._started[name] = asyncio.ensure_future(_start(module, self))
        await asyncio.shield(self._started[name])

    async def _invoke(self, page: Page, *, name: str, function: str, given: list[Any], send: Send) -> Any:
        return await self._programs.call(name, function, given, send=send, page=page.name)


OPERATIONS: dict[str, Callable[..., Awaitable[Any]]] = {
    "report": Runtime._now,
    "reports": Runtime._reports,
    "pipeline": Runtime._pipeline,
    "run": Runtime._run,
    "run together": Runtime._run_together,
    "stream": Runtime._stream,
    "move": Runtime._move,
    "dispose": Runtime._dispose,
    "limit": Runtime._limit,
    "stats": Runtime._stats,
    "diagnostics": Runtime._diagnostics,
    "import": Runtime._import,
    "invoke": Runtime._invoke,
}


async def open_runtime(post: Post, options: str = "{}") -> Runtime:
    """Open the devices, and make a runtime. ``options`` is JSON: "devices", "webnn" and "max_memory_mb".

    Raises TensorCommonsError for another option.
    """
    given: dict[str, Any] = json.loads(options)
    more = {"max_memory_mb": given.pop("max_memory_mb")} if given.get("max_memory_mb") is not None else {}
    prefer, webnn = given.pop("devices", None), given.pop("webnn", "cpu")
    if given:
        raise TensorCommonsError(f"unknown options {', '.join(given)}: devices, webnn and max_memory_mb are allowed")
    return Runtime(await open_devices(prefer, webnn=webnn), post, **more)


class Events:
    """The progress events of one load, as transformers.js has them, at most one in 50 ms of each status."""

    def __init__(self, task: str, name: str, send: Send) -> None:
        self._task, self._name, self._send = task, name, send
        self._sent: dict[str, float] = {}
        self._files: dict[str, dict[str, int]] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        """Send one event of ``from_pretrained``."""
        status, loaded, total = event["status"], event.get("loaded") or 0, event.get("total") or 0
        if status == "ready":
            return  # the pipeline's own follows
        if status == "progress":
            self._files[event["file"]] = {"loaded": loaded, "total": total}
        if status.startswith("progress"):
            if time.monotonic() - self._sent.get(status, 0) < PROGRESS_EVERY and loaded < total:
                return
            self._sent[status] = time.monotonic()
        more: dict[str, Any] = {"progress": 100 * loaded / total if total else 0}
        if status == "progress_total":
            more["files"] = self._files
        self._send({**event, "name": self._name, **more})

    def ready(self) -> None:
        """Send the last event."""
        self._send({"status": "ready", "task": self._task, "model": self._name})


def described(error: BaseException) -> dict[str, Any]:
    """Describe an error: its class and base classes by name, its message, and its simple attributes."""
    if isinstance(error, asyncio.CancelledError):
        return {"kinds": ["AbortError"], "message": "the call was cancelled"}
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind not in (BaseException, object)]
    simple = {name: value for name, value in vars(error).items() if isinstance(value, (str, int, float))}
    return {**simple, "kinds": kinds, "message": str(error) or kinds[0]}


async def _start(module: Any, runtime: Runtime) -> None:
    start = getattr(module, "start", None)
    if start is not None:
        await start(runtime)


def _found(page: Page, number: int) -> Pipeline:
    if number not in page.pipelines:
        raise TensorCommonsError("the pipeline was disposed: make another one")
    return page.pipelines[number]


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their ends."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
