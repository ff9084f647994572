"""Interned bytes: one entry for each content and device, with its holders and their names for it.

A model *holds* an entry, under any name and only once. A registered tensor keeps its entry alive by its name, held or
not. The bytes of an entry without a holder and without a registered name are freed.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..backends.base import Spec
from ..backends.device import Device
from .packed import Packed
from .provenance import anonymous_identity, content_identity
from .storage import Storage

# What models call their weights and what tensors are registered as are two sets of names: one must not end the other.
REGISTERED = "registered "


@dataclass(eq=False)
class Entry:
    """A storage with its spec; ``names`` are its names at each holder, ``registered`` the names that keep it alive.

    ``content`` is what the bytes are known to be, also where another entry has the same; ``None`` after a partial
    write. ``given`` are the leaves of a tensor that somebody gave as data and may still use: it is not written under
    them. ``packed`` has the blocks, by format, whose float32 numbers these are.
    """

    storage: Storage
    spec: Spec
    names: dict[str, set[str]] = field(default_factory=dict)
    registered: set[str] = field(default_factory=set)
    content: str | None = None
    pins: set[str] = field(default_factory=set)
    given: Collection[Any] = ()
    packed: dict[str, Packed] = field(default_factory=dict)
    number: int = field(default_factory=itertools.count().__next__)

    @property
    def name(self) -> str:
        """Name in reports: a registered one, else the first holder's."""
        if self.registered:
            return min(self.registered)
        return min(next(iter(self.names.values()), {self.storage.identity})).removeprefix(REGISTERED)

    def hold(self, model: str, name: str) -> bool:
        """Add a hold of ``model`` under ``name``. Return False if it existed already."""
        names = self.names.setdefault(model, set())
        new = name not in names
        names.add(name)
        self.storage.notify()
        return new

    def release(self, model: str, name: str) -> bool:
        """End the hold of ``model`` under ``name``. Return False if there was none."""
        names = self.names.get(model, set())
        if name not in names:
            return False
        names.discard(name)
        if not names:
            del self.names[model]
        self.storage.notify()
        return True

    def pin(self, name: str) -> None:
        """Keep the bytes on their device, for ``name``."""
        self.pins.add(name)
        self.storage.device.budget.pins_changed()

    def unpin(self, *names: str) -> None:
        """Undo :meth:`pin`."""
        self.pins.difference_update(names)
        self.storage.device.budget.pins_changed()

    def register(self, name: str) -> None:
        """Have the registered ``name`` keep the entry."""
        self.registered.add(name)
        self.storage.notify()

    def unregister(self, name: str) -> None:
        """Undo :meth:`register`."""
        self.registered.discard(name)
        self.storage.notify()


class Registry:
    """All entries of one manager, by device and content."""

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str], Entry] = {}
        self._origins: dict[tuple[int, str], str] = {}
        self._by_number: dict[int, Entry] = {}
        self._marked: set[int] = set()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def changes(self) -> dict[int, Entry | None]:
        """Return the entries that changed since the last call, by number; ``None`` for one that is gone."""
        changed = {number: self._by_number.get(number) for number in sorted(self._marked)}
        self._marked.clear()
        return changed

    def find(self, device: Device, identity: str) -> Entry | None:
        """Return the entry with this content on ``device``."""
        return self._entries.get((id(device), identity))

    def at_origin(self, device: Device, origin: str) -> Entry | None:
        """Return the entry read from ``origin`` (a file's address and byte range), if it is still on ``device``."""
        return self.find(device, self._origins.get((id(device), origin), ""))

    def record_origin(self, device: Device, origin: str, identity: str) -> None:
        """Record the content of ``origin``, so that it need not be read again."""
        self._origins[id(device), origin] = identity

    def copy_origins(self, device: Device, other: Device) -> None:
        """Record for ``device`` the origins of what is on ``other``."""
        known = {origin: identity for (place, origin), identity in self._origins.items() if place == id(other)}
        self._origins.update({(id(device), origin): identity for origin, identity in known.items()})

    def intern(self, device: Device, data: memoryview, spec: Spec) -> Entry:
        """Return the entry with these bytes, uploaded unless it is there. The caller holds or registers it next.

        Raises MemoryBudgetError if they do not fit; nothing changed then.
        """
        identity = content_identity(data, spec.shape, spec.dtype)
        known = self.find(device, identity)
        if known is None:
            known = Entry(Storage.upload(device, data, "weights", identity, spec=spec), spec, content=identity)
            self.add(known)
        elif known.storage.state == "lost":
            known.storage.revive(data)
        return known

    def add(self, entry: Entry) -> None:
        """Add an entry of an identity that is not registered yet."""
        known = self._entries.setdefault((id(entry.storage.device), entry.storage.identity), entry)
        assert known is entry, f"two entries for {entry.storage.identity}"
        self._by_number[entry.number] = entry
        entry.storage.notify_by(partial(self._marked.add, entry.number))  # a reference to the entry would be a cycle

    def rename(self, entry: Entry, content: str | None) -> None:
        """Note that the entry has other bytes: ``content``, or unknown ones.

        Where another entry has that content already, this one keeps an identity of its own beside it.
        """
        identity = content
        if identity is None or self.find(entry.storage.device, identity) not in (None, entry):
            identity = anonymous_identity()
        del self._entries[id(entry.storage.device), entry.storage.identity]
        entry.storage.rename(identity)
        entry.content = content
        entry.packed.clear()
        self.add(entry)

    def held_by(self, model: str) -> dict[str, Entry]:
        """Return the entries of ``model`` by its own names."""
        return {name: entry for entry in self for name in entry.names.get(model, ())}

    def release(self, model: str) -> int:
        """End every hold of ``model``. Return how many ended."""
        ended = 0
        for entry in list(self):
            if model in entry.names:
                ended += len(entry.names.pop(model))
                entry.storage.notify()
                self.drop_if_unused(entry)
        return ended

    def clear(self) -> None:
        """End every hold and registered name, so that all bytes are freed. Given bytes go back to their tensors."""
        for entry in list(self):
            entry.names.clear()
            entry.registered.clear()
            entry.unpin(*entry.pins)
            self.drop_if_unused(entry)
        self._origins.clear()

    def drop_if_unused(self, entry: Entry) -> None:
        """Free the entry if neither a holder nor a registered tensor keeps it. Given bytes go back to their tensors."""
        if entry.names or entry.registered:
            return
        storage = entry.storage
        self._entries.pop((id(storage.device), storage.identity), None)
        self._by_number.pop(entry.number, None)
        storage.notify()
        if entry.given:
            storage.leave_to_tensors()
        else:
            storage.release()
