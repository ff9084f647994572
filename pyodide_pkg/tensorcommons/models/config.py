"""From a parsed ``config.json`` to a typed configuration: a frozen dataclass whose fields say what must be there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ..errors import InvalidWeights
from ..ops import gelu, relu, silu, tanh
from ..tensor import Tensor

Config = TypeVar("Config")
LAYERS = 10_000  # more than any model has; every one of them gets names before the weights are looked at
TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its approximation with tanh."""
    return gelu(x, "tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}


def read_config(
    kind: type[Config], config: Mapping[str, Any], file: str, spelled: Mapping[str, str] | None = None
) -> Config:
    """``config`` as a ``kind``; a field is called as in ``spelled`` there, else as in the dataclass.

    An int is at least 1, or 0 where that is the field's default, and below 2**31; there are at most ``LAYERS`` layers.
    A float is finite and not below 0. What has a default may be missing.

    Raises:
        InvalidWeights: a field is missing, of the wrong type, or out of range.
    """
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name = (spelled or {}).get(field.name, field.name)
        value = config.get(name, field.default)
        wanted = TYPES[str(field.type)]
        low = 1 if wanted == (int,) and field.default != 0 else 0
        high = LAYERS if "layer" in field.name else 2**31 - 1 if wanted == (int,) else sys.float_info.max
        bad = value is MISSING or not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,))
        if bad or (isinstance(value, (int, float)) and not low <= value <= high):
            raise InvalidWeights(file, f"{name} must be {field.type}, not {config.get(name)!r}")
        values[field.name] = value
    return kind(**values)


def activation(name: str, file: str, field: str = "hidden_act") -> Callable[[Tensor], Tensor]:
    """The activation that a config names. Raises InvalidWeights for one that is not built in."""
    if name not in ACTIVATIONS:
        raise InvalidWeights(file, f"{field} {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def check_heads(hidden: int, heads: int, file: str) -> None:
    """Raises InvalidWeights unless ``hidden`` elements split evenly over ``heads``."""
    if hidden % heads:
        raise InvalidWeights(file, f"hidden_size {hidden} is no multiple of {heads} heads")


def architectures(config: Mapping[str, Any], file: str) -> list[str]:
    """The classes that ``config.json`` names, if any. Raises InvalidWeights for what is no list."""
    named = config.get("architectures") or []
    if not isinstance(named, list):
        raise InvalidWeights(file, f"architectures must be a list of names, not {named!r}")
    return named
