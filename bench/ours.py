"""tensorcommons in the contest: plain Python in Pyodide, like a user's program."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import tensorcommons as tc
from bench import adapters, quantized, stored
from bench.contest import Rules
from bench.decoders import COLD, GREEDY
from bench.report import ON_CPU, ON_WEBNN, OURS, PART, number
from bench.workloads import HEADS, Work

Array: TypeAlias = np.ndarray[Any, Any]
Run: TypeAlias = Callable[
    [], Awaitable["Array | tuple[Array, float]"]
]  # a result, and milliseconds if it measures them itself
ONE_BY_ONE, CACHED, ALONE = "one by one", "one by one, cached", "backbone alone"
MEMORY_MB = 16_384  # far above any work, so that nothing is evicted
FAR = 1_000_000  # numbers of prompts that no sample reaches
CHOOSING = ("generate", "adapters")  # groups whose rows name the variants that take part
NOT_KEPT = ("weights", "constants", "scratch", "staging")  # categories of bytes that are not results of runs


class Prepared:
    """Prepared run, and the functions that release it."""

    def __init__(self, run: Run, close: Callable[[], None], extra: dict[str, Any] | None = None) -> None:
        self._run = run
        self._close = close
        self.extra = {} if extra is None else extra
        self._last = np.zeros(0, np.float32)

    async def sample(self) -> float:
        started = time.perf_counter()
        answer = await self._run()
        took = (time.perf_counter() - started) * 1e3
        self._last, took = answer if isinstance(answer, tuple) else (answer, took)
        return took

    def result(self) -> Array:
        return self._last

    async def close(self) -> None:
        self._close()


class Ours:
    """The contestant, on one of its devices. ``bytes_of`` counts the bytes of its WebGPU buffers from outside, like for
    every contestant; for MLTensors, the package's own accounts are used.

    Several heads run together; other variants (``mode``) are separate contestants. Nothing is
    kept between samples, except by "one by one, cached", whose inputs therefore change with each sample.
    """

    version = tc.__version__

    def __init__(self, device: tc.Device, devices: tc.Devices, bytes_of: Callable[[], int], mode: str = "") -> None:
        self._place = {"webnn": ON_WEBNN, "cpu": ON_CPU}.get(device.kind, "")
        self.name = (mode or OURS) + self._place
        self.device = PART if mode else device.kind
        self.mode = mode
        self.on = device
        self.devices = devices
        self.device_bytes = bytes_of

    def beside(self, group: str) -> str:
        """Return the name of the contestant that this variant is always beside; empty if it is named by itself."""
        return OURS + self._place if group in CHOOSING else ""

    def does(self, work: Work) -> bool:
        """Return True if this variant takes part in ``work``."""
        return work.group not in CHOOSING or not self.mode or self.mode in work.variants

    async def prepare(self, work: Work) -> Prepared:
        if work.group in ("encoder", "heads", "images"):
            return await self._models(work)
        if work.group == "adapters":
            return await self._adapters(work)
        if work.group == "load":
            return await self._load(work)
        if work.group == "sentences":
            return await self._sentences(work)
        if work.group == "generate":
            return await self._generation(work)
        return self._chain(work)

    def _chain(self, work: Work) -> Prepared:
        tensors = {name: tc.asarray(array, device=self.on) for name, array in work.arrays.items()}
        compiled = tc.compile(lambda given: _steps(work, given))

        async def run() -> Array:
            row: tc.Tensor = await compiled(tensors)
            return await row.read()

        def close() -> None:
            for tensor in tensors.values():
                tensor.release()

        return Prepared(run, close)

    async def _models(self, work: Work) -> Prepared:
        manager = tc.TensorSharingManager(MEMORY_MB, self.devices, activation_cache=self.mode == CACHED)

        async def load(folder: Path) -> tc.Model:
            return await tc.from_pretrained(str(folder), manager=manager, device=self.on, tokenizer=False)

        place, output = Path(work.folder), "logits"
        if work.kind == "encoder":
            models, output = [await load(place)], "last_hidden_state"
        elif self.mode == ALONE:
            models, output = [await load(place / "MiniLM")], "sentence_embedding"
        else:
            models = [await load(place / f"head-{i}") for i in range(HEADS)]
        assert all(model.device is self.on for model in models), [model.device.kind for model in models]
        inputs = {name: work.arrays[name] for name in work.feeds}

        async def run() -> Array:
            if self.mode == CACHED:
                inputs["input_ids"] = inputs["input_ids"] + 1  # within the vocabulary for thousands of samples
            if len(models) > 1 and not self.mode:
                answers = await manager.run_together([(model, inputs) for model in models])
                return (await tc.read_together([answer[output] for answer in answers]))[-1]
            for model in models:
                result = await (await model(outputs=[output], **inputs))[output].read()
            return result

        def close() -> None:
            for model in models:
                model.unload()

        return Prepared(run, close)

    async def _adapters(self, work: Work) -> Prepared:
        manager = tc.TensorSharingManager(MEMORY_MB, self.devices, activation_cache=False)
        model = await tc.from_pretrained(work.folder, manager=manager, device=self.on, tokenizer=False)
        run, extra = await adapters.prepare(work, model, base=self.mode == adapters.BASE)
        return Prepared(run, model.unload, extra)

    async def _load(self, work: Work) -> Prepared:
        cache = await tc.open_cache()

        async def run() -> Array:
            if work.params["cold"]:
                await cache.clear()
            manager = tc.TensorSharingManager(MEMORY_MB, self.devices, activation_cache=False)
            model = await tc.from_pretrained(work.folder, manager=manager, device=self.on, cache=cache)
            try:
                return await (await model(outputs=["last_hidden_state"], **work.arrays))["last_hidden_state"].read()
            finally:
                model.unload()

        return Prepared(run, lambda: None)

    async def _sentences(self, work: Work) -> Prepared:
        manager = tc.TensorSharingManager(MEMORY_MB, self.devices)
        embed = await tc.pipeline("feature-extraction", work.folder, manager=manager, device=self.on)
        texts = itertools.cycle(work.params["texts"])

        async def run() -> Array:
            return np.asarray(await embed(next(texts), pooling="mean", normalize=True))

        return Prepared(run, embed.model.unload)

    async def _generation(self, work: Work) -> Prepared:
        """Time the first token of a prompt, the tokens after it, or the whole call; each sample has another prompt."""
        manager = tc.TensorSharingManager(MEMORY_MB, self.devices)
        model = await tc.from_pretrained(
            stored.files(work.folder), manager=manager, device=self.on, dtype=work.params["dtype"], tokenizer=False
        )
        prompts = work.prompts
        assert prompts is not None
        shape, new, timed = prompts(0).shape, work.params["new"], work.params["timed"]
        options: dict[str, Any] = {"max_new_tokens": new, "eos_token_id": ()}
        if self.mode != GREEDY:
            options |= work.params.get("options", {})
        await model.compile_generation([shape], **options)
        if new > 1 and self.on.kind == "webnn":  # long enough to begin to make constants
            await model.generate(prompts(0), max_new_tokens=2 * new, eos_token_id=())
            await self.on.backend.wait()
        turns = itertools.count(FAR if self.mode else 0)  # a variant has prompts of its own
        if "prefix" in work.params and self.mode != COLD:
            return _conversations(work, manager, model)

        async def run() -> Array | tuple[Array, float]:
            turn = next(turns)
            ids = prompts(turn)
            seed = {"seed": turn} if options.get("do_sample") else {}
            started, first, tokens = time.perf_counter(), 0.0, []
            async for chosen in model.stream(ids, **options, **seed):
                tokens.append(chosen)
                first = first or time.perf_counter()
            begun, ended = (first if timed == "after" else started), time.perf_counter()
            return np.stack(tokens, axis=1).astype(np.float32), (ended - begun) * 1e3

        return Prepared(run, model.unload)


def _conversations(work: Work, manager: tc.TensorSharingManager, model: tc.Model) -> Prepared:
    """Time the first tokens of the conversations after the first, and count the bytes that they leave."""
    prefix, count, extra = work.params["prefix"], work.params["conversations"], dict[str, Any]()
    turns, prompts = itertools.count(), work.prompts
    assert prompts is not None

    def kept() -> int:
        categories = manager.report().by_category
        return sum(nbytes for name, nbytes in categories.items() if name not in NOT_KEPT)

    async def run() -> tuple[Array, float]:
        turn = next(turns)
        second = prompts(turn)
        texts = [second.copy() for _ in range(count)]
        for i, text in enumerate(texts):
            if i != 1:  # other tokens, so that no two conversations are equal
                text[:, prefix:] = prompts(turn + (2 + i) * FAR)[:, prefix:]
        before, left, times = kept(), [], []
        for text in texts:
            started = time.perf_counter()
            tokens = await model.generate(text, max_new_tokens=1, eos_token_id=())
            times.append((time.perf_counter() - started) * 1e3)
            left.append(kept() - before)
            if text is texts[1]:
                answer = tokens[:, -1:].astype(np.float32)
        extra["first tokens, ms"] = ", ".join(f"{each:.1f}" for each in times)
        extra["keys and values of one conversation"] = f"{number(work.params['conversation'] / 1e6)} MB in float32"
        ratio = f": {left[-1] / left[0]:.2f} ×" if left[0] > 0 else ": nothing is shared"
        mb = ", ".join(number(nbytes / 1e6) for nbytes in (left[0], left[-1]))
        extra[f"MB kept after the first conversation, and after all {count}"] = mb + ratio
        return answer, statistics.median(times[1:])

    return Prepared(run, model.unload, extra)


def _steps(work: Work, given: dict[str, tc.Tensor]) -> tc.Tensor:
    """Compute the first row of a chain."""
    if work.kind == "products":
        return quantized.chain(work.params, given)
    kind = work.kind
    older, x = given["x"], given["y" if kind == "add" else "x"]
    for _ in range(work.steps):
        if kind == "matmul":
            x = tc.matmul(x, given["b"])
        elif kind == "add":
            older, x = x, tc.add(x, older)
        elif kind == "softmax":
            x = tc.softmax(x, axis=-1)
        else:
            x = tc.layer_norm(x, given["weight"], given["bias"])
    return x[:1]


async def host_times(devices: tc.Devices, folder: Path, length: int, rules: Rules) -> dict[str, Any]:
    """Measure a replayed forward's cost beside the device: milliseconds of Python, and calls into JavaScript.

    ``python_ms`` is the time from the call to its result without the one call into JavaScript: checking and
    padding the inputs, finding the program, wrapping the outputs. ``submit_ms`` includes that call; where commands go
    to the device in parts it includes the wait for all but the last, so it is meaningful on hardware only.
    """
    gpu = devices.webgpu
    assert gpu is not None
    manager = tc.TensorSharingManager(max_memory_mb=MEMORY_MB, devices=devices, activation_cache=False)
    model = await tc.from_pretrained(str(folder), manager=manager, device=gpu, tokenizer=False)
    ids = np.random.default_rng(0).integers(1000, 20000, (1, length))
    bridge = gpu.backend.bridge  # type: ignore[attr-defined]
    inner = bridge.run
    inside = 0.0

    def timed(*args: Any) -> Any:
        nonlocal inside
        started = time.perf_counter()
        parts = inner(*args)  # None if it is queued as a whole
        inside = time.perf_counter() - started
        return rest(parts) if parts is not None else None

    async def rest(parts: Any) -> Any:
        nonlocal inside
        started = time.perf_counter()
        try:
            return await parts
        finally:
            inside += time.perf_counter() - started

    python: list[float] = []
    submitted: list[float] = []
    calls, reads = set(), set()
    bridge.run = timed
    try:
        for turn in range(max(rules.rounds, 50) + 2):
            if len(python) > 4 and sum(submitted) > rules.cap_s * 1e3:
                break
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
    counted = f"{sorted(calls)} a forward, {sorted(reads)} a read"
    return {"python_ms": python, "submit_ms": submitted, "calls": counted}
