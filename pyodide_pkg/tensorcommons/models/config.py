"""Convert a parsed ``config.json`` to a typed configuration: a frozen dataclass with the defaults of `transformers`.

A field that is missing or ``null`` takes the default of the architecture's class in `transformers`. Unsupported fields
that change the result are errors (:func:`check_fixed`); the others are inert (docs/models.md lists them).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from ..errors import InvalidWeights, quoted
from ..ops import gelu, hardswish, leaky_relu, multiply, relu, sigmoid, silu, tanh
from ..tensor import Tensor

Config = TypeVar("Config")
LAYERS = 10_000  # more than any model has: parameters are named before the weights file is checked
Activation: TypeAlias = str  # a key of ACTIVATIONS
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "Activation": (str,),
}
NOTHING: Mapping[str, Any] = MappingProxyType({})

gelu_tanh = partial(gelu, approximate="tanh")
# By the names in `transformers` (activations.py there).
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_accurate": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_python": gelu,
    "gelu_python_tanh": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "hardswish": hardswish,
    "leaky_relu": leaky_relu,
    "linear": lambda x: x,
    "quick_gelu": lambda x: multiply(x, sigmoid(multiply(x, 1.702))),  # https://arxiv.org/abs/1606.08415
    "relu": relu,
    "relu2": lambda x: multiply(relu(x), relu(x)),  # https://arxiv.org/abs/2109.08668
    "sigmoid": sigmoid,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}
#: The allowed values of types other than numbers, for messages.
ALLOWED = {"str": "a string", "bool": "true or false", "Activation": f"one of {', '.join(ACTIVATIONS)}"}


def read_config(
    kind: type[Config],
    config: Mapping[str, Any],
    file: str,
    *,
    spelled: Mapping[str, str] = NOTHING,
    aliases: Mapping[str, str] = NOTHING,
    defaults: Mapping[str, object] = NOTHING,
    fixed: Mapping[str, object] = NOTHING,
    **only: Any,
) -> Config:
    """Read the fields of the dataclass ``kind`` from ``config``; ``spelled`` maps fields to other names in the config.

    ``aliases`` maps fields to second names; if a config has both, the alias takes precedence, as in `transformers`. A
    field that is missing or ``null`` takes the value in ``defaults``, or else its default. ``fixed`` are the
    architecture's values for fields that it does not read, ``only`` those that :func:`check_fixed` requires.

    An int must be at least 1 (0 if that is the field's default) and below 2**31; a number of layers at most ``LAYERS``.
    A float must be finite and not negative. A token id may be negative, which stands for "none" in some files. An
    :data:`Activation` is one of ``ACTIVATIONS``.

    Raises:
        InvalidWeights: a field is missing, of the wrong type, out of range, or not supported.
    """
    given = {name: value for name, value in config.items() if value is not None}
    config = {**defaults, **given, **fixed}
    check_fixed(config, file, **only)
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name = spelled.get(field.name, field.name)
        alias = aliases.get(field.name, name)
        name = alias if config.get(alias) is not None else name
        value = config.get(name)
        if value is None:
            value = field.default
        wanted = TYPES[str(field.type)]
        low: float = 1 if wanted == (int,) and field.default != 0 else 0
        high: float = LAYERS if "layer" in field.name else 2**31 - 1 if wanted == (int,) else sys.float_info.max
        if field.name.endswith("token_id"):
            low = -high
        bad = value is MISSING or not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,))
        bad = bad or (field.type == "Activation" and value not in ACTIVATIONS)
        if bad or (isinstance(value, (int, float)) and not low <= value <= high):
            allowed = ALLOWED.get(str(field.type)) or _numbers(wanted, low, high)
            raise InvalidWeights(file, f"{name} must be {allowed}, not {quoted(config.get(name))}")
        values[field.name] = value
    return kind(**values)


def _numbers(wanted: tuple[type, ...], low: float, high: float) -> str:
    numbers = "an integer" if wanted == (int,) else "a number"
    return f"{numbers} from {low} to {high}" if high < sys.float_info.max else f"a finite number from {low}"


def check_fixed(config: Mapping[str, Any], file: str, **built_in: Any) -> None:
    """Raise InvalidWeights for a field whose value differs from the only supported one, given in ``built_in``."""
    common: dict[str, Any] = {"pruned_heads": {}, "per_layer_config": {}, "quantization_config": {}}
    for name, value in {**common, **built_in}.items():
        asked = config.get(name)
        if asked is not None and asked != value:
            only = f"; it must be {quoted(value)}" if value != {} else ""
            raise InvalidWeights(file, f"{name} {quoted(asked)} is not supported{only}")


def check_heads(hidden: int, heads: int, file: str) -> None:
    """Raise InvalidWeights unless ``hidden`` is a multiple of ``heads``."""
    if hidden % heads:
        raise InvalidWeights(file, f"hidden_size {hidden} is not a multiple of {heads} heads")


def check_even_heads(size: int, file: str) -> None:
    """Raise InvalidWeights unless the ``size`` of a head is even, as rotary positions need."""
    if size % 2:
        raise InvalidWeights(file, f"rotary positions need heads of an even size, not {size}")


def architectures(config: Mapping[str, Any], file: str) -> list[str]:
    """Return the classes named in ``config.json``, if any. Raises InvalidWeights unless they are a list of names."""
    named = config.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InvalidWeights(file, f"architectures must be a list of names, not {quoted(named)}")
    return named
