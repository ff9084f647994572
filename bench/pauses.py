"""Pauses of the worker: while checkpoints load, run, write, move and are unloaded, and during reports.

    make bench ARGS=pauses

Each case has a separate browser with the demo page, in whose worker Python works on a random checkpoint
(scripts/random_checkpoint.py). The page sends the worker a message every 5 ms, and the worker records how long each one
waited: the longest wait is the time in which a cancellation would not have arrived. Time for which the thread of the
worker waited for a processor, from /proc (Linux only), is subtracted, because the machine causes it. A first load comes
from the network and stores the weights in the browser; a second one, in a new manager, reads them from there.

``BENCH_OPTIONS='{"pauses": ["bert-large webgpu"]}'`` selects cases.
"""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error

from bench.memory import MB, OurTab
from bench.sizes import available
from scripts.console import say
from scripts.random_checkpoint import RandomCheckpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

WORTH = 50.0  # least ms of the recorded waits, besides the longest
KEEP_WORKER = """{
  const Own = Worker;
  globalThis.Worker = class extends Own {
    constructor(...given) { super(...given); globalThis.kept = this; }
  };
}"""
SEND = "() => { setInterval(() => kept.postMessage({ sent: performance.timeOrigin + performance.now() }), 5); }"
LISTEN = """() => {
  const now = () => performance.timeOrigin + performance.now();
  globalThis.waits = [];
  addEventListener("message", ({ data }) => { if (data.sent) waits.push([now(), now() - data.sent]); });
}"""
TAKE = "() => waits.splice(0)"
BEGIN = """
import time
import numpy as np
import tensorcommons as tc
devices = await tc.open_devices(prefer=[kind, "cpu"])
device = devices.opened[0]
assert device.kind == kind, devices.missing
ids = np.arange(1, 9).reshape(1, 8)

async def load():
    global manager, model
    manager = tc.TensorSharingManager(limit, devices=devices)
    model = await tc.from_pretrained(url, manager=manager, device=device, dtype=dtype, tokenizer=False)

async def run():
    for output in (await model(input_ids=ids)).values():
        assert np.isfinite(await output.read()).all()

def unload():
    model.unload()
    manager.close()

async def timed(work):
    began = time.perf_counter()
    result = work()
    if hasattr(result, "__await__"):
        await result
    return time.perf_counter() - began
"""
STEPS = {
    "load from the network": "load",
    "first run": "run",
    "second run": "run",
    "report": "lambda: manager.report().to_dict()",
    "unload": "unload",
    "load from storage": "load",
    "write 8 tokens": "lambda: model.generate(ids, max_new_tokens=8, do_sample=False)",
    "move to the CPU": 'lambda: model.to("cpu")',
    "unload there": "unload",
}


@dataclass(frozen=True)
class Case:
    """A checkpoint on a device."""

    recipe: str
    dtype: str
    kind: str

    @property
    def name(self) -> str:
        """Return the recipe and the device."""
        return f"{self.recipe} {self.kind}"


CASES = (
    Case("bert-large", "float32", "webgpu"),
    Case("smollm2-360m", "float16", "webgpu"),
    Case("bert-large", "float32", "webnn"),
    Case("bert-large", "float32", "cpu"),
    Case("xlm-roberta-base,dtype=BF16", "float32", "cpu"),
    Case("deep-llama", "float32", "webgpu"),
    Case("deep-llama,layers=2200", "float32", "cpu"),
)


