"""``quantization_config`` of config.json: how a checkpoint's matrices are stored as quants, scales and zero points.

A setting that changes the numbers is honoured, or refused by name. The tensors of the file show which modules are
quantised, so the lists of those that are not (``modules_to_not_convert``, ``ignore``, ``lm_head``) are not read.
Activations are not rounded as these files ask servers to do; ``precision`` of ``from_pretrained`` decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import InvalidWeights, quoted

INSTEAD = (
    'load the float model that it was made from, with dtype="int8" to quantise it while it is loaded; or a checkpoint '
    "of GPTQ, AWQ, compressed-tensors or FP8, or a GGUF file of it"
)
READ = ("gptq", "awq", "compressed-tensors", "fp8")
#: The part that a tensor is, by the end of its name. Tensors of an empty part, such as scales of activations, are left
#: out.
PARTS = {
    "gptq": {"qweight": "quants", "scales": "scales", "qzeros": "zeros", "g_idx": "groups"},
    "awq": {"qweight": "quants", "scales": "scales", "qzeros": "zeros"},
    "packed": {
        "weight_packed": "quants",
        "weight_scale": "scales",
        "weight_zero_point": "zeros",
        "weight_g_idx": "groups",
        "weight_shape": "",
    },
    "plain": {"weight": "quants", "weight_scale": "scales", "weight_zero_point": "zeros", "weight_g_idx": "groups"},
    "fp8": {"weight": "quants", "weight_scale_inv": "scales", "weight_scale": "scales"},
}
OF_ACTIVATIONS = ("input", "output", "activation", "k", "v", "q")
for _parts in PARTS.values():
    _parts.update({f"{of}_{what}": "" for of in OF_ACTIVATIONS for what in ("scale", "zero_point", "global_scale")})


@dataclass(frozen=True)
class Quantization:
    """How matrices are stored: ``layout`` is a key of :data:`PARTS`, and ``kind`` "int4", "int8" or "fp8".

    ``file`` is that of the settings, for messages. ``group`` is the number of columns with one scale, 0 for a whole
    row. ``block`` are the (rows, columns) with one scale, if rows share them. ``offset`` is added to stored zero
    points. With ``is_ordered`` the columns of a group are anywhere in the row. ``parts`` is an entry of :data:`PARTS`.
    ``rounds`` is true if the file asks for rounded activations, too.
    """

    layout: str
    kind: str
    file: str
    group: int = 0
    block: tuple[int, int] | None = None
    offset: int = 0
    is_ordered: bool = False
    has_zeros: bool = True
    parts: Mapping[str, str] = field(default_factory=dict)
    rounds: bool = False

    @property
    def recipe(self) -> str:
        """Everything beside the tensors that determines the numbers, as text."""
        return f"{self.layout} {self.kind} {self.group} {self.block} {self.offset} {self.is_ordered}"

    @property
    def bits(self) -> int:
        """Bits of a quant."""
        return 4 if self.kind == "int4" else 8


@dataclass(frozen=True)
class Settings:
    """An object of ``quantization_config``, with its place in the config for messages."""

    values: Mapping[str, Any]
    file: str
    place: str = "quantization_config"

    def refuse(self, name: str, why: str = "is not supported") -> NoReturn:
        """Raise InvalidWeights for the setting ``name``."""
        raise InvalidWeights(self.file, f"{self.place}.{name} {quoted(self.values.get(name))} {why}; {INSTEAD}")

    def one_of(self, name: str, *allowed: Any, default: Any = None) -> Any:
        """Return a setting that has one of the ``allowed`` values."""
        value = self.values.get(name)
        value = default if value is None else value
        if not any(type(value) is type(each) and value == each for each in allowed):
            self.refuse(name, f"is not supported, only {' or '.join(map(repr, allowed))}")
        return value

    def size(self, name: str, *, default: int | None = None) -> int:
        """Return the columns of a group; 0, written as -1, for a whole row."""
        value = self.values.get(name)
        value = default if value is None else value
        if type(value) is not int or value == 0 or not -1 <= value < 1 << 31:
            self.refuse(name, "is not a number of columns")
        return max(value, 0)

    def part(self, name: str) -> Settings:
        """Return the object ``name``; null is empty."""
        value = self.values.get(name)
        if not isinstance(value, dict | None):
            self.refuse(name, "is not an object")
        return Settings(value or {}, self.file, f"{self.place}.{name}")

    def absent(self, *names: str) -> None:
        """Refuse settings that have a value."""
        for name in names:
            if self.values.get(name):
                self.refuse(name)


def quantization_of(config: Mapping[str, Any], file: str) -> Quantization | None:
    """Return how the matrices of a checkpoint are stored; None if its config does not quantise.

    Raises InvalidWeights, naming the setting, for a method or a setting that is not supported.
    """
    value = config.get("quantization_config")
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise InvalidWeights(file, f"quantization_config must be an object, not {quoted(value)}")
    settings = Settings(value, file)
    method = value.get("quant_method")
    if method == "gptq":
        return _gptq(settings)
    if method == "awq":
        return _awq(settings)
    if method == "compressed-tensors":
        return _compressed(settings)
    if method == "fp8":
        return _fp8(settings)
    if method == "bitsandbytes" or value.get("load_in_4bit") or value.get("load_in_8bit"):
        raise InvalidWeights(
            file,
            "the model is quantised by bitsandbytes (nf4, fp4 or int8), which is not read: in Python, "
            "AutoModelForCausalLM.from_pretrained(...).dequantize() and save_pretrained(...) make a float model of it; "
            + INSTEAD,
        )
    settings.refuse("quant_method", f"is not supported, only {', '.join(READ)}")


def _gptq(settings: Settings) -> Quantization:
    bits = settings.one_of("bits", 4, 8)
    form = settings.values.get("checkpoint_format") or settings.values.get("format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        settings.refuse("checkpoint_format" if settings.values.get("checkpoint_format") else "format")
    settings.absent("is_marlin_format", "use_marlin", "adapter", "rotation")
    settings.one_of("pack_dtype", "int32", default="int32")
    skipped = settings.part("dynamic").values
    if not all(name.startswith("-:") for name in skipped):  # "-:" names modules that are not quantised
        settings.refuse("dynamic", "gives modules settings of their own, which is not supported")
    return Quantization(
        "gptq",
        f"int{bits}",
        settings.file,
        group=settings.size("group_size", default=-1),
        offset=int(form == "gptq"),
        is_ordered=settings.one_of("desc_act", True, False, default=False),
        parts=PARTS["gptq"],
    )


def _awq(settings: Settings) -> Quantization:
    settings.one_of("bits", 4)
    settings.one_of("zero_point", True, default=True)
    version = settings.values.get("version") or settings.values.get("format") or "gemm"
    if not isinstance(version, str) or version.lower() != "gemm":
        settings.refuse("version", "is not supported, only 'gemm'")
    group = settings.size("group_size", default=128)
    return Quantization("awq", "int4", settings.file, group=group, parts=PARTS["awq"])


def _compressed(settings: Settings) -> Quantization:
    sparsity = settings.part("sparsity_config")
    sparsity.one_of("format", "dense", default="dense")
    settings.absent("transform_config", "kv_cache_scheme")
    status = settings.one_of("quantization_status", "compressed", "frozen", default="compressed")
    groups = settings.part("config_groups")
    if len(groups.values) != 1:
        settings.refuse("config_groups", f"has {len(groups.values)} groups of modules, and one is supported")
    (name,) = groups.values
    group = groups.part(name)
    weights = group.part("weights")
    form = group.values.get("format") or settings.values.get("format")
    kind = weights.one_of("type", "int", "float", default="int")
    bits = weights.one_of("num_bits", 4, 8) if kind == "int" else weights.one_of("num_bits", 8)
    allowed = {
        "int": ("pack-quantized", "int-quantized", "naive-quantized"),
        "float": ("float-quantized", "naive-quantized"),
    }
    if form not in allowed[kind] or (form != "pack-quantized" and bits != 8) or status != "compressed":
        settings.refuse("format", f"for {bits}-bit {kind} weights is not supported")
    strategy = weights.one_of("strategy", "tensor", "channel", "group", "block", default="tensor")
    if weights.values.get("dynamic") not in (None, False):
        weights.refuse("dynamic")
    if kind == "float":
        weights.one_of("symmetric", True, default=True)
    order = weights.values.get("actorder")
    if order not in (None, False, True, "group", "weight", "static", "dynamic"):
        weights.refuse("actorder")
    block = _pair(weights, "block_structure") if strategy == "block" else None
    return Quantization(
        "packed" if form == "pack-quantized" else "plain",
        "fp8" if kind == "float" else f"int{bits}",
        settings.file,
        group=weights.size("group_size") if strategy == "group" else 0,
        block=block,
        is_ordered=order in (True, "group", "dynamic"),
        has_zeros=not weights.one_of("symmetric", True, False, default=True),
        parts=PARTS["packed" if form == "pack-quantized" else "plain"],
        rounds=any(group.values.get(f"{each}_activations") for each in ("input", "output")),
    )


def _fp8(settings: Settings) -> Quantization:
    settings.one_of("fmt", "e4m3", default="e4m3")
    settings.one_of("weight_format", "e4m3", default="e4m3")
    settings.one_of("activation_scheme", "dynamic", "static", default="dynamic")
    has_block = settings.values.get("weight_block_size") is not None
    block = _pair(settings, "weight_block_size") if has_block else None
    return Quantization("fp8", "fp8", settings.file, block=block, has_zeros=False, parts=PARTS["fp8"], rounds=True)


def _pair(settings: Settings, name: str) -> tuple[int, int]:
    value = settings.values.get(name)
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(type(each) is int and 0 < each < 1 << 31 for each in value)
    ):
        settings.refuse(name, "is not two numbers of rows and columns")
    return value[0], value[1]
