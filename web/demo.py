"""The page's Python side: which models are loaded, and what a panel shows.

A module of the page's runtime (tensorcommons.mjs, importPython). The page calls its public functions by name; ``send``
passes parts of a result before its end.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import tensorcommons as tc

MINILM, SKILL, SPLADE = "all-MiniLM-L6-v2", "skill-head", "splade-tiny"
PAIR_HEADS = ("nli", "relevance")
HEADS = ("nli", "relevance", "polarity", "relation-type")
TOP_TERMS = 20
Send = Callable[[Any], None]


runtime: Any = None  # of this module's first import
models: dict[str, Any] = {}  # loaded, by id
runs: set[Any] = set()  # tasks that use models
one_run = asyncio.Lock()  # the time shown is the run's own


async def start(given: Any) -> None:
    """Keep the runtime."""
    global runtime
    runtime = given


async def load(model_id: str, address: str, *, send: Send) -> dict[str, Any]:
    """Load a model after those requested earlier: {"name", "device"}."""
    model = models[model_id] = await runtime.load(model_id, address, Progress(send))
    return {"name": model.name, "device": model.device.kind}


async def move(model_id: str, kind: str, *, send: Send) -> dict[str, Any]:
    """Move a loaded model to a kind of device, or the one that "auto" chooses: {"device"}."""
    model = await models[model_id].to(kind, lambda done, total: send({"loaded": done, "total": total}))
    return {"device": model.device.kind}


async def unload(model_id: str) -> None:
    """Unload a model; weights that others share stay."""
    models.pop(model_id, None)
    if using := runs - {asyncio.current_task()}:  # they may be using it; the page runs its panels again afterwards
        for run_ in using:
            run_.cancel()
        await asyncio.wait(using)
    await runtime.release(model_id)


def pin(kind: str) -> None:
    """Load models on ``kind`` from now on; "auto" chooses by the devices' facts."""
    runtime.devices.pin(None if kind == "auto" else kind)
    runtime.changed()


def limits() -> dict[str, Any]:
    """Return what WebNN supports here, as its context reports, and the ops that the rules refuse.

    {"missing"} with the reason, or {"device", "fallback", "limits": {op: {operand: ...}}, "refused"}.
    """
    from tensorcommons.refusals import refused  # imports all samples, so not before it is needed

    devices = runtime.devices
    webnn = devices.webnn
    if webnn is None:
        return {"missing": devices.missing["webnn"]}
    op_limits = webnn.backend.op_limits
    rest = refused(op_limits, devices.cpu, wide_halves=webnn.is_software)
    fallback = webnn.fallback.kind if webnn.fallback is not None else "nothing"
    return {"device": webnn.name, "fallback": fallback, "limits": op_limits, "refused": rest}


async def run(panel: str, request: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Run a panel: all its models as one merged graph, so that their backbone is computed once."""
    task = asyncio.current_task()
    runs.add(task)
    try:
        return await _run(panel, request, send)
    finally:
        runs.discard(task)


async def _run(panel: str, request: dict[str, Any], send: Send) -> dict[str, Any]:
    parts = PANELS[panel]
    used, notices = _usable(panel, request["texts"])
    if len(used) < (2 if panel == "pair" else 1):
        hint = "Type both sentences to see results." if panel == "pair" else "Type a sentence to see results."
        return {"empty": True, "notices": [*notices, hint]}
    send({"part": "notices", "notices": notices})
    for name, model_id, _ in parts:
        if model_id not in models:
            send({"part": name, "needs": model_id})
    present = [(name, models[model_id], task) for name, model_id, task in parts if model_id in models]
    if not present:
        return {"empty": False, "stats": None}
    texts = [request["texts"][i] for i in used]
    async with one_run:
        _hear(send)
        started = time.perf_counter()
        calls = []
        for name, model, task in present:
            options = {"top_k": None} if task == "text-classification" else {}
            pipe = await tc.pipeline(task, model, manager=runtime.manager, **options)
            calls.append((pipe, [tuple(texts)] if name in PAIR_HEADS else texts))
        results = await tc.run_pipelines(calls)
        seconds = time.perf_counter() - started
        stats = {**runtime.manager.get_stats()["last_run"], "seconds": seconds}
    for (name, _, task), result in zip(present, results, strict=True):
        send({"part": name, "rows": used, "value": SHOWN[task](result)})
    return {"empty": False, "stats": stats}


def _hear(send: Send) -> None:
    """Report the graphs or pipelines that the run, the only one, waits for."""
    sent = 0.0

    def tell(event: dict[str, Any]) -> None:
        nonlocal sent
        if event["done"] == event["total"] or time.monotonic() - sent > 0.05:
            sent = time.monotonic()
            send({"part": "building", **event})

    runtime.devices.on_build(tell)


def _usable(panel: str, texts: list[str]) -> tuple[list[int], list[str]]:
    """Return the rows that have text, and notices about the others and about text that is too long."""
    names = ["A", "B"] if panel == "pair" else [f"Sentence {i + 1}" for i in range(len(texts))]
    used, notices = [], []
    for i, text in enumerate(texts):
        if not text.strip():
            notices.append(f"{names[i]} is empty and left out.")
            continue
        used.append(i)
        count, most = _tokens(panel, text)
        if count > most:
            notices.append(f"{names[i]} has {count:,} tokens; the model reads the first {most:,}.")
    return used, notices


def _tokens(panel: str, text: str) -> tuple[int, int]:
    """Count a text's tokens, and those that the models of a panel read; a short text is not counted."""
    model = next((models[model_id] for _, model_id, _ in PANELS[panel] if model_id in models), None)
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


class Progress:
    """Turns a load's events into one line of bytes: over all files when the load says so, else file by file."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sent = 0.0
        self._files: dict[str, tuple[int, int]] = {}
        self._overall = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Send what an event of a load changes."""
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
        self._send({"loaded": loaded, "total": total, "shared": shared, "stored": stored})
