"""The calls of pipelines as in transformers.js, where these differ from the package's: arguments and results.

A pipeline of transformers.js takes some options by position, and returns one tensor with a dimension for the batch
where the package returns a list, or a vector without that dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import TensorCommonsError, quoted

#: Options that a call may also pass by position, after the inputs.
POSITIONAL = {
    "zero-shot-image-classification": ("candidate_labels",),
    "question-answering": ("context",),
}
#: Options of transformers.js alone.
OWN = {"feature-extraction": ("quantize", "precision")}
BITS = ("binary", "ubinary")  # values of that precision; others are the package's, of products
POOLINGS = {"first_token": "cls"}  # transformers.js's other name of one


def arguments(task: str, given: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Split the arguments of a call into the inputs and the options.

    Raises TensorCommonsError if there are too many, or none.
    """
    *values, options = given if given and isinstance(given[-1], Mapping) and len(given) > 1 else (*given, {})
    names = POSITIONAL.get(task, ())
    if not 1 <= len(values) <= 1 + len(names):
        taken = ", ".join(("inputs", *names, "options"))
        raise TensorCommonsError(f"{task} takes ({taken}), not {len(values)} arguments and options")
    inputs, named = values[0], dict(zip(names, values[1:], strict=False))
    if twice := named.keys() & options.keys():
        raise TensorCommonsError(f"{', '.join(sorted(twice))} was passed twice, by position and as an option")
    named |= options
    if task == "question-answering" and "context" in named:
        inputs = {"question": inputs, "context": named.pop("context")}
    return inputs, named


def adapted(task: str, inputs: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    """Return the options for the package's pipeline, and the function that converts its result."""
    options, single = dict(options), not isinstance(inputs, list)
    if task == "feature-extraction":
        return _embedding(single, options)
    if task == "image-feature-extraction":
        options["pool"] = bool(options.get("pool"))
        return options, lambda found: found if single else np.concatenate(found)
    if task == "text-classification":
        if options.get("top_k") == 1:
            del options["top_k"]
        return options, lambda found: [found] if single and isinstance(found, Mapping) else found
    if task == "fill-mask":
        return options, lambda found: [found] if not single and len(inputs) == 1 else found
    if task == "question-answering":
        several = isinstance(inputs, list) or isinstance(inputs.get("question"), list)
        count = len(inputs if isinstance(inputs, list) else inputs["question"]) if several else 1
        return options, lambda found: [found] if several and count == 1 else found
    if task == "text2text-generation":
        return options, lambda found: found if single else [each for row in found for each in row]
    return options, lambda found: found


def _embedding(single: bool, options: dict[str, Any]) -> tuple[dict[str, Any], Callable[[Any], Any]]:
    quantize, precision = options.pop("quantize", False), options.pop("precision", "binary")
    if precision not in BITS:
        raise TensorCommonsError(f'precision must be "binary" or "ubinary", not {quoted(precision)}')
    pooling = options.get("pooling", "none")
    options["pooling"] = POOLINGS.get(pooling, pooling)
    if quantize and pooling == "none":
        raise TensorCommonsError("quantize needs one vector for each text: pass pooling, such as 'mean'")

    def show(found: Any) -> Any:
        if pooling == "none":
            return found if single else _padded(found)
        vectors = found[None] if single else found
        return _bits(vectors, precision) if quantize else vectors

    return options, show


def _padded(rows: Sequence[Any]) -> Any:
    """Stack (1, tokens, hidden) arrays of different lengths; the rest of the shorter ones is zero."""
    longest = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, longest - row.shape[1]), (0, 0))) for row in rows])


def _bits(vectors: Any, precision: str) -> Any:
    """Pack the signs of eight numbers in a byte, as transformers.js does."""
    if vectors.shape[-1] % 8:
        raise TensorCommonsError(f"quantize needs vectors of a multiple of 8 numbers, not of {vectors.shape[-1]}")
    packed = np.packbits(vectors > 0, axis=-1)
    return packed if precision == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
