"""Replies: results of promises that continue the task that waits for them at once.

To await a promise, Pyodide makes proxies of callbacks and a future; its two callbacks each wait for a turn of the
browser's event loop. That takes as long as the Python code of a replayed run. A reply is called by JavaScript when the
promise is done, through one proxy for all, and runs the next step of the task within that call.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

_numbers = itertools.count(1)
_open: dict[int, Reply] = {}  # those that JavaScript has not called yet, by number


class Reply:
    """A result that JavaScript passes to :func:`settle` under ``number``; awaited once, by the task that made it.

    It has the methods by which asyncio's tasks wait for a future. At the end of its ``with`` block it is closed, also
    if JavaScript was never called.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self._asyncio_future_blocking = False  # tasks require it
        self._loop = asyncio.get_running_loop()
        self._call: Callable[[Reply], None] | None = None
        self._context: Context | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        _open[self.number] = self

    def __await__(self) -> Generator[Reply, None, Any]:
        if self.number in _open:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exception: object) -> None:
        _open.pop(self.number, None)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the task."""
        return self._loop

    def add_done_callback(self, call: Callable[[Reply], None], *, context: Context | None = None) -> None:
        """Call ``call`` with the reply when it is settled."""
        self._call, self._context = call, context

    def result(self) -> Any:
        """Return the value, or raise the error."""
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self, msg: Any = None) -> bool:
        """Continue the task with CancelledError; what JavaScript passes later is dropped."""
        if _open.pop(self.number, None) is None:
            return False
        self._error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        if self._call is not None:  # not at once: another task is running
            self._loop.call_soon(self._call, self, context=self._context)
        return True

    def _settle(self, value: Any, error: BaseException | None) -> None:
        self._value, self._error = value, error
        if self._call is not None and self._context is not None:
            self._context.run(self._call, self)


def settle(number: int, value: Any, error: BaseException | None = None) -> None:
    """Give the reply ``number`` its value or error, and continue its task. Called by JavaScript."""
    reply = _open.pop(number, None)
    if reply is not None:
        reply._settle(value, error)
