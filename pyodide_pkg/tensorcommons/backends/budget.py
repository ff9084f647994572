"""The budget of a device, which is checked before bytes are taken, and makes room for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

Category: TypeAlias = Literal["weights", "constants", "activations", "scratch", "staging"]
CATEGORIES: tuple[Category, ...] = ("weights", "constants", "activations", "scratch", "staging")
STAGING_RESERVE = 64 * 1024  # bytes of a budget (or a quarter of it) that only reads take, so bytes can always leave


class Budget:
    """Limit of a device's bytes. This one has no limit; a manager sets its own on every device that it is given.

    ``usable`` are the bytes that anything but reads may take.
    """

    usable = 2**62
    revision = 0  # another number where :meth:`room` may give another answer

    def __init__(self) -> None:
        self.reading = asyncio.Lock()  # one read at a time has the reserve, whatever device it is of

    def reserve(self, nbytes: int, category: Category) -> None:
        """Check the limit before ``nbytes`` are taken. Raises MemoryBudgetError."""

    @property
    def idle_share(self) -> float:
        """Part of the limit that values may take which are kept for later calls."""
        return 0.0

    def free_bytes(self) -> int:
        """Return the bytes left under the limit."""
        return 2**62

    def room(self, storages: Collection[Any] = ()) -> int:
        """Return the most bytes that a run over ``storages`` may have at once, whatever else is evicted."""
        return self.usable

    def held(self, storages: Collection[Any] = ()) -> int:
        """Return the bytes of values beside ``storages`` that only their owners can free."""
        return 0

    def pins_changed(self) -> None:
        """Note that other entries are pinned than before."""

    @contextmanager
    def arriving(self, nbytes: int) -> Iterator[None]:
        """Count ``nbytes`` of a new tensor as not evictable within the block, which must not ask for more room."""
        yield

    async def ensure(self, storages: Sequence[Any], extra: int = 0, bundle: Any = None) -> int:
        """Bring ``storages`` and those of ``bundle`` back to their devices, and make room for ``extra`` bytes more.

        Return the bytes that were brought back."""
        if bundle is not None:
            bundle.settle()
        return 0

    def make_room_now(self, nbytes: int) -> None:
        """Make room without waiting, where that is possible."""

    def use_ended(self) -> None:
        """Note that a use ended, so more bytes can be evicted."""
