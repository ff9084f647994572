"""The tensors of an adapter's file, matched with the parameters of the base model that they change or replace.

Names are those of modules in `transformers`, after ``base_model.model.``. PEFT stores two matrices of each module that
an adapter changes, and whole tensors of ``modules_to_save``, trained biases and embeddings. All of them are checked
before anything is allocated.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..backends.base import BlockSpec, Spec
from ..errors import InvalidWeights, quoted, shown
from ..formats import DENSE
from ..hub.safetensors import Header, TensorEntry
from ..nn import Param
from ..shapes import Shape
from .adapter_config import LoraConfig, checked_module
from .architecture import Architecture
from .checkpoint_match import FLOATS
from .encoder_decoder import EncoderDecoder

Use: TypeAlias = Literal["product", "table", "tensor"]

PREFIX = "base_model.model."
LISTED = 5  # names in a message
MATRIX = re.compile(r"(?P<module>.+)\.lora_(?:(?P<part>[AB])\.weight|embedding_(?P<row>[AB]))")
WRAPPERS = (".base_layer.", ".modules_to_save.")  # between a module and its tensor, in some files

logger = logging.getLogger("tensorcommons")


@dataclass(frozen=True)
class Change:
    """A low-rank change of a parameter: the names of its tensors ``down`` and ``up``, and its scale."""

    module: str
    down: str
    up: str
    rank: int
    scale: float


@dataclass
class Layout:
    """The changes and replacements of an adapter, by parameter and use, and the ``specs`` of its tensors on the device.

    A parameter can be multiplied by (a product), looked up (a table) or used as a tensor; that of tied embeddings is
    used in two ways, and an adapter may change one of them. Names of tensors are those in the file; ``from_one`` are
    stored as differences from 1.
    """

    changes: dict[tuple[Param, Use], Change] = field(default_factory=dict)
    saved: dict[tuple[Param, Use], str] = field(default_factory=dict)
    specs: dict[str, Spec] = field(default_factory=dict)
    from_one: set[str] = field(default_factory=set)


def layout_of(architecture: Architecture, present: Mapping[Param, Spec], config: LoraConfig, header: Header) -> Layout:
    """Match the tensors of ``header`` with the parameters, of which ``present`` are the specs on the device.

    Raises InvalidWeights for a tensor that is unknown, damaged, or has another shape or dtype than the settings say.
    """
    found = Layout()
    halves: dict[tuple[str, bool], dict[str, TensorEntry]] = {}
    spare: list[str] = []
    for entry in header.entries:
        _check_dtype(entry, header.file)
        name = entry.name.removeprefix(PREFIX)
        match = MATRIX.fullmatch(name)
        if match is not None:
            module = checked_module(match["module"], header.file)
            if config.is_target(module):
                parts = halves.setdefault((module, match["row"] is not None), {})
                part = match["part"] or match["row"]
                if part in parts:
                    raise InvalidWeights(header.file, f"tensor {quoted(name)} is stored twice, under two names")
                parts[part] = entry
            else:
                spare.append(entry.name)
            continue
        if "lora_" in name:
            raise InvalidWeights(header.file, f"tensor {quoted(entry.name)} is not of a kind of LoRA that is supported")
        for wrapper in WRAPPERS:
            name = name.replace(wrapper, ".")
        module = checked_module(name.rpartition(".")[0], header.file)
        place = _place(architecture, name)
        if place is None and not _is_ignored(architecture, name):
            raise InvalidWeights(header.file, f"the base model has no parameter for tensor {quoted(entry.name)}")
        if place is not None:
            _save(found, architecture, place, entry, present, config, module, header.file)
    for (module, is_table), parts in halves.items():
        _change(found, architecture, module, parts, config, header.file, is_table=is_table)
    if spare:
        logger.warning("%s: target_modules does not name the modules of %s", header.file, _listed(spare))
    if not found.changes and not found.saved:
        raise InvalidWeights(header.file, "it changes no parameter of the base model")
    return found


def _place(architecture: Architecture, name: str) -> tuple[Param, bool] | None:
    """Return the parameter that tensor ``name`` of `transformers` is, and True if it is tied to another module's."""
    for number, names in enumerate(architecture.names):
        if names.folder:
            continue
        canonical = names.canonical(name)
        param = architecture.manifest.get(canonical)
        is_tied = param is None and canonical in names.tied
        if is_tied:
            param = architecture.manifest.get(names.tied[canonical])
        if param is not None and param.checkpoint == number:
            return param, is_tied
    return None


