"""Memory of the page's and the GPU's process with checkpoints of 269 MB to 6.4 GB, and the times of their loads.

    make bench ARGS=sizes

Each case has a separate browser with the demo page, in whose worker Python loads a random checkpoint
(scripts/random_checkpoint.py) from a server that generates its bytes, runs it twice, and unloads it. The
figures are proportional set sizes from /proc without mapped files, as in :mod:`bench.memory`, without
forced garbage collections. A peak is the largest of samples 0.1 s apart. The last case has
three models in turn under a limit that fits one of them.

``BENCH_OPTIONS='{"sizes": ["bert-large webgpu"]}'`` selects cases.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Error

from bench.memory import MB, OurTab, pss
from scripts.console import say
from scripts.random_checkpoint import RandomCheckpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

KINDS = ("renderer", "GPU")
ROUNDS, LIMIT = 50, 200  # of evictions, under so many MB
EVICTED, MODELS = "bert-178mb", 3
SETTLED, REST, MOST = 2.0, 6, 40  # a change below so many MB in so many seconds counts as stable; maximum wait
LOADING = """
import json, time
import numpy as np
import tensorcommons as tc
devices = await tc.open_devices(prefer=[kind, "cpu"])
assert devices.opened[0].kind == kind, devices.missing
manager = tc.TensorSharingManager(limit, devices=devices, activation_cache=False)
models = []
ids = np.arange(1, 9).reshape(1, 8)

async def load(url):
    began = time.perf_counter()
    model = await tc.from_pretrained(
        url, manager=manager, device=devices.opened[0], dtype=dtype, tokenizer=False, cache=cache
    )
    models.append(model)
    return time.perf_counter() - began

async def run(model):
    began = time.perf_counter()
    for output in (await model(input_ids=ids)).values():
        assert np.isfinite(await output.read()).all()
    return time.perf_counter() - began

async def leave():
    for entry in list(manager.registry):
        assert await entry.storage.evict(), entry.names
    assert not devices.opened[0].memory()["weights"]

def unload():
    while models:
        models.pop().unload()
"""


@dataclass(frozen=True)
class Case:
    """A checkpoint on a device."""

    recipe: str
    dtype: str
    kind: str
    leaves: bool = False  # the device, and returns for the second run

    @property
    def name(self) -> str:
        return f"{self.recipe} {self.kind}"


CASES = (
    Case("smollm2-135m", "float16", "webgpu"),
    Case("bert-large", "float32", "webgpu"),
    Case("llama-1b", "float16", "webgpu"),
    Case("llama-3b", "float16", "webgpu"),
    Case("smollm2-135m", "float16", "webnn"),
    Case("bert-large", "float32", "webnn"),
    Case("smollm2-135m", "float16", "cpu"),
    Case("bert-large", "float32", "cpu"),
    Case(EVICTED, "float32", "webgpu"),
    Case("bert-large,vocab_size=550000,layers=1", "float32", "webgpu", leaves=True),  # a tensor of 2,252,800,000 bytes
)


class Watch:
    """Memory of a browser's processes, in MB by kind; a thread samples the peak."""

    def __init__(self, browser: Browser) -> None:
        self._asked = browser.new_browser_cdp_session()

    def now(self) -> dict[str, float]:
        return _taken(self._pids())

    def settled(self) -> dict[str, float]:
        """Return the memory once it is stable: a browser returns memory to the system some seconds later."""
        began = moved = time.monotonic()
        level, found = -1.0, self.now()
        while time.monotonic() - moved < REST and time.monotonic() - began < MOST:
            if abs(sum(found.values()) - level) >= SETTLED:
                level, moved = sum(found.values()), time.monotonic()
            time.sleep(1)
            found = self.now()
        return found

    @contextmanager
    def peak(self) -> Iterator[dict[str, float]]:
        """Record the largest figures while the block runs, available at its end."""
        pids, most, over = self._pids(), dict.fromkeys(KINDS, 0.0), threading.Event()

        def look() -> None:
            while not over.wait(0.1):
                for kind, taken in _taken(pids).items():
                    most[kind] = max(most[kind], taken)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield most
        finally:
            over.set()
            thread.join()

    def _pids(self) -> dict[str, list[int]]:
        pids: dict[str, list[int]] = {kind: [] for kind in KINDS}
        for process in self._asked.send("SystemInfo.getProcessInfo")["processInfo"]:
            if process["type"] in pids:
                pids[str(process["type"])].append(int(process["id"]))
        return pids


