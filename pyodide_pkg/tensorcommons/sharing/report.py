"""The memory report: one immutable picture of who holds what, as JSON-able data. The page draws it and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ModelMemory:
    """What one model holds on its device, in bytes. ``attributed_bytes`` splits shared bytes evenly among holders."""

    name: str
    device: str
    total_bytes: int
    exclusive_bytes: int
    shared_bytes: int
    attributed_bytes: float


@dataclass(frozen=True)
class TensorMemory:
    """One storage: the name that its first holder gave it, and every model that holds it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    nbytes: int
    holders: tuple[str, ...]
    identity: str
    state: str


@dataclass(frozen=True)
class MemoryReport:
    """A snapshot in bytes. ``separate_weight_bytes`` is what the models would take if each had its own copy."""

    limit_bytes: int
    device_bytes: int
    peak_bytes: int
    by_category: dict[str, int]
    unique_weight_bytes: int
    separate_weight_bytes: int
    saved_bytes: int
    models: tuple[ModelMemory, ...]
    tensors: tuple[TensorMemory, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers, ready for ``json.dumps``."""
        return asdict(self)