def _is_ignored(architecture: Architecture, name: str) -> bool:
    return any(names.ignores(names.canonical(name)) for names in architecture.names)


def _change(
    found: Layout,
    architecture: Architecture,
    module: str,
    parts: Mapping[str, TensorEntry],
    config: LoraConfig,
    file: str,
    *,
    is_table: bool,
) -> None:
    """Add the change of a module, whose tensors are ``parts``."""
    place = _place(architecture, f"{module}.weight")
    if place is None:
        if _is_ignored(architecture, f"{module}.weight"):
            return
        raise InvalidWeights(file, f"the base model has no module {quoted(module)}")
    if len(parts) != 2:
        raise InvalidWeights(file, f"module {quoted(module)} has only one of its two matrices: {next(iter(parts))}")
    (param, is_tied), rank, shape = place, config.rank_of(module), place[0].shape
    if is_table or (param.role in ("table", "positions") and not is_tied):
        _check_table(architecture, module, file)
    inputs: Shape
    outputs: Shape
    use: Use = "product"
    if is_table:
        inputs, outputs = (rank, shape[0]), (shape[-1], rank)
        use = "table" if param.role == "table" else "tensor"
        fits = len(shape) == 2 and param.role in ("table", "positions") and not is_tied
    elif len(shape) == 4:
        inputs, outputs, use = (rank, *shape[1:]), (shape[0], rank, 1, 1), "tensor"
        fits = param.role == "kernel"
    else:
        sizes = shape[::-1] if param.role == "kernel" else shape  # (out, in)
        inputs, outputs = (rank, sizes[-1]), (sizes[0], rank)
        fits = len(shape) == 2 and (param.role in ("matrix", "kernel") or is_tied)
    if not fits:
        raise InvalidWeights(file, f"module {quoted(module)} of the base model is not a layer that LoRA can change so")
    for part, wanted in (("A", inputs), ("B", outputs)):
        _check_shape(parts[part], wanted, file, f"rank {rank} and the base model require")
    if (param, use) in found.changes:
        raise InvalidWeights(file, f"module {quoted(module)} is changed twice, under two names")
    for entry in parts.values():
        found.specs[entry.name] = DENSE["float16" if entry.dtype == "F16" else "float32"].spec(entry.shape)
    down, up = parts["A"].name, parts["B"].name
    found.changes[param, use] = Change(module, down, up, rank, config.scale_of(module))


def _save(
    found: Layout,
    architecture: Architecture,
    place: tuple[Param, bool],
    entry: TensorEntry,
    present: Mapping[Param, Spec],
    config: LoraConfig,
    module: str,
    file: str,
) -> None:
    """Add a tensor that replaces that of the base."""
    param, is_tied = place
    _check_shape(entry, param.shape, file, "the base model has")
    uses: tuple[Use, ...] = ("product", "table", "tensor")
    if param.role == "table":
        _check_table(architecture, module, file)
        if config.is_saved(module):  # a copy of its own; any other tensor is that of all tied modules
            uses = ("product",) if is_tied else ("table", "tensor")
    for use in uses:
        if (param, use) in found.saved:
            raise InvalidWeights(file, f"tensor {quoted(entry.name)} is stored twice, under two names")
        found.saved[param, use] = entry.name
    if any(names.is_from_one(param.name) for names in architecture.names):
        found.from_one.add(entry.name)
    spec = present[param]
    found.specs[entry.name] = DENSE["float32"].spec(param.shape) if isinstance(spec, BlockSpec) else spec


def _check_table(architecture: Architecture, module: str, file: str) -> None:
    """Raise InvalidWeights for embeddings that several modules have in common."""
    if isinstance(architecture, EncoderDecoder):
        raise InvalidWeights(file, f"the embeddings {quoted(module)} of an encoder-decoder cannot be adapted")


def _check_shape(entry: TensorEntry, wanted: Shape, file: str, why: str) -> None:
    if entry.shape != wanted:
        raise InvalidWeights(file, f"tensor {quoted(entry.name)} has shape {quoted(entry.shape)}; {why} {wanted}")


def _check_dtype(entry: TensorEntry, file: str) -> None:
    if entry.dtype not in FLOATS:
        raise InvalidWeights(
            file, f"tensor {quoted(entry.name)} is {entry.dtype}; a parameter must be {' or '.join(FLOATS)}"
        )


def _listed(names: Sequence[str] | Iterable[str]) -> str:
    names = list(names)
    return ", ".join(map(shown, names[:LISTED])) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
