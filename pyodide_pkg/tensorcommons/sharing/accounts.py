"""The accounts of a manager: its report and the dicts of its API, all from the registry and the devices' own counts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..backends.budget import CATEGORIES
from ..backends.device import Device
from .ledger import Ledger
from .registry import REGISTERED, Registry
from .report import MemoryReport, ModelMemory
from .run_account import RunAccount
from .tensors import SharedTensors

MB = 2**20
LARGEST = 10


def report(tensors: SharedTensors, ledger: Ledger, loaded: Mapping[str, Device], account: RunAccount) -> MemoryReport:
    """The snapshot that the page draws."""
    memories = [device.memory() for device in tensors.devices.opened]
    per_model = ledger.models(loaded)
    return MemoryReport(
        limit_bytes=tensors.residency.limit,
        device_bytes=sum(memory["total"] for memory in memories),
        peak_bytes=tensors.share.peak,
        by_category=MappingProxyType({kind: sum(memory[kind] for memory in memories) for kind in CATEGORIES}),
        activation_cache_bytes=tensors.activations.nbytes,
        reused_from_cache=account.reused,
        unique_weight_bytes=ledger.unique,
        separate_weight_bytes=ledger.separate,
        saved_bytes=ledger.separate - ledger.unique,
        unheld_bytes=ledger.unheld,
        moved_bytes=MappingProxyType({model: run["moved_bytes"] for model, run in account.streamed.items()}),
        models=tuple(per_model.values()),
        tensors=ledger.rows(),
    )


def stats(tensors: SharedTensors, account: RunAccount) -> dict[str, Any]:
    """``get_stats`` as far as it is about bytes and lookups, with the keys of the earlier API.

    ``crossed_bytes`` came from one device to another, by renting or through the host.
    """
    residency, share = tensors.residency, tensors.share
    return {
        "total_tensors": len(tensors.tensors),
        "unique_contents": len(tensors.registry),
        "memory_usage_bytes": residency.used,
        "memory_usage_mb": residency.used / MB,
        "max_memory_mb": residency.limit / MB,
        "peak_memory_bytes": share.peak,
        "cache_hits": tensors.hits,
        "cache_misses": tensors.misses,
        "hit_rate": _hit_rate(tensors),
        "activation_cache_bytes": tensors.activations.nbytes,
        "reused_from_cache": account.reused,
        "evictions": share.evictions,
        "evicted_bytes": share.evicted_bytes,
        "restores": share.restores,
        "restored_bytes": share.restored_bytes,
        "crossed_bytes": {
            way: sum(device.crossings[way] for device in tensors.devices.opened) for way in ("rented", "host")
        },
    }


def _hit_rate(tensors: SharedTensors) -> float:
    lookups = tensors.hits + tensors.misses
    return tensors.hits / lookups if lookups else 0.0


def tensor_usage(tensors: SharedTensors) -> dict[str, Any]:
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
            "state": tensor.entry.storage.condition,
            "same_bytes_as": sorted(tensor.entry.registered - {name}),
            "views": {view: {"shape": part.shape, "holders": part.holders} for view, part in tensor.views.items()},
        }
        for name, tensor in tensors.tensors.items()
    }


def model_usage(registry: Registry, per_model: Mapping[str, ModelMemory]) -> dict[str, Any]:
    """``get_model_memory_usage``."""
    held: dict[str, list[str]] = {name: [] for name in per_model}
    for entry in registry:
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
        for name, memory in per_model.items()
    }


def recommendations(tensors: SharedTensors, found: Mapping[str, Any]) -> dict[str, Any]:
    """``get_optimization_recommendations``."""
    by_size = sorted(tensors.registry, key=lambda entry: -entry.storage.nbytes)
    unused = [tensor for tensor in tensors.tensors.values() if tensor.reference_count <= 1]
    freeable = sum(tensor.nbytes for tensor in unused if tensor.can_be_freed())
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
            "hits": tensors.hits,
            "misses": tensors.misses,
            "hit_rate": _hit_rate(tensors),
        },
    }
