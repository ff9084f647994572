"""Progress in few messages: each one takes time of the page and of Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

EVERY = 0.05  # seconds


def at_most_every(seconds: float, send: Callable[[Any], None]) -> Callable[[dict[str, Any]], None]:
    """Return a function that sends events {"done", "total", ...}: the last one, and others at most so often."""
    sent = 0.0

    def report(event: dict[str, Any]) -> None:
        nonlocal sent
        now = time.monotonic()
        if event["done"] == event["total"] or now - sent > seconds:
            sent = now
            send(event)

    return report


class Progress:
    """Turns a load's events into one line of bytes: over all files when the load says so, else file by file."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._report = at_most_every(
            EVERY, lambda event: send({**event["bytes"], "loaded": event["done"], "total": event["total"]})
        )
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
        sizes = {"shared": event.get("shared_bytes") or 0, "stored": event.get("from_cache") or 0}
        self._report({"done": loaded, "total": total, "bytes": sizes})
