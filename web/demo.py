"""The page's Python side: which models are loaded, what a panel shows, and what may be cancelled.

Runs inside Pyodide in the worker. Requests and replies are JSON text, so the page keeps no Python object alive. A reply
is {"value": ...}, {"error": {"type", "message"}} or {"cancelled": true}; "type" holds the names of the error's class
and of its base classes.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import tensorcommons as tc

MINILM, SKILL, SPLADE = "all-MiniLM-L6-v2", "skill-head", "splade-tiny"
PAIR_HEADS = ("nli", "relevance")
HEADS = ("nli", "relevance", "polarity", "relation-type")
TOP_TERMS = 20
REPORT_EVERY = 0.1  # seconds; a load changes the report about a hundred times a second

Send = Callable[[str], Any]


class Demo:
    """One manager, the models that the page loaded into it, and the tasks under way."""

    def __init__(self, models_url: str, send_report: Send) -> None:
        self._models_url = models_url
        self._send_report = send_report
        self._models: dict[str, Any] = {}
        self._tasks: dict[str, asyncio.Future[Any]] = {}
        self._loading = asyncio.Lock()  # one load at a time: the second finds what the first shared
        self._running = asyncio.Lock()  # one run at a time: the time shown is the run's own
        self._report: Any = None
        self._report_due = False
        self._storage = ""  # status of the browser's storage after the last load

    # --- what the page calls ---

    async def start(self) -> str:
        """Open the devices, and begin to send reports."""
        return await _reply(self._start())

    async def load(self, model_id: str, send_progress: Send) -> str:
        """Load a model after those requested earlier: {"name", "device"}."""
        return await _reply(self._latest(f"load:{model_id}", lambda: self._load(model_id, send_progress)))

    async def move(self, model_id: str, kind: str, send_progress: Send) -> str:
        """Move a loaded model to a kind of device, or the one that "auto" chooses: {"device"}. The last call counts."""
        return await _reply(self._latest(f"move:{model_id}", lambda: self._move(model_id, kind, send_progress)))

    async def pin(self, kind: str) -> str:
        """Load models on ``kind`` from now on; "auto" chooses by the devices' facts."""
        return await _reply(self._pin(kind))

    async def limits(self) -> str:
        """Return what WebNN supports here, as its context reports, and the ops that the rules refuse: see `_limits`."""
        return await _reply(self._limits())

    async def unload(self, model_id: str) -> str:
        """Unload a model; weights that others share stay."""
        return await _reply(self._unload(model_id))

    async def run(self, panel: str, request: str, send_part: Send) -> str:
        """Run a panel; a run of the same panel that is still under way is cancelled first."""
        return await _reply(self._latest(f"run:{panel}", lambda: self._run(panel, json.loads(request), send_part)))

    def cancel(self, key: str) -> None:
        """Cancel "load:<model id>" or "run:<panel>", if it is under way, or was called before this."""
        asyncio.get_running_loop().call_soon(self._cancel, key)  # earlier calls have begun by then

    def _cancel(self, key: str) -> None:
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()

    # --- tasks ---

    async def _latest(self, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
        earlier = self._tasks.get(key)
        if earlier is not None:
            earlier.cancel()

        async def turn() -> Any:
            if earlier is not None:
                await asyncio.wait([earlier])
            return await work()

        task = self._tasks[key] = asyncio.ensure_future(turn())
        try:
            return await task
        finally:
            if self._tasks.get(key) is task:
                del self._tasks[key]

    # --- devices and models ---

    async def _start(self) -> None:
        self._devices = await tc.open_devices()
        self._manager = tc.TensorSharingManager(max_memory_mb=1024, devices=self._devices)
        self._manager.subscribe(self._changed)
        self._changed(self._manager.report())
        self._send()

    def _about_devices(self) -> dict[str, Any]:
        """Describe the choice of "auto" with its reason, each kind, and the reason for each model's device."""
        devices, kinds = self._devices, {}
        decision = devices.decide()
        others = devices.alternatives(decision.device)
        for kind in ("webgpu", "webnn", "cpu"):
            device = getattr(devices, kind)
            state = "missing" if device is None else "lost" if device.is_gone else device.facts.badge or "present"
            kinds[kind] = {
                "state": state,
                "is": others.get(kind, decision.device.name).replace("WebNN, asked for cpu", "asked to use the CPU"),
            }
        models = {model.name: model.explain() for model in self._models.values()}
        why = "you chose it" if decision.why == "it is pinned" else decision.why
        return {"chosen": decision.device.kind, "why": why, "kinds": kinds, "models": models}

    async def _limits(self) -> dict[str, Any]:
        """{"missing"} with the reason, or {"device", "fallback", "limits": {op: {operand: ...}}, "refused"}."""
        from tensorcommons.refusals import refused  # imports all samples, so not before it is needed

        webnn = self._devices.webnn
        if webnn is None:
            return {"missing": self._devices.missing["webnn"]}
        limits = webnn.backend.op_limits
        rest = refused(limits, self._devices.cpu, wide_halves=webnn.is_software)
        fallback = webnn.fallback.kind if webnn.fallback is not None else "nothing"
        return {"device": webnn.name, "fallback": fallback, "limits": limits, "refused": rest}

    async def _load(self, model_id: str, send_progress: Send) -> dict[str, Any]:
        progress = _Progress(send_progress)
        async with self._loading:
            if model_id not in self._models:
                self._models[model_id] = await tc.from_pretrained(
                    self._models_url + model_id, manager=self._manager, device="auto", progress_callback=progress
                )
                self._storage = (await tc.open_cache()).status
        model = self._models[model_id]
        return {"name": model.name, "device": model.device.kind}

    async def _move(self, model_id: str, kind: str, send_progress: Send) -> dict[str, Any]:
        def tell(done: int, total: int) -> None:
            send_progress(json.dumps({"loaded": done, "total": total}))

        model = await self._models[model_id].to(kind, tell)
        return {"device": model.device.kind}

    async def _pin(self, kind: str) -> None:
        self._devices.pin(None if kind == "auto" else kind)
        self._changed(self._manager.report())

    async def _unload(self, model_id: str) -> None:
        model = self._models.pop(model_id, None)
        if model is None:
            return
        for key, task in list(self._tasks.items()):
            if key.startswith("run:"):  # a run may be using it; the page runs its panels again afterwards
                task.cancel()
                await asyncio.wait([task])
        model.unload()

    def _changed(self, report: Any) -> None:
        self._report = report
        if not self._report_due:
            self._report_due = True
            asyncio.get_running_loop().call_later(REPORT_EVERY, self._send)

    def _send(self) -> None:
        self._report_due = False
        self._send_report(
            json.dumps({**self._report.to_dict(), "devices": self._about_devices(), "storage": self._storage})
        )

    # --- panels ---

    async def _run(self, panel: str, request: dict[str, Any], send_part: Send) -> dict[str, Any]:
        """All models of a panel as one merged graph: their backbone, the same for all, is computed once."""
        parts = PANELS[panel]
        used, notices = self._usable(panel, request["texts"])
        if len(used) < (2 if panel == "pair" else 1):
            hint = "Type both sentences to see results." if panel == "pair" else "Type a sentence to see results."
            return {"empty": True, "notices": [*notices, hint]}
        send_part(json.dumps({"part": "notices", "notices": notices}))
        for name, model_id, _ in parts:
            if model_id not in self._models:
                send_part(json.dumps({"part": name, "needs": model_id}))
        present = [(name, self._models[model_id], task) for name, model_id, task in parts if model_id in self._models]
        if not present:
            return {"empty": False, "stats": None}
        texts = [request["texts"][i] for i in used]
        async with self._running:
            self._hear(send_part)
            started = time.perf_counter()
            calls = []
            for name, model, task in present:
                options = {"top_k": None} if task == "text-classification" else {}
                pipe = await tc.pipeline(task, model, manager=self._manager, **options)
                calls.append((pipe, [tuple(texts)] if name in PAIR_HEADS else texts))
            results = await tc.run_pipelines(calls)
            seconds = time.perf_counter() - started
            stats = {**self._manager.get_stats()["last_run"], "seconds": seconds}
        for (name, _, task), result in zip(present, results, strict=True):
            send_part(json.dumps({"part": name, "rows": used, "value": SHOWN[task](result)}))
        return {"empty": False, "stats": stats}

    def _hear(self, send_part: Send) -> None:
        """Report the graphs or pipelines that the run, the only one, waits for."""
        sent = 0.0

        def tell(event: dict[str, Any]) -> None:
            nonlocal sent
            if event["done"] == event["total"] or time.monotonic() - sent > 0.05:
                sent = time.monotonic()
                send_part(json.dumps({"part": "building", **event}))

        self._devices.on_build(tell)

    def _usable(self, panel: str, texts: list[str]) -> tuple[list[int], list[str]]:
        """Return the rows that have text, and notices about the others and about text that is too long."""
        names = ["A", "B"] if panel == "pair" else [f"Sentence {i + 1}" for i in range(len(texts))]
        used, notices = [], []
        for i, text in enumerate(texts):
            if not text.strip():
                notices.append(f"{names[i]} is empty and left out.")
                continue
            used.append(i)
            count, most = self._tokens(panel, text)
            if count > most:
                notices.append(f"{names[i]} has {count:,} tokens; the model reads the first {most:,}.")
        return used, notices

    def _tokens(self, panel: str, text: str) -> tuple[int, int]:
        """Count a text's tokens, and those that the models of a panel read; a short text is not counted."""
        model = next((self._models[model_id] for _, model_id, _ in PANELS[panel] if model_id in self._models), None)
        most = model and model.tokenizer.max_length
        if model is None or most is None or len(text) < most // 2:
            return 0, 0
        return model.tokenizer.encode_batch([text], truncation=False).input_ids.shape[1], most


# What a panel shows: the part of the page, the model behind it, and the task that it does there.
PANELS = {
    "sentences": (("similarity", MINILM, "sentence-similarity"), ("skill", SKILL, "text-classification")),
    "pair": (
        *((head, f"{SPLADE}-{head}", "text-classification") for head in HEADS),
        ("terms", SPLADE, "sparse-embedding"),
    ),
}
SHOWN: dict[str, Callable[[Any], Any]] = {
    "sentence-similarity": lambda matrix: matrix.tolist(),
    "sparse-embedding": lambda rows: [row[:TOP_TERMS] for row in rows],
    "text-classification": lambda rows: rows,
}


class _Progress:
    """Turns a load's events into one line of bytes: over all files when the load says so, else file by file."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sent = 0.0
        self._files: dict[str, tuple[int, int]] = {}
        self._overall = False

    def __call__(self, event: dict[str, Any]) -> None:
        status, loaded, total = event["status"], event.get("loaded") or 0, event.get("total") or 0
        if status == "progress_total":
            self._overall = True
        elif status == "progress":
            self._files[event["file"]] = (loaded, total)
            if self._overall:
                return
            loaded = sum(done for done, _ in self._files.values())
            total = sum(size for _, size in self._files.values())
        else:
            return
        now = time.monotonic()
        if now - self._sent < 0.05 and loaded < total:
            return
        self._sent = now
        shared, stored = event.get("shared_bytes") or 0, event.get("from_cache") or 0
        self._send(json.dumps({"loaded": loaded, "total": total, "shared": shared, "stored": stored}))


async def _reply(work: Awaitable[Any]) -> str:
    try:
        return json.dumps({"value": await work})
    except asyncio.CancelledError:
        return json.dumps({"cancelled": True})
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]  # the page knows some of them
        return json.dumps({"error": {"type": " ".join(kinds), "message": str(error) or kinds[0]}})
