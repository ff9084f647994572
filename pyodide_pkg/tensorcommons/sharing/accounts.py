"""The accounts of a manager: its report and the dicts of its API, all from the registry and the devices' own counts.

:class:`Accounts` is the part of ``TensorSharingManager`` that reports who holds what, and what runs did.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

from ..backends.budget import CATEGORIES
from ..backends.device import Device
from ..backends.select import Devices
from .contract import Movable
from .ledger import Ledger
from .opportunities import opportunities
from .registry import REGISTERED
from .report import MemoryReport
from .run_account import RunAccount
from .tensors import SharedTensors

MB = 2**20
LARGEST = 10


class Accounts(SharedTensors):
    """Shared tensors and models with their accounts. ``models`` maps names to devices, also while a model loads."""

    def __init__(self, devices: Devices, limit: int, activation_share: float) -> None:
        super().__init__(devices, limit, activation_share)
        self.models: dict[str, Device] = {}
        self.account = RunAccount()
        self._loaded: WeakValueDictionary[str, Movable] = WeakValueDictionary()  # each refers to this manager
        self._ledger = Ledger(self.registry)

    def report(self) -> MemoryReport:
        """Take an immutable snapshot of who holds what."""
        ledger = self._ledger
        memories = [device.memory() for device in self.devices.opened]
        per_model = ledger.models(self.models)
        return MemoryReport(
            limit_bytes=self.residency.limit,
            device_bytes=sum(memory["total"] for memory in memories),
            peak_bytes=self.share.peak,
            by_category=MappingProxyType({kind: sum(memory[kind] for memory in memories) for kind in CATEGORIES}),
            activation_cache_bytes=self.activations.nbytes,
            reused_from_cache=self.account.reused,
            unique_weight_bytes=ledger.unique,
            separate_weight_bytes=ledger.separate,
            saved_bytes=ledger.separate - ledger.unique,
            unheld_bytes=ledger.unheld,
            moved_bytes=MappingProxyType({model: run["moved_bytes"] for model, run in self.account.streamed.items()}),
            evicted_bytes=self.share.evicted_bytes,
            restored_bytes=self.share.restored_bytes,
            models=tuple(per_model.values()),
            tensors=ledger.rows(),
        )

    def get_stats(self) -> dict[str, Any]:
        """Return counts, sizes and the account of the last run (``last_run``) as a dict.

        "total_tensors" counts the registered names, "unique_contents" the storages of these and of the weights.
        "memory_usage_bytes" is everything on the devices. "cache_hits", "cache_misses" and "hit_rate" are of lookups
        by ``get_shared_tensor``; "evictions" and "restores" count storages. "streamed" has, of each model that is
        larger than the limit, the segments of its last run, the bytes of weights that it moved to the device, and those
        that stay there. "crossed_bytes" came from another device: "rented" without a copy by the host, or by "host".
        "generation" has the generated "tokens", the "seconds" that they took and "tokens_per_second"; "reused_tokens",
        the tokens of prompts whose keys and values were reused; "batched_tokens", those generated in one run with other
        generations; and "largest_batch", the most generations in one run.
        """
        models = list(self._ledger.models(self.models))
        residency, share = self.residency, self.share
        return {
            "total_tensors": len(self.tensors),
            "unique_contents": len(self.registry),
            "memory_usage_bytes": residency.used,
            "memory_usage_mb": residency.used / MB,
            "max_memory_mb": residency.limit / MB,
            "peak_memory_bytes": share.peak,
            "cache_hits": self.hits,
            "cache_misses": self.misses,
            "hit_rate": self._hit_rate,
            "activation_cache_bytes": self.activations.nbytes,
            "reused_from_cache": self.account.reused,
            "evictions": share.evictions,
            "evicted_bytes": share.evicted_bytes,
            "restores": share.restores,
            "restored_bytes": share.restored_bytes,
            "crossed_bytes": {
                way: sum(device.crossings[way] for device in self.devices.opened) for way in ("rented", "host")
            },
            "total_models": len(models),
            "models": models,
            "sharing_opportunities": self.analyze_sharing_opportunities(),
            "streamed": {model: dict(run) for model, run in self.account.streamed.items()},
            "generation": self.account.generation.stats(),
            "last_run": self.last_run,
        }

    @property
    def last_run(self) -> dict[str, Any]:
        """Account of the last run, empty before the first.

        "nodes" were traced for all models of the run; of these "reused_in_run" were equal to others,
        "reused_from_cache" read from earlier runs, and "executed" computed, by "dispatches" in "js_calls".

        >>> manager = tc.TensorSharingManager(max_memory_mb=256)
        >>> model = await tc.from_pretrained("./models/splade-tiny", manager=manager)
        >>> outputs = await model(input_ids=np.array([[101, 2009, 102]]))
        >>> manager.last_run["executed"] > 0
        True
        >>> manager.close()
        """
        return dict(self.account.last_run)

    @property
    def _hit_rate(self) -> float:
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0

    def get_tensor_memory_usage(self) -> dict[str, Any]:
        """Return bytes, shape, dtype, device, holders, references, pins, state and views of each registered tensor."""
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
            for name, tensor in self.tensors.items()
        }

    def get_model_memory_usage(self) -> dict[str, Any]:
        """Return for each model its total, exclusive, shared and attributed bytes, and its tensors."""
        per_model = self._ledger.models(self.models)
        held: dict[str, list[str]] = {name: [] for name in per_model}
        for entry in self.registry:
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

    def analyze_sharing_opportunities(self) -> dict[str, Any]:
        """List what is shared and what could be, each with its evidence: "shared", "shareable", "families"."""
        return opportunities(self.registry, self.models, self._loaded)

    def get_optimization_recommendations(self) -> dict[str, Any]:
        """List the largest, the unused and the shareable tensors, and the hit rate of lookups."""
        found = self.analyze_sharing_opportunities()
        by_size = sorted(self.registry, key=lambda entry: -entry.storage.nbytes)
        unused = [tensor for tensor in self.tensors.values() if tensor.reference_count <= 1]
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
                "hits": self.hits,
                "misses": self.misses,
                "hit_rate": self._hit_rate,
            },
        }
