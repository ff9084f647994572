"""Subscriptions: a report after every change, never in the middle of one."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from .report import MemoryReport

logger = logging.getLogger(__name__)


class Subscriptions:
    """The subscribers of one manager."""

    def __init__(self) -> None:
        self._subscribers: dict[int, Callable[[MemoryReport], None]] = {}
        self._keys = itertools.count()
        self._telling = False
        self._untold = False

    def subscribe(self, callback: Callable[[MemoryReport], None]) -> Callable[[], None]:
        """Call ``callback`` after every change. Return a function that ends this."""
        key = next(self._keys)
        self._subscribers[key] = callback
        return lambda: self._subscribers.pop(key, None) and None

    def clear(self) -> None:
        """End every subscription."""
        self._subscribers.clear()

    def notify(self, report: Callable[[], MemoryReport]) -> None:
        """Call all callbacks. A change made by one is reported when all were called for the one before."""
        self._untold = True
        if self._telling or not self._subscribers:
            return
        self._telling = True
        try:
            while self._untold:
                self._untold = False
                now = report()
                for key, callback in list(self._subscribers.items()):
                    if key in self._subscribers:
                        try:
                            callback(now)
                        except Exception:
                            logger.exception("a subscriber of the sharing manager failed")
        finally:
            self._telling = False
