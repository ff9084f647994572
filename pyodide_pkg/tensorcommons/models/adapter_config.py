"""``adapter_config.json`` of a LoRA adapter, as PEFT writes it.

A field that changes the result is honoured, or refused by its name; also one that is not known, unless it is off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import InvalidWeights, quoted, shown
from .module_pattern import Patterns, starts_of

FILE = "adapter_config.json"
T = TypeVar("T")
MOST_NAMES = 10_000  # in a list, and patterns in an object
LONGEST_NAME = 400  # characters of a module's name

#: Fields that change nothing after training, or say what the tensors of the file show.
INERT = (
    *(
        "base_model_name_or_path",
        "revision",
        "task_type",
        "auto_mapping",
        "peft_version",
        "inference_mode",
        "peft_type",
    ),
    *("lora_dropout", "fan_in_fan_out", "bias", "megatron_core", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "qalora_group_size", "runtime_config"),
)
#: Initial values that leave the base's weights as they are. The others change these, too.
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraConfig:
    """The settings of an adapter; ``rank`` and ``alpha`` hold for modules that no pattern names.

    ``targets`` and ``excluded`` are names of modules, or a regular expression; ``saved`` are the modules that the file
    has instead of the base's. ``layers`` are the numbers of the layers to change, after one of ``layer_names``; None is
    all.
    """

    file: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    targets: tuple[str, ...] | str
    excluded: tuple[str, ...] | str
    saved: tuple[str, ...]
    layers: tuple[int, ...] | None
    layer_names: tuple[str, ...]
    patterns: Patterns = field(default_factory=Patterns, compare=False)

    @classmethod
    def of(cls, given: Mapping[str, Any], file: str) -> LoraConfig:
        """Read the settings. Raises InvalidWeights for one that is wrong or not supported."""
        kind = given.get("peft_type")
        if kind != "LORA":
            raise InvalidWeights(file, f"peft_type {quoted(kind)} is not supported: it must be LORA")
        start = given.get("init_lora_weights")
        if not any(start is each or (isinstance(start, str) and start == each) for each in PLAIN_STARTS):
            raise InvalidWeights(
                file,
                f"init_lora_weights {quoted(start)} may change the base's weights, too: save the adapter with "
                "path_initial_model_for_weight_conversion",
            )
        reader = _Reader(given, file)
        config = cls(
            file,
            reader.rank("r", given.get("r", 8)),
            reader.number("lora_alpha", given.get("lora_alpha", 8)),
            {key: reader.rank("rank_pattern", value) for key, value in reader.table("rank_pattern").items()},
            {key: reader.number("alpha_pattern", value) for key, value in reader.table("alpha_pattern").items()},
            reader.flag("use_rslora"),
            reader.names_or_pattern("target_modules"),
            reader.names_or_pattern("exclude_modules"),
            reader.names("modules_to_save"),
            reader.layers(),
            reader.names("layers_pattern"),
        )
        if given.get("target_modules") is None:
            raise InvalidWeights(file, "target_modules is missing: it must be a list of names, or an expression")
        if isinstance(config.targets, str) and config.layers is not None:
            raise InvalidWeights(file, "layers_to_transform needs a list of target_modules, not an expression")
        bias = given.get("bias", "none")
        if bias not in ("none", "all", "lora_only"):
            raise InvalidWeights(file, f"bias {quoted(bias)} must be none, all or lora_only")
        others = sorted(set(given) - set(INERT) - reader.read - {"init_lora_weights"})
        if on := [
            name for name in others if given[name] not in (None, False) and given[name] != [] and given[name] != {}
        ]:
            raise InvalidWeights(file, f"{quoted(on[0])}: {quoted(given[on[0]])} is not supported")
        return config

    def rank_of(self, module: str) -> int:
        """Return the rank of a module, the number of rows of its first matrix."""
        return self._by_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Return the factor of a module's low-rank product."""
        rank = self.rank_of(module)
        return self._by_pattern(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def is_saved(self, module: str) -> bool:
        """Return whether the file has the module, or one that contains it, instead of the base's."""
        for name in self.saved:
            ends = self._checked(lambda name=name: self.patterns.ends(name, module, starts_of(module)))
            if any(module[end : end + 1] in ("", ".") for end in ends):
                return True
        return False

    def is_target(self, module: str) -> bool:
        """Return whether the adapter changes the module, by the rules of PEFT."""
        if self._names(self.excluded, module) or self.is_saved(module):
            return False
        if self.targets == "all-linear":
            return True
        if not self._names(self.targets, module):
            return False
        return self.layers is None or self._layer_of(module) in self.layers

    def _names(self, given: tuple[str, ...] | str, module: str) -> bool:
        if isinstance(given, str):
            return bool(given) and self._checked(lambda: self.patterns.matches(given, module))
        return any(module == name or module.endswith(f".{name}") for name in given)

    def _layer_of(self, module: str) -> int | None:
        if not self.layer_names:
            match = re.match(r".*?\.[^.]*\.(\d{1,9})\.", module)
            return int(match[1]) if match else None
        for name in self.layer_names:
            for start in starts_of(module):
                ends = self._checked(lambda name=name, start=start: self.patterns.ends(name, module, (start,)))
                for end in sorted(ends):
                    if match := re.match(r"\.(\d{1,9})\.", module[end : end + 11]):
                        return int(match[1])
        return None

    def _by_pattern(self, table: Mapping[str, T], module: str, default: T) -> T:
        """Return the value of the first pattern that the end of the module's name matches."""
        for pattern, value in table.items():
            if self._checked(lambda pattern=pattern: self.patterns.ends_name(pattern, module)):
                return value
        return default

    def _checked(self, match: Any) -> Any:
        try:
            return match()
        except ValueError as error:
            raise InvalidWeights(self.file, str(error)) from None


class _Reader:
    """Reads fields of ``given``, the object in ``file``, and collects their names in ``read``."""

    def __init__(self, given: Mapping[str, Any], file: str) -> None:
        self.given, self.file = given, file
        self.read = {"r", "lora_alpha"}

    def _field(self, name: str) -> Any:
        self.read.add(name)
        return self.given.get(name)

    def _wrong(self, name: str, value: Any, allowed: str) -> InvalidWeights:
        return InvalidWeights(self.file, f"{name} {quoted(value)} must be {allowed}")

    def rank(self, name: str, value: Any) -> int:
        if type(value) is not int or not 0 < value <= 2**20:
            raise self._wrong(name, value, "an integer from 1")
        return value

    def number(self, name: str, value: Any) -> float:
        if type(value) not in (int, float) or not abs(value) < 1e30:
            raise self._wrong(name, value, "a finite number")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._field(name)
        if value not in (None, True, False) or type(value) is int:
            raise self._wrong(name, value, "true or false")
        return bool(value)

    def table(self, name: str) -> dict[str, Any]:
        value = self._field(name)
        if not isinstance(value, dict | None) or len(value or {}) > MOST_NAMES:
            raise self._wrong(name, value, f"an object of at most {MOST_NAMES:,} names")
        return value or {}

    def names(self, name: str) -> tuple[str, ...]:
        value = self._field(name)
        if isinstance(value, str):
            return (value,)
        return self._listed(name, value)

    def names_or_pattern(self, name: str) -> tuple[str, ...] | str:
        value = self._field(name)
        return value if isinstance(value, str) else self._listed(name, value)

    def _listed(self, name: str, value: Any) -> tuple[str, ...]:
        listed = [] if value is None else value
        if (
            not isinstance(listed, list)
            or len(listed) > MOST_NAMES
            or not all(isinstance(each, str) for each in listed)
        ):
            raise self._wrong(name, value, f"a list of at most {MOST_NAMES:,} names")
        return tuple(listed)

    def layers(self) -> tuple[int, ...] | None:
        value = self._field("layers_to_transform")
        listed = [value] if type(value) is int else value
        if listed is not None and not (isinstance(listed, list) and all(type(each) is int for each in listed)):
            raise self._wrong("layers_to_transform", value, "a list of integers")
        return tuple(listed) if listed else None


def checked_module(name: str, file: str) -> str:
    """Return the name of a module. Raises InvalidWeights for one that is longer than any."""
    if len(name) > LONGEST_NAME:
        raise InvalidWeights(file, f"{shown(name)} is longer than the {LONGEST_NAME} characters of a module's name")
    return name
