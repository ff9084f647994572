"""Activations that runs leave for later runs: the values at which computations part, and the outputs of models.

An entry is known by what it is: how it was computed, from which weights, of which inputs. It counts as an activation on
its device, leaves first under memory pressure, and goes with the last holder of a weight that went into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from weakref import ref

from ..backends.base import Spec
from ..backends.device import Device
from .storage import Storage

#: The weights that a value was computed from, each with its identity at that time.
Sources: TypeAlias = "tuple[tuple[ref[Storage], str], ...]"


@dataclass(frozen=True, eq=False)
class Activation:
    """A kept value, and the weights that it was computed from."""

    storage: Storage
    spec: Spec
    sources: Sources

    @property
    def is_current(self) -> bool:
        """True if its bytes are there, and every weight is there and what it was."""
        if not self.storage.is_resident:
            return False
        for weight, identity in self.sources:
            storage = weight()
            if storage is None or storage.state == "released" or storage.identity != identity:
                return False
        return True

    @property
    def is_idle(self) -> bool:
        """True if it is not in use: no tensor shows it, no program reads it."""
        return not self.storage.leaves and not self.storage.in_use


class ActivationCache:
    """The kept activations of one manager, the least recently used first; at most ``share`` of its limit."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.nbytes = 0  # bytes of all that is kept
        self._kept: dict[tuple[int, str], Activation] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def idle_bytes(self) -> int:
        """Bytes that may leave now."""
        return sum(activation.storage.nbytes for activation in self._kept.values() if activation.is_idle)

    def find(self, device: Device, key: str) -> Activation | None:
        """Return the activation of ``key``, if its bytes are there."""
        found = self._kept.get((id(device), key))
        if found is not None and not found.storage.is_resident:  # it was lost with its device, or released
            self._remove((id(device), key))
            return None
        return found

    def use(self, device: Device, key: str) -> None:
        """Mark as used now."""
        if (id(device), key) in self._kept:
            self._kept[id(device), key] = self._kept.pop((id(device), key))

    def keep(self, key: str, storage: Storage, spec: Spec, sources: Sources, limit: int) -> None:
        """Keep ``storage``, computed from ``sources``, as ``key`` if it fits into the share of ``limit`` bytes.

        The least recently used activations leave for it.
        """
        room = int(self.share * limit)
        if storage.is_kept or storage.nbytes > room or (id(storage.device), key) in self._kept:
            return
        activation = Activation(storage, spec, sources)
        if not activation.is_current:  # a weight went while it was computed
            return
        while self.nbytes + storage.nbytes > room:
            self._remove(next(iter(self._kept)))
        storage.is_cached = True
        self._kept[id(storage.device), key] = activation
        self.nbytes += storage.nbytes

    def drop_oldest(self) -> bool:
        """Free the least recently used of those that are not in use. False if there is none."""
        for key, activation in self._kept.items():
            if activation.is_idle:
                self._remove(key)
                return True
        return False

    def sweep(self) -> None:
        """Free what can never be found again: a weight that it was computed from is gone or was written."""
        for key, activation in list(self._kept.items()):
            if not activation.is_current:
                self._remove(key)

    def forget(self, storage: Storage) -> None:
        """Stop keeping ``storage``, which has another owner from now on."""
        for key, activation in list(self._kept.items()):
            if activation.storage is storage:
                self._take(key)

    def clear(self) -> None:
        """Stop keeping everything; what a tensor shows stays as long as the tensor."""
        for key in list(self._kept):
            self._remove(key)

    def _take(self, key: tuple[int, str]) -> Activation:
        """Stop keeping an activation, and return it."""
        activation = self._kept.pop(key)
        self.nbytes -= activation.storage.nbytes
        activation.storage.is_cached = False
        return activation

    def _remove(self, key: tuple[int, str]) -> None:
        activation = self._take(key)
        if activation.is_idle:
            activation.storage.release()
