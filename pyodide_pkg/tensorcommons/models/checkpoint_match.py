"""Match the tensors of a checkpoint with the parameters of a model, and check their shapes and dtypes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from ..backends.base import BlockSpec, Spec
from ..dtypes import int32
from ..errors import InvalidWeights, quoted, shown
from ..formats import BLOCKS
from ..hub.weights import WeightsFile
from ..nn import Manifest
from ..shapes import Shape
from .quantization import INSTEAD
from .weight_loader import Shard
from .weight_mapping import WeightMapping

FLOATS = ("F32", "F16", "BF16", "F64")  # beside the blocks of GGUF files
logger = logging.getLogger("tensorcommons")
LISTED = 5  # names in a message; the others are counted


def match(files: Sequence[WeightsFile], shapes: Mapping[str, Shape], names: WeightMapping) -> list[Shard]:
    """Choose the tensors to read from each of a checkpoint's open files for the parameters of ``shapes``.

    Tensors that are not parameters are not read. One warning lists them, except those of the encoder's folder.

    Raises:
        InvalidWeights: a tensor is missing, stored twice, or has another shape or dtype than the config requires.
    """
    shards = [Shard(file, {}) for file in files]
    spelled: dict[str, str] = {}
    spare: dict[str, tuple[Shard, str]] = {}  # another name of a parameter's storage
    surplus = []
    for shard in shards:
        for entry in shard.header.entries:
            name = names.canonical(entry.name)
            parameter = name if name in shapes else names.tied.get(name, "")
            if parameter in shapes:
                _check(shard.header.file, entry.name, entry.shape, shapes[parameter], entry.dtype)
            if name not in shapes:
                if parameter in shapes:
                    spare[parameter] = shard, entry.name
                elif not names.ignores(name):
                    surplus.append(entry.name)
                continue
            if name in spelled:
                raise InvalidWeights(
                    shard.header.file,
                    f"tensor {quoted(entry.name)} is stored twice, under two spellings of {quoted(name)}",
                )
            spelled[name] = entry.name
            shard.wanted[entry.name] = name
    for parameter, (shard, name) in spare.items():
        if parameter not in spelled:
            spelled[parameter] = name
            shard.wanted[name] = parameter
    file, missing = shards[0].header.file, sorted(set(shapes) - set(spelled))
    if missing:
        more = f"; not used: {_listed(surplus)}" if surplus else ""
        raise InvalidWeights(file, f"tensors that the config requires are missing: {_listed(missing)}{more}")
    if surplus and not names.is_base:
        logger.warning("%s has tensors that the config does not use: %s", file, _listed(surplus))
    if not names.is_whole:
        for shard in shards:
            add_one(shard.weights, {stored for stored, name in shard.wanted.items() if names.is_from_one(name)})
    return shards


def orders_of(shards: Iterable[Shard], specs: Mapping[str, Spec], manifest: Manifest) -> dict[str, Spec]:
    """Return the specs of the orders of columns of matrices that keep their blocks, which are then read as well.

    Raises InvalidWeights for a table, whose rows are looked up, and for other quantised parameters than matrices and
    tables: those of convolutions, or stored as (inputs, outputs).
    """
    found: dict[str, Spec] = {}
    for shard in shards:
        for entry in list(shard.entries):
            name, spec = shard.wanted[entry.name], specs[shard.wanted[entry.name]]
            if entry.parts and manifest[name].role not in ("matrix", "table"):
                reason = "it is quantised, which is supported for matrices of products and tables only"
                raise InvalidWeights(shard.header.file, f"tensor {quoted(entry.name)}: {reason}; {INSTEAD}")
            if entry.order is None or not isinstance(spec, BlockSpec) or spec.format != entry.dtype.lower():
                continue
            if manifest[name].role != "matrix":
                reason = "its columns are in another order, which is supported for matrices of products only"
                raise InvalidWeights(shard.header.file, f"tensor {quoted(entry.name)}: {reason}; {INSTEAD}")
            shard.wanted[entry.order.name] = f"{name}.order"
            found[f"{name}.order"] = Spec(entry.order.shape, int32)
    return found


def add_one(weights: WeightsFile, names: Collection[str]) -> None:
    """Let 1 be added to the tensors ``names`` of a file, which are differences from 1, while they are loaded."""
    if names:
        entries = (replace(entry, shift=1.0) if entry.name in names else entry for entry in weights.header.entries)
        weights.header = replace(weights.header, entries=tuple(entries))


def _check(file: str, name: str, shape: Shape, asked: Shape, dtype: str) -> None:
    if shape != asked:
        raise InvalidWeights(file, f"tensor {quoted(name)} has shape {quoted(shape)}; the config requires {asked}")
    if dtype not in FLOATS and dtype.lower() not in BLOCKS:
        raise InvalidWeights(file, f"tensor {quoted(name)} is {dtype}; a parameter must be {' or '.join(FLOATS)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(shown, names[:LISTED])) + more
