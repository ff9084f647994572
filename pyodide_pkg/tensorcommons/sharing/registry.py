"""Interned weights: one storage a content and device, with the models that hold it.

A model *holds* a weight, whatever it calls it and however often it asks; when the last holder lets go, the bytes go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..backends.base import Spec
from ..backends.device import Device
from ..errors import ShapeMismatch
from .storage import Storage, content_identity


@dataclass
class Weight:
    """A storage with its spec, and for each holder the names it has there."""

    storage: Storage
    spec: Spec
    names: dict[str, set[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name that the first holder gave it."""
        return min(next(iter(self.names.values()), {self.storage.identity}))


class Registry:
    """All weights of one manager, by device and content."""

    def __init__(self) -> None:
        self._weights: dict[tuple[int, str], Weight] = {}
        self._origins: dict[tuple[int, str], str] = {}

    def __iter__(self) -> Iterator[Weight]:
        return iter(self._weights.values())

    def __len__(self) -> int:
        return len(self._weights)

    def at_origin(self, device: Device, origin: str) -> Weight | None:
        """The weight that was read from ``origin`` (a file's address and byte range), if it is still on ``device``."""
        return self._weights.get((id(device), self._origins.get((id(device), origin), "")))

    def intern(self, device: Device, model: str, name: str, data: memoryview, spec: Spec, origin: str) -> bool:
        """Have ``model`` hold the weight with these bytes; upload them only if no one holds them yet.

        Gives whether they were already there. Raises MemoryBudgetError if they do not fit; nothing changed then.
        """
        if data.nbytes != spec.nbytes:
            raise ShapeMismatch(f"{name}: {data.nbytes} bytes do not make {spec.shape} of {spec.dtype}")
        identity = content_identity(data, spec.shape, spec.dtype)
        key = (id(device), identity)
        known = key in self._weights
        if not known:
            self._weights[key] = Weight(Storage.upload(device, data, "weights", identity), spec)
        self._origins[id(device), origin] = identity
        self.hold(self._weights[key], model, name)
        return known

    def hold(self, weight: Weight, model: str, name: str) -> None:
        """Have ``model`` hold ``weight`` under ``name``; holding it twice is holding it once."""
        weight.names.setdefault(model, set()).add(name)

    def held_by(self, model: str) -> dict[str, Weight]:
        """The weights of ``model`` by its own names."""
        return {name: weight for weight in self._weights.values() for name in weight.names.get(model, ())}

    def release(self, model: str) -> int:
        """End every hold of ``model``; weights without a holder are freed. Gives how many holds ended."""
        ended = 0
        for key, weight in list(self._weights.items()):
            if weight.names.pop(model, None) is None:
                continue
            ended += 1
            if not weight.names:
                del self._weights[key]
                weight.storage.release()
        return ended
