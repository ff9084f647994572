"""Interactive sessions, as in docstrings: their lines run, with ``await`` at the top level, and print what they show.

It runs under CPython and in a browser.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import traceback

import numpy as np

import tensorcommons as tc
from tensorcommons.nn import functional

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


async def run(text: str, file: str = "<session>") -> None:
    """Run a session in a namespace with ``np``, ``tc``, ``F`` and ``asyncio``.

    Raises:
        AssertionError: a line prints something else, or fails; with the line.
    """
    names = {"np": np, "tc": tc, "F": functional, "asyncio": asyncio, "__name__": "__main__"}
    checker = doctest.OutputChecker()
    for example in doctest.DocTestParser().get_examples(text, file):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                code = compile(example.source, file, "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                result = eval(code, names)
                if inspect.iscoroutine(result):
                    await result
            except Exception as error:
                if example.exc_msg is None:
                    raise AssertionError(f"{file}: {example.source}{traceback.format_exc()}") from error
                printed.write("".join(traceback.format_exception_only(error)))
        wanted = example.exc_msg or example.want
        if not checker.check_output(wanted, printed.getvalue(), FLAGS):
            raise AssertionError(f"{file}: {example.source}prints\n{printed.getvalue()}instead of\n{wanted}")
    names.clear()
