"""The memory of a device: handles to its bytes, and the one account of them.

Every byte on a device (weights, constants, activations, scratch, staging) is taken through :meth:`Memory.allocate` or
:meth:`Memory.charged`, so the account is complete by construction. The budget is asked before, never after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import DeviceUnavailable
from .backend import Backend
from .base import Spec
from .budget import CATEGORIES, Budget, Category
from .output_pool import OutputPool


class Memory(ABC):
    """The bytes of a device by handle and category; ``total`` are held now."""

    def __init__(self, backend: Backend[Any]) -> None:
        self.backend = backend
        self.kind = backend.kind
        self.budget = Budget()
        self.total = 0
        self.output_pool = OutputPool(self)
        self._bytes: dict[Category, int] = dict.fromkeys(CATEGORIES, 0)
        self._peak = 0
        self._handles: dict[int, tuple[int, Category]] = {}
        self._specs: dict[int, Spec] = {}  # what lies under a handle, for devices whose memory is typed
        self._next_handle = 1
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """True after :meth:`close`: the device can hold nothing any more."""
        return self._closed

    @abstractmethod
    def drop_programs(self) -> None:
        """Forget all programs if the device holds no tensor any more. Called after bytes were freed."""

    def put_under(self, budget: Budget) -> None:
        """Check every later allocation against ``budget``."""
        self.budget = budget

    def memory(self) -> dict[str, int]:
        """Return the current bytes by category, and "total" and "peak" (the largest total since it was opened).

        The categories are "weights", "constants" (weights once more, in graphs of WebNN), "activations", "scratch" and
        "staging" (for reads).
        """
        return {**{str(kind): size for kind, size in self._bytes.items()}, "total": self.total, "peak": self._peak}

    def new_handle(self) -> int:
        """Return a handle that was never used before."""
        self._next_handle += 1
        return self._next_handle - 1

    def charge(self, nbytes: int, category: Category) -> None:
        """Count ``nbytes`` that are about to be taken. Raises MemoryBudgetError if they would pass the budget."""
        if self._closed:
            raise DeviceUnavailable(self.kind, "it was closed; open it again with open_devices()")
        self.budget.reserve(nbytes, category)
        self._bytes[category] += nbytes
        self.total += nbytes
        self._peak = max(self._peak, self.total)

    def refund(self, nbytes: int, category: Category) -> None:
        """Undo :meth:`charge`."""
        if not self._closed:
            self._bytes[category] -= nbytes
            self.total -= nbytes

    @contextmanager
    def charged(self, nbytes: int, category: Category) -> Iterator[None]:
        """Count bytes that the device itself creates and drops within the block."""
        self.charge(nbytes, category)
        try:
            yield
        finally:
            self.refund(nbytes, category)

    def allocate(self, nbytes: int, category: Category, spec: Spec | None = None) -> int:
        """Allocate ``nbytes`` bytes of any content, for a value of ``spec`` if known. Return their handle.

        Raises:
            MemoryBudgetError: it would pass the budget; nothing was allocated.
        """
        handle = self.promise(nbytes, category, spec)
        try:
            self.restore(handle)
        except BaseException:
            self._drop(handle)
            raise
        return handle

    def promise(self, nbytes: int, category: Category, spec: Spec | None = None) -> int:
        """Return a handle for bytes that :meth:`restore` allocates."""
        handle = self.new_handle()
        self._handles[handle] = (nbytes, category)
        if spec is not None:
            self._specs[handle] = spec
        return handle

    def _drop(self, handle: int) -> None:
        self._handles.pop(handle, None)
        self._specs.pop(handle, None)
        self.output_pool.forget(handle)

    def adopt(self, spec: Spec, category: Category) -> int:
        """Return a handle for a value that a run is about to create; counted from now on."""
        handle = self.new_handle()
        self.charge(spec.nbytes, category)
        self._handles[handle], self._specs[handle] = (spec.nbytes, category), spec
        return handle

    def disown(self, handle: int) -> None:
        """Undo :meth:`adopt` for a run that did not create its output. Does nothing after :meth:`close`."""
        if not self._closed:
            self.refund(*self._handles[handle])
            self._drop(handle)

    def free(self, handle: int) -> None:
        """Free the bytes of ``handle``. Does nothing after :meth:`close`."""
        if self._closed:
            return
        nbytes, category = self._handles[handle]
        self.refund(nbytes, category)
        if not self.output_pool.take(handle, nbytes):
            self.backend.free(handle)
        self._drop(handle)
        self.drop_programs()

    def evict(self, handle: int) -> None:
        """Take the bytes of ``handle`` off the device; the handle stays. Does nothing after :meth:`close`."""
        if self._closed:
            return
        self.refund(*self._handles[handle])
        self.output_pool.forget(handle)
        self.backend.free(handle)

    def restore(self, handle: int) -> None:
        """Allocate bytes for a new or evicted ``handle``. Raises MemoryBudgetError if they do not fit."""
        nbytes, category = self._handles[handle]
        self.charge(nbytes, category)
        try:
            self.backend.allocate(handle, nbytes, self._specs.get(handle))
        except BaseException:
            self.refund(nbytes, category)
            raise

    def recategorize(self, handle: int, category: Category, *, is_resident: bool) -> Category:
        """Count the bytes of ``handle`` under another category from now on, also when they come back."""
        nbytes, before = self._handles[handle]
        self._handles[handle] = (nbytes, category)
        if is_resident:
            self._bytes[before] -= nbytes
            self._bytes[category] += nbytes
        return category

    def forget(self, handle: int) -> None:
        """Forget an evicted handle for good."""
        self._drop(handle)
        self.drop_programs()

    def write_off(self, handle: int) -> None:
        """Stop counting the bytes of ``handle``: they went with the lost device. The handle stays."""
        self.refund(*self._handles[handle])

    def close(self) -> None:
        """Free everything on the device. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._handles.clear()
            self._specs.clear()
            self._bytes = dict.fromkeys(CATEGORIES, 0)
            self.total = 0
            self.output_pool = OutputPool(self)
            self.backend.close()
