"""Rotary positions (Su et al., 2021, https://arxiv.org/abs/2104.09864) and their scalings to longer texts."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidWeights, quoted
from ..ops import astype, cos, multiply, reshape, sin
from ..tensor import Tensor
from .checkpoint import Checkpoint

ROPE_NAMES = {
    "theta": "rope_theta",
    "factor": "factor",
    "low": "low_freq_factor",
    "high": "high_freq_factor",
    "original_length": "original_max_position_embeddings",
}
ROPE_TYPES: dict[str, tuple[str, ...]] = {  # and the fields that each requires
    "default": (),
    "dynamic": (),
    "linear": ("factor",),
    "llama3": ("factor", "low", "high"),
}


@dataclass(frozen=True)
class Rope:
    """Rotary positions: the pair k of dimensions rotates by ``theta ** (-2 k / head_dim)`` a position.

    The type "linear" divides these angles by ``factor``; "llama3" divides only the small ones (Llama 3.1), with a
    smooth transition. "dynamic" is the same as "default" up to ``max_position_embeddings`` tokens, the most that a
    call may have. GGUF files store the divisors of Llama 3.1's angles instead, as ``factors``, one for each pair.
    """

    theta: float = 10000.0
    type: str = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original_length: int = 8192
    factors: tuple[float, ...] = ()

    @classmethod
    def of(cls, folder: Checkpoint) -> Rope:
        """Read ``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` of older files.

        Raises InvalidWeights for a type that is not supported, or a value that is not a number.
        """
        config, file = folder.config, folder.file
        asked = config.get("rope_scaling") or config.get("rope_parameters") or {}
        if not isinstance(asked, dict):
            raise InvalidWeights(file, f"rope_parameters must be an object, not {quoted(asked)}")
        defaults = {name: config.get(name) for name in ("rope_theta", "partial_rotary_factor")}
        defaults["original_max_position_embeddings"] = config.get("max_position_embeddings")
        table = {name: value for name, value in {**defaults, **asked}.items() if value is not None}
        kind = table.get("rope_type", table.get("type", "default"))
        if not isinstance(kind, str) or kind not in ROPE_TYPES:
            raise InvalidWeights(file, f"rope_type {quoted(kind)} is not one of {', '.join(ROPE_TYPES)}")
        needed = ROPE_TYPES[kind]
        if needed and table.get("partial_rotary_factor", 1) != 1:
            raise InvalidWeights(
                file, f"partial_rotary_factor {quoted(table['partial_rotary_factor'])} is not supported; it must be 1"
            )
        values = {ours: table[theirs] for ours, theirs in ROPE_NAMES.items() if theirs in table}
        bad = {
            ROPE_NAMES[key]: value
            for key, value in values.items()
            if type(value) not in (int, float) or not 0 < value <= sys.float_info.max
        }
        lacking = [ROPE_NAMES[key] for key in needed if key not in values]
        if bad or lacking:
            what = f"{quoted(bad)} must be finite numbers above 0" if bad else f"{', '.join(lacking)} is missing"
            raise InvalidWeights(file, f"rope_parameters of type {kind}: {what}")
        if kind == "llama3" and values["high"] == values["low"]:
            raise InvalidWeights(file, "rope_parameters: high_freq_factor and low_freq_factor must differ")
        return cls(type=kind, **values, factors=folder.rope_factors)

    @classmethod
    def of_kinds(
        cls, folder: Checkpoint, thetas: Mapping[str, tuple[str, float]], scaled: Collection[str] | None = None
    ) -> dict[str, Rope]:
        """Read the rotary positions of each kind of layer, which are objects in ``rope_parameters`` by its name.

        ``thetas`` are the field of older files with the theta of each kind, and its default. ``scaled`` are the kinds
        that ``rope_scaling`` of older files is for, by default all. Raises InvalidWeights.
        """
        table, scaling = folder.part("rope_parameters").config, folder.part("rope_scaling").config
        if not table.keys() <= thetas.keys() or not all(isinstance(own, dict | None) for own in table.values()):
            kinds = " and ".join(thetas)
            raise InvalidWeights(folder.file, f"rope_parameters {quoted(table)} must be objects by {kinds}")
        ropes = {}
        for kind, (old, default) in thetas.items():
            theta = default if folder.config.get(old) is None else folder.config[old]
            both = {"rope_theta": theta, **(table.get(kind) or {})}
            if scaled is None or kind in scaled:
                both |= scaling
            config = {**folder.config, "rope_parameters": both, "rope_scaling": None}
            ropes[kind] = cls.of(replace(folder, config=config))
        return ropes

    def rates(self, dimensions: int) -> np.ndarray[Any, Any]:
        """Return the angle in radians per position of each pair of dimensions, float32 (dimensions / 2,)."""
        rates = float(self.theta) ** (-np.arange(0, dimensions, 2, dtype=np.float64) / dimensions)
        if self.type == "linear":
            rates = rates / self.factor
        elif self.type == "llama3":
            turns = self.original_length * rates / (2 * math.pi)
            fast = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
            rates = rates * (fast + (1 - fast) / self.factor)
        if self.factors:
            rates = rates / np.array(self.factors)
        return rates.astype(np.float32)

    def tables(self, positions: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
        """Compute ``cos`` and ``sin`` of the angles of every token: (batch * sequence, dimensions / 2)."""
        angles = multiply(reshape(astype(positions, "float32"), (-1, 1)), self.rates(dimensions).reshape(1, -1))
        return cos(angles), sin(angles)
