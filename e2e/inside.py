"""The part of the lab that runs in the browser: called from the page's JavaScript, with results in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.graph import speed
from tests.cases import Place, harness
from tests.cases.time_limit import within

speed.SOFTWARE = 4 * speed.LEAST  # of the probes of profiles: no case compares a speed, and 32 MB take seconds of CPU
ready = False
_module = ""  # of the last case
_places: dict[str, Any] = {}


async def open(origin: str, kinds: str) -> None:  # noqa: A001
    """Open the kinds of devices, separated by commas, which must all be present."""
    global ready
    for kind in kinds.split(","):
        devices = await tc.open_devices(prefer=[kind, "cpu"])
        assert devices.opened[0].kind == kind, devices.missing
        _places[kind] = Place(devices, f"{origin}/models", f"{origin}/tiny", f"{origin}/faulty", "/lab/tests/goldens")
    ready = True


async def case(name: str, kind: str) -> str:
    """Run a case on that kind of device; gives {"value": printed lines} or {"error": traceback}."""
    global _module
    if _module != (module := name.partition(".")[0]):
        _module = module
        gc.collect()
        gc.freeze()  # excludes older objects from collections, of which every case runs two

    async def work() -> list[str]:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            await harness.run(name, _places[kind])
        return printed.getvalue().splitlines()

    return await _answer(work)


async def snippet(source: str, values: str, kind: str, limit: float) -> str:
    """Run ``source`` within ``limit`` seconds; gives {"value": its last expression} or {"error": traceback}."""

    async def work() -> Any:
        from pyodide.code import eval_code_async

        names = {"tc": tc, "np": np, "asyncio": asyncio, "place": _places[kind], **json.loads(values)}
        async with harness.nothing_left(_places[kind].device):
            result = await eval_code_async(source, names)
            names.clear()
        return result

    return await _answer(lambda: within(limit, work()))


async def _answer(work: Callable[[], Awaitable[Any]]) -> str:
    try:
        return json.dumps({"value": await work()})
    except BaseException:
        return json.dumps({"error": traceback.format_exc()})
