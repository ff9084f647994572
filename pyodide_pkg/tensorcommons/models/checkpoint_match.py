"""Match the tensors of a checkpoint with the parameters of a model: each once, with the right shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ..errors import InvalidWeights, quoted, shown
from ..hub.weights import WeightsFile
from ..shapes import Shape
from .weight_loader import Part
from .weight_mapping import WeightMapping

FLOATS = ("F32", "F16", "BF16", "F64")
logger = logging.getLogger("tensorcommons")
LISTED = 5  # names in a message; more are counted


def match(
    files: Sequence[WeightsFile], shapes: Mapping[str, Shape], names: WeightMapping, *, warns: bool = True
) -> list[Part]:
    """The parameters of ``shapes`` to take from each of a checkpoint's open files.

    Tensors that are not parameters are left in the files; one warning lists them if ``warns``.

    Raises:
        InvalidWeights: tensors are missing, there twice, or of another shape or dtype than the config asks for.
    """
    parts = [Part(file, {}) for file in files]
    spelled: dict[str, str] = {}
    spare: dict[str, tuple[Part, str]] = {}  # another name of a parameter's storage
    surplus = []
    for part in parts:
        for entry in part.header.entries:
            name = names.canonical(entry.name)
            parameter = name if name in shapes else names.tied.get(name, "")
            if parameter in shapes:
                _check(part.header.file, entry.name, entry.shape, shapes[parameter], entry.dtype)
            if name not in shapes:
                if parameter in shapes:
                    spare[parameter] = part, entry.name
                elif not names.ignores(name):
                    surplus.append(entry.name)
                continue
            if name in spelled:
                raise InvalidWeights(
                    part.header.file,
                    f"tensor {quoted(entry.name)} is there twice, as {quoted(name)} under two spellings",
                )
            spelled[name] = entry.name
            part.wanted[entry.name] = name
    for parameter, (part, name) in spare.items():
        if parameter not in spelled:
            spelled[parameter] = name
            part.wanted[name] = parameter
    file, missing = parts[0].header.file, sorted(set(shapes) - set(spelled))
    if missing:
        more = f"; not used: {_listed(surplus)}" if surplus else ""
        raise InvalidWeights(file, f"tensors that the config asks for are missing: {_listed(missing)}{more}")
    if surplus and warns:
        logger.warning(
            "%s holds tensors that the config does not ask for, which are not used: %s", file, _listed(surplus)
        )
    return parts


def _check(file: str, name: str, shape: Shape, asked: Shape, dtype: str) -> None:
    if shape != asked:
        raise InvalidWeights(file, f"tensor {quoted(name)} is {quoted(shape)}, the config asks for {asked}")
    if dtype not in FLOATS:
        raise InvalidWeights(file, f"tensor {quoted(name)} is {dtype}; a parameter is one of {', '.join(FLOATS)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(shown, names[:LISTED])) + more
