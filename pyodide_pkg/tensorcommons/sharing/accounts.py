"""The accounts of a manager: its report and the dicts of its API, all from the registry and the devices' own counts."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..backends.device import CATEGORIES
from .registry import REGISTERED
from .report import MemoryReport, ModelMemory, TensorMemory

if TYPE_CHECKING:
    from .manager import TensorSharingManager
    from .registry import Entry

MB = 2**20
LARGEST = 10


class _Tally:
    """One pass over the registry: what each model holds, the sums, and (if asked) a row for every storage."""

    def __init__(self, manager: TensorSharingManager, *, rows: bool = False) -> None:
        self.kinds = {name: device.kind for name, device in manager.models.items()}
        self.total = dict.fromkeys(manager.models, 0)
        self.own = dict.fromkeys(manager.models, 0)
        self.part = dict.fromkeys(manager.models, 0.0)
        self.unique = self.separate = self.unheld = 0
        self.rows = [_row(entry) for entry in manager.registry] if rows else []
        for entry in manager.registry:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        storage, holders = entry.storage, entry.names
        nbytes, count = storage.nbytes, len(entry.names)
        on_device = nbytes if storage.state == "resident" else 0
        self.unique += nbytes
        self.separate += nbytes * (count or 1)
        if not count:
            self.unheld += on_device
        for holder in holders:
            if holder in self.total:
                self.total[holder] += nbytes
                self.part[holder] += on_device / count
            else:
                self.total[holder], self.own[holder], self.part[holder] = nbytes, 0, on_device / count
                self.kinds.setdefault(holder, storage.device.kind)
            if count == 1:
                self.own[holder] += nbytes

    def models(self) -> dict[str, ModelMemory]:
        """Per model. Shared bytes on the device are split evenly, so that they add up to what is there."""
        return {
            name: ModelMemory(name, self.kinds.get(name, ""), total, own, total - own, part)
            for (name, total), own, part in zip(self.total.items(), self.own.values(), self.part.values(), strict=True)
        }


def shares(manager: TensorSharingManager) -> dict[str, ModelMemory]:
    """What each model holds."""
    return _Tally(manager).models()


def _row(entry: Entry) -> TensorMemory:
    """The entry's row; the one of the last report while it still says what is true, so that a report costs little."""
    storage, row = entry.storage, entry.row
    name, holders = entry.name, tuple(entry.names)
    if (
        row is None
        or row.holders != holders
        or row.name != name
        or row.state != storage.state
        or row.identity != storage.identity
    ):
        spec = entry.spec
        row = entry.row = TensorMemory(
            name=name,
            shape=spec.shape,
            dtype=spec.dtype.name,
            device=storage.device.kind,
            nbytes=storage.nbytes,
            holders=holders,
            identity=storage.identity,
            state=storage.state,
        )
    return row


def report(manager: TensorSharingManager) -> MemoryReport:
    """The snapshot that the page draws."""
    memories = [device.memory() for device in manager.devices.opened]
    tally = _Tally(manager, rows=True)
    return MemoryReport(
        limit_bytes=manager.limit_bytes,
        device_bytes=sum(memory["total"] for memory in memories),
        peak_bytes=manager.residency.peak,
        by_category=MappingProxyType({kind: sum(memory[kind] for memory in memories) for kind in CATEGORIES}),
        unique_weight_bytes=tally.unique,
        separate_weight_bytes=tally.separate,
        saved_bytes=tally.separate - tally.unique,
        unheld_bytes=tally.unheld,
        models=tuple(tally.models().values()),
        tensors=tuple(tally.rows),
    )


def stats(manager: TensorSharingManager) -> dict[str, Any]:
    """``get_stats``: the keys of the earlier API, and what evictions and runs did."""
    lookups = manager.hits + manager.misses
    residency = manager.residency
    return {
        "total_tensors": len(manager.registry),
        "total_models": len(shares(manager)),
        "memory_usage_bytes": residency.used,
        "memory_usage_mb": residency.used / MB,
        "max_memory_mb": residency.limit / MB,
        "peak_memory_bytes": residency.peak,
        "cache_hits": manager.hits,
        "cache_misses": manager.misses,
        "hit_rate": manager.hits / lookups if lookups else 0.0,
        "models": list(shares(manager)),
        "sharing_opportunities": manager.analyze_sharing_opportunities(),
        "evictions": residency.evictions,
        "evicted_bytes": residency.evicted_bytes,
        "restores": residency.restores,
        "restored_bytes": residency.restored_bytes,
        "last_run": manager.last_run,
    }


def tensor_usage(manager: TensorSharingManager) -> dict[str, Any]:
    """``get_tensor_memory_usage``."""
    return {
        name: {
            "memory_bytes": tensor.nbytes,
            "memory_mb": tensor.nbytes / MB,
            "shape": tensor.shape,
            "dtype": tensor.dtype.name,
            "storage_type": tensor.storage_type,
            "producer_model": tensor.producer_model,
            "consumer_models": sorted(tensor.consumer_models),
            "holders": tensor.holders,
            "reference_count": tensor.reference_count,
            "is_pinned": tensor.is_pinned,
            "state": tensor.entry.storage.state,
            "same_bytes_as": sorted(tensor.entry.registered - {name}),
            "views": {view: {"shape": part.shape, "holders": part.holders} for view, part in tensor.views.items()},
        }
        for name, tensor in manager.tensors.items()
    }


def model_usage(manager: TensorSharingManager) -> dict[str, Any]:
    """``get_model_memory_usage``."""
    held: dict[str, list[str]] = {name: [] for name in manager.models}
    for entry in manager.registry:
        for name, keys in entry.names.items():
            held.setdefault(name, []).extend(key.removeprefix(REGISTERED) for key in keys)
    return {
        name: {
            "total_memory_bytes": memory.total_bytes,
            "total_memory_mb": memory.total_bytes / MB,
            "exclusive_bytes": memory.exclusive_bytes,
            "shared_bytes": memory.shared_bytes,
            "attributed_bytes": memory.attributed_bytes,
            "tensor_count": len(held[name]),
            "tensors": sorted(held[name]),
        }
        for name, memory in shares(manager).items()
    }


def recommendations(manager: TensorSharingManager) -> dict[str, Any]:
    """``get_optimization_recommendations``."""
    by_size = sorted(manager.registry, key=lambda entry: -entry.storage.nbytes)
    unused = [tensor for tensor in manager.tensors.values() if tensor.reference_count <= 1]
    found = manager.analyze_sharing_opportunities()
    freeable = sum(tensor.nbytes for tensor in unused if tensor.can_be_freed())
    lookups = manager.hits + manager.misses
    return {
        "largest_tensors": [
            {"name": entry.name, "memory_mb": entry.storage.nbytes / MB, "holders": list(entry.names)}
            for entry in by_size[:LARGEST]
        ],
        "low_reference_tensors": [
            {"name": tensor.name, "memory_mb": tensor.nbytes / MB, "reference_count": tensor.reference_count}
            for tensor in sorted(unused, key=lambda tensor: -tensor.nbytes)
        ],
        "sharing_opportunities": found,
        "potential_savings_mb": (freeable + sum(row["saved_bytes"] for row in found["equal_content"])) / MB,
        "cache_efficiency": {
            "hits": manager.hits,
            "misses": manager.misses,
            "hit_rate": manager.hits / lookups if lookups else 0.0,
        },
    }
