"""A bundle: the storages that a program reads in every run, used as one.

A model has a hundred weights; to look at each of them would take most of a replayed run's time.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backends.device import Device
from .lock import LockGroup
from .storage import Storage


class Bundle(LockGroup[Storage]):
    """The ``leaves`` of a program on ``device``: ``None`` where each run brings one."""

    def __init__(self, device: Device, leaves: Sequence[Storage | None]) -> None:
        super().__init__(device, list(dict.fromkeys(leaf for leaf in leaves if leaf is not None)))
        self._handles = [0 if leaf is None else leaf.number for leaf in leaves]
        self._open = [place for place, leaf in enumerate(leaves) if leaf is None]

    def brought(self, leaves: Sequence[Storage]) -> list[Storage]:
        """Return the ``leaves`` of a run that are not in the bundle."""
        return [leaves[place] for place in self._open]

    def handles(self, leaves: Sequence[Storage]) -> list[int]:
        """Return the handle of each of a run's ``leaves``, in use.

        Raises TensorReleased or DeviceLost for one whose bytes are gone: one that had left its device when it was
        released was not kept by its use.
        """
        if not self.is_settled:
            for storage in self.storages:
                if storage.state != "resident" and not storage.free_after_use:
                    _ = storage.handle
        handles = self._handles.copy()
        for place in self._open:
            handles[place] = leaves[place].handle
        return handles


def handles_of(storages: Sequence[Storage]) -> list[int]:
    """Return the handle of each. Raises TensorReleased or DeviceLost for one whose bytes are gone."""
    return [storage.number if storage.state == "resident" else storage.handle for storage in storages]
