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


def shares(manager: TensorSharingManager) -> dict[str, ModelMemory]:
    """What each model holds. Shared bytes on the device are split evenly, so that they add up to what is there."""
    names = dict.fromkeys([*manager.models, *(holder for entry in manager.registry for holder in entry.names)])
    total = dict.fromkeys(names, 0)
    own = dict.fromkeys(names, 0)
    part = dict.fromkeys(names, 0.0)
    kinds = {name: device.kind for name, device in manager.models.items()}
    for entry in manager.registry:
        nbytes, holders = entry.storage.nbytes, entry.names
        for holder in holders:
            total[holder] += nbytes
            own[holder] += nbytes if len(holders) == 1 else 0
            part[holder] += nbytes / len(holders) if entry.storage.is_resident else 0
            kinds.setdefault(holder, entry.storage.device.kind)
    return {
        name: ModelMemory(name, kinds.get(name, ""), total[name], own[name], total[name] - own[name], part[name])
        for name in names
    }


def _row(entry: Entry) -> TensorMemory:
    spec, storage = entry.spec, entry.storage
    return TensorMemory(
        name=entry.name,
        shape=spec.shape,
        dtype=spec.dtype.name,
        device=storage.device.kind,
        nbytes=storage.nbytes,
        holders=tuple(entry.names),
        identity=storage.identity,
        state=storage.state,
    )


def report(manager: TensorSharingManager) -> MemoryReport:
    """The snapshot that the page draws."""
    memories = [device.memory() for device in manager.devices.opened]
    unique = sum(entry.storage.nbytes for entry in manager.registry)
    separate = sum(entry.storage.nbytes * max(len(entry.names), 1) for entry in manager.registry)
    return MemoryReport(
        limit_bytes=manager.limit_bytes,
        device_bytes=sum(memory["total"] for memory in memories),
        peak_bytes=manager.residency.peak,
        by_category=MappingProxyType({kind: sum(memory[kind] for memory in memories) for kind in CATEGORIES}),
        unique_weight_bytes=unique,
        separate_weight_bytes=separate,
        saved_bytes=separate - unique,
        unheld_bytes=sum(e.storage.nbytes for e in manager.registry if not e.names and e.storage.is_resident),
        models=tuple(shares(manager).values()),
        tensors=tuple(_row(entry) for entry in manager.registry),
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
    held = {name: [key.removeprefix(REGISTERED) for key in manager.registry.held_by(name)] for name in shares(manager)}
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
