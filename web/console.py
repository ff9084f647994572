"""The page's console: Python with ``await`` in the page's runtime, whose objects are live.

``tc`` is the package, ``manager`` and ``devices`` are those of the page, ``models`` the loaded models by name.
"""

import asyncio
import contextlib
import io
import sys
import traceback
from typing import Any

from pyodide.code import eval_code_async

import tensorcommons as tc

LONGEST = 20_000  # characters of one result
names: dict[str, Any] = {"__name__": "console", "tc": tc}


async def start(runtime: Any) -> None:
    """Make the runtime's objects known."""
    names.update(runtime=runtime, manager=runtime.manager, devices=runtime.devices)


async def run(source: str) -> dict[str, Any]:
    """Run statements: {"text": what they printed, and the last expression, "failed"}."""
    names["models"] = {model.name: model for model in names["runtime"].models}
    out = io.StringIO()
    failed = False
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            value = await eval_code_async(source, names, filename="<console>")
            if value is not None:
                names["_"] = value
                sys.stdout.write(repr(value))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            failed = True
            own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<console>"]
            lines = traceback.format_list(own) + traceback.format_exception_only(error)
            sys.stdout.write("".join(lines))
    text = out.getvalue().rstrip("\n")
    return {"text": text if len(text) <= LONGEST else f"{text[:LONGEST]}…", "failed": failed}
