"""Locks of the cache and dist folders of a checkout."""

from __future__ import annotations

import contextlib
import fcntl
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import say

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def one_at_a_time(part: str = "") -> Iterator[None]:
    """Lock the checkout: a second set-up or build waits for the first, with a message.

    ``part`` names files that no other set-up or build changes; they have a lock of their own.
    """
    paths.CACHE.mkdir(parents=True, exist_ok=True)
    with (paths.CACHE / f"{part}lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up or build of this checkout is running: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