class Queue:
    """Time that a thread has waited for a processor, sampled while the block runs."""

    EVERY = 0.005  # seconds

    def __init__(self, stat: Path) -> None:
        self._stat = stat
        self._times: list[float] = []  # ms since the epoch
        self._waited: list[float] = []  # total ms
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @classmethod
    def of_worker(cls, browser: Browser) -> Queue:
        """Return the queue of the only dedicated worker of the browser's pages."""
        asked = browser.new_browser_cdp_session()
        processes = asked.send("SystemInfo.getProcessInfo")["processInfo"]
        tasks = (task for each in processes for task in Path(f"/proc/{each['id']}/task").glob("*"))
        (worker,) = [task for task in tasks if (task / "comm").read_text("utf-8").startswith("DedicatedWorker")]
        return cls(worker / "schedstat")

    def __enter__(self) -> Queue:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        with suppress(OSError):  # the browser crashed
            while not self._over.wait(self.EVERY):
                self._times.append(time.time() * 1000)
                self._waited.append(int(self._stat.read_text("ascii").split()[1]) / 1e6)

    def within(self, begin: float, end: float) -> float:
        """Return the wait for a processor between two times, in ms; a lower bound."""
        first, last = bisect_left(self._times, begin), bisect_left(self._times, end) - 1
        return max(self._waited[last] - self._waited[first], 0.0) if last > first else 0.0


def _waits(found: list[list[float]], queue: Queue) -> list[float]:
    """Return the waits of messages in ms, one for all that waited for the same turn, longest first."""
    waits: list[float] = []
    read = 0.0
    for now, wait in found:
        if now - wait > read:  # sent after the last one was read
            waits.append(wait - queue.within(now - wait, now))
            read = now
    return sorted(waits, reverse=True)


def measure(case: Case, launch: Callable[..., Browser], url: str) -> dict[str, Any]:
    """Measure the seconds and longest waits in ms of each step; ``error`` is the error that ended the case."""
    nbytes = RandomCheckpoint(case.recipe).nbytes
    row: dict[str, Any] = {"name": case.name, "mb": nbytes / MB, "steps": {}}
    if available() < 2.3 * nbytes / MB + 2000:
        return row | {"error": f"not run: this machine has {available():,.0f} MB left"}
    browser = launch()
    try:
        tab = OurTab(browser, url, case.kind, KEEP_WORKER)
        worker, python = tab.worker, tab.python

        limit = int(nbytes / 2**20 * 2.6) + 1024  # a float16 weight may become float32
        place = f"{url}random/{case.recipe}"
        python(f"kind, dtype, limit, url = {case.kind!r}, {case.dtype!r}, {limit}, {place!r}\n{BEGIN}\nNone")
        worker.evaluate(LISTEN)
        tab.page.evaluate(SEND)
        for step, work in STEPS.items():
            if (step.startswith("move") and case.kind == "cpu") or (step.startswith("write") and "bert" in case.recipe):
                continue
            worker.evaluate(TAKE)
            with Queue.of_worker(browser) as queue:
                seconds = python(f"await timed({work})")
                taken = worker.evaluate(TAKE)
            found = _waits(taken, queue)
            row["steps"][step] = {"s": seconds, "waits": [found[0], *(wait for wait in found[1:] if wait > WORTH)]}
            say(f"  {case.name}: {step}: {seconds:.2f} s, waits {', '.join(f'{wait:.0f}' for wait in found[:6])} ms")
    except Error as error:
        row["error"] = error.message.strip().splitlines()[-1][:200]
    finally:
        with suppress(Error):
            browser.close()
    return row


def pauses_table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table: the longest wait of each step."""
    lines = [f"| longest wait, ms | {' | '.join(STEPS)} |", "|---" * (1 + len(STEPS)) + "|"]
    for row in rows:
        cells = [f"{row['steps'][step]['waits'][0]:,.0f}" if step in row["steps"] else "–" for step in STEPS]
        lines.append(f"| {row['name']}, {row['mb']:,.0f} MB | {' | '.join(cells)} |")
        if "error" in row:
            lines.append(f"| {row['error']} |{' |' * len(STEPS)}")
    return "\n".join(lines)


def measure_pauses(launch: Callable[..., Browser], url: str) -> list[dict[str, Any]]:
    """Measure a row per case."""
    wanted = json.loads(os.environ.get("BENCH_OPTIONS", "{}")).get("pauses")
    return [measure(case, launch, url) for case in CASES if wanted is None or case.name in wanted]
