"""The ledger: what each model holds and a row for every storage, kept up to date entry by entry.

A report after every change must not cost a walk over every tensor, so each entry's part is taken out of the sums and
put in again only when it changed. The sums are whole numbers, so that they stay exact however often that happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from ..backends.base import BlockSpec
from ..backends.device import Device
from .registry import Entry, Registry
from .report import ModelMemory, TensorMemory


class _Part(NamedTuple):
    """One entry's part of the sums: its holders, its bytes, and those of them that are on the device."""

    holders: tuple[str, ...]
    nbytes: int
    resident: int


class _Sums:
    """Sums of one model: bytes, those without another holder, and bytes on the device by number of holders."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.entries = self.total = self.own = 0
        self.resident: Counter[int] = Counter()


class Ledger:
    """The sums over one registry. ``unheld`` counts bytes on a device that no model holds."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._parts: dict[int, _Part] = {}
        self._models: dict[str, _Sums] = {}
        self._rows: dict[int, TensorMemory] = {}
        self.unique = self.separate = self.unheld = 0

    def _settle(self) -> None:
        """Update the sums by the entries that changed."""
        for number, entry in self._registry.changes().items():
            before = self._parts.pop(number, None)
            if entry is None:
                self._rows.pop(number, None)
            else:
                storage = entry.storage
                part = _Part(tuple(entry.names), storage.nbytes, storage.nbytes if storage.is_resident else 0)
                self._parts[number] = part
                self._count(part, 1, storage.device.kind)
                self._rows[number] = _row(entry, part.holders)
            if before is not None:
                self._count(before, -1, "")

    def _count(self, part: _Part, sign: int, kind: str) -> None:
        holders, count = part.holders, len(part.holders)
        self.unique += sign * part.nbytes
        self.separate += sign * part.nbytes * (count or 1)
        if not count:
            self.unheld += sign * part.resident
        for name in holders:
            sums = self._models.get(name)
            if sums is None:
                sums = self._models[name] = _Sums(kind)
            sums.entries += sign
            sums.total += sign * part.nbytes
            sums.own += sign * part.nbytes * (count == 1)
            sums.resident[count] += sign * part.resident
            if not sums.entries:
                del self._models[name]

    def rows(self) -> tuple[TensorMemory, ...]:
        """A row for every storage."""
        return tuple(self._rows.values())

    def models(self, loaded: Mapping[str, Device]) -> dict[str, ModelMemory]:
        """The memory of each model, now; of ``loaded`` also those that hold nothing.

        Shared bytes on the device are split evenly, so that they add up to what is there.
        """
        self._settle()
        kinds = {name: device.kind for name, device in loaded.items()}
        found: dict[str, ModelMemory] = {}
        for name in (*loaded, *(name for name in self._models if name not in loaded)):
            sums = self._models.get(name) or _Sums("")
            part = sum(nbytes / count for count, nbytes in sums.resident.items())
            shared = sums.total - sums.own
            found[name] = ModelMemory(name, kinds.get(name, sums.kind), sums.total, sums.own, shared, part)
        return found


def _row(entry: Entry, holders: tuple[str, ...]) -> TensorMemory:
    storage, spec = entry.storage, entry.spec
    quantised = (spec.format, spec.weight_shape) if isinstance(spec, BlockSpec) else None
    form, shape = quantised or (spec.dtype.name, spec.shape)
    return TensorMemory(
        name=entry.name,
        shape=shape,
        dtype=spec.dtype.name,
        format=form,
        device=storage.device.kind,
        nbytes=storage.nbytes,
        holders=holders,
        identity=storage.identity,
        state=storage.condition,
    )
