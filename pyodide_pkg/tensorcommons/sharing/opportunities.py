"""Sharing opportunities, from evidence: each row says what it is based on, and only the last kind is a guess.

- ``shared``: bytes that several models hold once already (content identity)
- ``equal_content``: equal bytes that exist twice, and what interning them would save (content identity)
- ``common_prefix``: models whose graphs begin with the same computation (graph identity)
- ``similar_weights``: models with tensors of equal names and shapes, and how many of them have equal bytes
- ``families``: models of one family by architecture: compatible, not proven
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from itertools import combinations
from typing import Any
from weakref import WeakKeyDictionary

from ..backends.device import Device
from ..errors import MemoryBudgetError
from ..graph.graph import Graph
from ..graph.traces import Traces
from .compatibility import FAMILIES, architecture_of, families_of
from .contract import Movable
from .registry import Entry, Registry

#: The graph of each loaded model for arguments of one fixed shape, by which models are compared.
_probed: WeakKeyDictionary[Traces, Graph] = WeakKeyDictionary()


def opportunities(
    registry: Registry, models: Collection[str], loaded: Mapping[str, Movable]
) -> dict[str, list[dict[str, Any]]]:
    """List every kind of opportunity: of the entries of ``registry`` that ``models`` hold, and of those ``loaded``."""
    return {
        "shared": _shared(registry),
        "equal_content": _equal_content(registry),
        "common_prefix": _common_prefixes(loaded),
        "similar_weights": _similar_weights(registry, models),
        "families": _families(registry, models, loaded),
    }


def _common_prefixes(loaded: Mapping[str, Movable]) -> list[dict[str, Any]]:
    """List pairs of loaded models whose graphs begin with the same computation."""
    by_device: dict[Device, dict[str, Graph]] = {}
    for name, model in loaded.items():
        with suppress(MemoryBudgetError):  # its constants do not fit just now: no evidence then
            if model.traces not in _probed:
                _probed[model.traces] = Graph(model.traces.probe().nodes)
            by_device.setdefault(model.device, {})[name] = _probed[model.traces]
    return [row for graphs in by_device.values() for row in _prefixes_of(graphs)]


def _families(registry: Registry, models: Collection[str], loaded: Mapping[str, Movable]) -> list[dict[str, Any]]:
    names = {*models, *(holder for entry in registry for holder in entry.names)}
    known = {name: each.model_type if (each := loaded.get(name)) else name for name in names}
    rows = []
    for kind in FAMILIES:
        members = sorted(name for name in names if kind in families_of(known[name]))
        if len(members) > 1:
            rows.append(
                {
                    "tensor_type": kind,
                    "models": members,
                    "architectures": sorted({str(architecture_of(known[name])) for name in members}),
                    "evidence": "compatible by family, not proven",
                }
            )
    return rows


def _shared(registry: Registry) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in registry:
        if len(entry.names) > 1:
            groups[tuple(sorted(entry.names))].append(entry)
    rows = []
    for holders, entries in groups.items():
        nbytes = sum(entry.storage.nbytes for entry in entries)
        rows.append(
            {
                "models": list(holders),
                "tensors": len(entries),
                "shared_bytes": nbytes,
                "saved_bytes": nbytes * (len(holders) - 1),
                "evidence": "equal content",
            }
        )
    return sorted(rows, key=lambda row: -int(row["saved_bytes"]))


def _equal_content(registry: Registry) -> list[dict[str, Any]]:
    groups: dict[tuple[int, str], list[Entry]] = defaultdict(list)
    for entry in registry:
        if entry.content is not None:
            groups[id(entry.storage.device), entry.content].append(entry)
    return [
        {
            "names": [entry.name for entry in entries],
            "copies": len(entries),
            "saved_bytes": entries[0].storage.nbytes * (len(entries) - 1),
            "evidence": "equal content, held separately since one of them was written",
        }
        for entries in groups.values()
        if len(entries) > 1
    ]


def _prefixes_of(graphs: dict[str, Graph]) -> list[dict[str, Any]]:
    """Find what two models compute alike when they are given equal inputs, proved by node identity.

    ``activation`` is the common value with the longest computation behind it: what one model could hand the other.
    """
    rows = []
    for first, second in combinations(graphs, 2):
        known = {node.key for node in graphs[second].nodes if node.op is not None}
        common = [node for node in graphs[first].nodes if node.op is not None and node.key in known]
        if common:
            depth: dict[int, int] = {}
            for node in graphs[first].nodes:
                depth[id(node)] = 1 + max((depth[id(child)] for child in node.inputs), default=0)
            last = max(common, key=lambda node: depth[id(node)])
            rows.append(
                {
                    "models": [first, second],
                    "common_nodes": len(common),
                    "nodes": [graphs[first].executed, graphs[second].executed],
                    "activation": {"shape": last.spec.shape, "dtype": last.spec.dtype.name},
                    "evidence": "equal graph identity, for inputs of (2, 8)",
                }
            )
    return sorted(rows, key=lambda row: -int(str(row["common_nodes"])))


def _similar_weights(registry: Registry, models: Iterable[str]) -> list[dict[str, Any]]:
    held = {name: registry.held_by(name) for name in models}
    rows = []
    for first, second in combinations(held, 2):
        alike = [
            (held[first][name], held[second][name])
            for name in held[first].keys() & held[second].keys()
            if held[first][name].spec == held[second][name].spec
        ]
        equal = [a for a, b in alike if a is b or (a.content is not None and a.content == b.content)]
        if alike and len(equal) < len(alike):
            rows.append(
                {
                    "models": [first, second],
                    "comparable_tensors": len(alike),
                    "equal_tensors": len(equal),
                    "equal_share": len(equal) / len(alike),
                    "equal_bytes": sum(entry.storage.nbytes for entry in equal),
                    "comparable_bytes": sum(entry.storage.nbytes for entry, _ in alike),
                    "evidence": "equal names and shapes; bytes compared one by one",
                }
            )
    return sorted(rows, key=lambda row: -float(row["equal_share"]))