def _taken(pids: dict[str, list[int]]) -> dict[str, float]:
    return {kind: sum(map(pss, own)) for kind, own in pids.items()}


def available() -> float:
    """Return the available MB of this machine."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"), re.M)
    return int(found[1]) * 1024 / MB if found else 0.0


def measure(case: Case, launch: Callable[..., Browser], url: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure one case; ``error`` is the error that ended it."""
    nbytes = RandomCheckpoint(case.recipe).nbytes
    row: dict[str, Any] = {"name": case.name, "recipe": case.recipe, "kind": case.kind, "mb": nbytes / MB}
    if available() < 1.3 * nbytes / MB + 2000:
        return row | {"error": f"not run: this machine has {available():,.0f} MB left"}
    browser = launch()
    try:
        tab = OurTab(browser, url, case.kind)
        watch = Watch(browser)
        python = tab.python
        evicts = case.recipe == EVICTED
        limit = LIMIT if evicts else int(nbytes / 2**20 * 1.3) + 1024
        cache = "auto" if evicts else None  # an evicted weight is restored from the browser's storage
        python(f"kind, dtype, limit, cache = {case.kind!r}, {case.dtype!r}, {limit}, {cache!r}\n{LOADING}\nNone")
        row["ready"] = watch.settled()
        if evicts:
            _evict(row, case, watch, python, url, rounds)
            return row
        with watch.peak() as row["peak"]:
            row["load_s"] = python(f"await load({f'{url}random/{case.recipe}'!r})")
            row["first_s"] = python("await run(models[0])")
        row["loaded"] = watch.settled()
        if case.leaves:
            python("await leave()")
        row["second_s"] = python("await run(models[0])")
        python("unload()")
        row["unloaded"] = watch.settled()
    except Error as error:
        row["error"] = error.message.strip().splitlines()[-1][:200]
    finally:
        browser.close()
    return row


def _evict(row: dict[str, Any], case: Case, watch: Watch, python: Callable[[str], Any], url: str, rounds: int) -> None:
    with watch.peak() as row["peak"]:
        row["load_s"] = python(
            f"sum([await load({f'{url}random/{case.recipe},seed='!r} + str(seed)) for seed in range({MODELS})])"
        )
        row["first_s"] = python("sum([await run(model) for model in models])")
        row["loaded"] = watch.now()
        row["rounds"] = {}
        for number in range(1, rounds + 1):
            row["second_s"] = python("sum([await run(model) for model in models])")
            if number in (1, 2, 5) or number % 10 == 0:
                row["rounds"][number] = watch.now()
                say(f"  {number} rounds: {figures(row['rounds'][number])}")
    python("unload()")
    row["unloaded"] = watch.settled()


def figures(taken: dict[str, float] | None) -> str:
    """Format the figures of the renderer and the GPU process."""
    return " + ".join(f"{taken[kind]:,.0f}" for kind in KINDS) if taken else "–"


def sizes_table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    head = ("ready", "peak", "loaded, run", "unloaded")
    lines = [
        "| MB of the page's process + the GPU process | load, s | second forward, s | " + " | ".join(head) + " |",
        "|---" * (3 + len(head)) + "|",
    ]
    for row in rows:
        name = f"{row['recipe']}, {row['mb']:,.0f} MB, {row['kind']}"
        if "rounds" in row:
            name += f": {MODELS} in turn under {LIMIT} MB"
        times = [f"{row[key]:.1f}" if key in row else "–" for key in ("load_s", "second_s")]
        taken = [figures(row.get(key)) for key in ("ready", "peak", "loaded", "unloaded")]
        lines.append(f"| {name} | {' | '.join([*times, *taken])} |")
        if "rounds" in row:
            each = ", ".join(f"{number}: {figures(taken)}" for number, taken in row["rounds"].items())
            lines.append(f"| after so many rounds | | | {each} | | | |")
        if "error" in row:
            lines.append(f"| {row['error']} | | | | | | |")
    return "\n".join(lines)


def measure_sizes(launch: Callable[..., Browser], url: str) -> list[dict[str, Any]]:
    """Measure a row per case."""
    wanted = json.loads(os.environ.get("BENCH_OPTIONS", "{}")).get("sizes")
    rows = []
    for case in CASES:
        if wanted is None or case.name in wanted:
            rows.append(measure(case, launch, url))
            say(sizes_table(rows[-1:]).splitlines()[2])
            if "error" in rows[-1]:
                say(rows[-1]["error"])
    return rows
