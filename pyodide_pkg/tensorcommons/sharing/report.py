"""The memory report: an immutable snapshot of the holders of all bytes, as JSON-able data. The page draws only it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelMemory:
    """Bytes that one model holds, on its device or moved out of it for now.

    ``attributed_bytes`` counts what is on the device, shared bytes split evenly among their holders.
    """

    name: str
    device: str
    total_bytes: int
    exclusive_bytes: int
    shared_bytes: int
    attributed_bytes: float


@dataclass(frozen=True)
class TensorMemory:
    """One storage: the name that its first holder gave it, and every model that holds it.

    ``format`` is that of a quantised weight, such as "q8_0", whose ``dtype`` is that of the bytes; else the dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    format: str
    device: str
    nbytes: int
    holders: tuple[str, ...]
    identity: str
    state: str


@dataclass(frozen=True)
class MemoryReport:
    """A snapshot of the bytes on the devices, and of who holds them. All sizes are bytes.

    ``device_bytes`` is everything on the devices now, at most ``limit_bytes``; ``peak_bytes`` is its largest value so
    far. ``by_category`` divides it into "weights" (also registered tensors), "constants" (weights that graphs of WebNN
    have once more, while there is room), "activations" (outputs and values kept for later runs), "scratch" and
    "staging" (for reads).

    ``unique_weight_bytes`` are the weights and registered tensors, evicted ones, too, each counted once;
    ``separate_weight_bytes`` are those of all models if each had its own copy, and ``saved_bytes`` is the difference.

    ``activation_cache_bytes`` are the activations that are kept for later runs, and ``reused_from_cache`` is the number
    of nodes that runs have read from there instead of computing them.

    ``moved_bytes`` has the name of each model that is larger than the limit, and the bytes of weights that its last run
    moved to the device. ``evicted_bytes`` have left the devices to stay under the limit since the manager was made;
    ``restored_bytes`` came back.

    ``models`` has for each model its ``name``, ``device``, ``total_bytes``, ``exclusive_bytes`` (held by it alone),
    ``shared_bytes`` and ``attributed_bytes`` (on the device; shared bytes are divided evenly among their holders). The
    ``attributed_bytes`` and ``unheld_bytes`` (registered tensors without a holder) add up to the weights of
    ``by_category``. ``tensors`` has for each storage its ``name``, ``shape``, ``dtype``, ``format``, ``device``,
    ``nbytes``, ``holders``, ``identity`` and ``state``.

    >>> manager = tc.TensorSharingManager(max_memory_mb=16)
    >>> table = manager.register_shared_tensor("table", (256,))
    >>> report = manager.report()
    >>> report.device_bytes, report.unique_weight_bytes
    (1024, 1024)
    >>> report.to_dict()["limit_bytes"]
    16777216
    >>> manager.close()
    """

    limit_bytes: int
    device_bytes: int
    peak_bytes: int
    by_category: Mapping[str, int]
    activation_cache_bytes: int
    reused_from_cache: int
    unique_weight_bytes: int
    separate_weight_bytes: int
    saved_bytes: int
    unheld_bytes: int
    moved_bytes: Mapping[str, int]
    evicted_bytes: int
    restored_bytes: int
    models: tuple[ModelMemory, ...]
    tensors: tuple[TensorMemory, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dicts, lists, strings and numbers, for ``json.dumps``."""
        return {
            **vars(self),
            "by_category": dict(self.by_category),
            "moved_bytes": dict(self.moved_bytes),
            "models": [dict(vars(model)) for model in self.models],
            "tensors": [
                {**vars(tensor), "shape": list(tensor.shape), "holders": list(tensor.holders)}
                for tensor in self.tensors
            ],
        }
