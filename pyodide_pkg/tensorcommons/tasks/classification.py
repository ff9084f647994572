"""Classify texts, pairs of texts, and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError
from ..models.heads import Labels
from ..models.model import Model
from ..ops.choosing import softmax
from .base import Array, Job, TextRows, count, one_of, several, strings, text_rows, tokenizer_of
from .images import images_of

FUNCTIONS = ("softmax", "sigmoid", "none")
Scored: TypeAlias = "list[dict[str, Any]]"


class Best(Enum):
    """The default of ``top_k``: the best label itself instead of a list of one, as in `transformers`."""

    LABEL = "the best label"


async def text_classification(
    model: Model,
    given: Any,
    *,
    top_k: int | Best | None = Best.LABEL,
    function_to_apply: str | None = None,
    truncation: bool = True,
) -> Job:
    """See ``pipeline``."""
    _check(top_k, function_to_apply)
    single = isinstance(given, (str, tuple, Mapping))
    batch = [given] if single else several(given)

    def show(logits: list[Array]) -> Any:
        rows = _scored(model, np.stack(logits), function_to_apply)
        if top_k is Best.LABEL:
            best = [row[0] for row in rows]
            return best if not single or isinstance(given, str) else best[0]
        rows = [row[:top_k] for row in rows]
        return rows[0] if single else rows

    return Job(_encoded(model, batch, truncation=truncation), ("logits",), lambda row, arrays: arrays[0], show)


async def nli(
    model: Model,
    given: Any,
    *,
    top_k: int | None = None,
    function_to_apply: str | None = None,
    truncation: bool = True,
) -> Job:
    """See ``pipeline``."""
    return await text_classification(
        model, given, top_k=top_k, function_to_apply=function_to_apply, truncation=truncation
    )


async def image_classification(
    model: Model, given: Any, *, top_k: int | None = 5, function_to_apply: str | None = None
) -> Job:
    """See ``pipeline``."""
    _check(top_k, function_to_apply)
    images = images_of(model, given)

    def show(logits: list[Array]) -> Any:
        rows = [row[:top_k] for row in _scored(model, np.stack(logits), function_to_apply)]
        return rows[0] if images.single else rows

    return Job(images, ("logits",), lambda row, arrays: arrays[0], show)


def labels_of(model: Model) -> Labels:
    """Return the labels of the model's head."""
    architecture: Any = model.architecture
    labels: Labels = architecture.labels if hasattr(architecture, "labels") else architecture.head.labels
    return labels


def _check(top_k: object, function: str | None) -> None:
    if top_k is not None and top_k is not Best.LABEL:
        count("top_k", top_k)
    if function is not None:
        one_of("function_to_apply", function, FUNCTIONS)


def _scored(model: Model, logits: Array, function: str | None) -> list[Scored]:
    """Return all labels of each row with their scores, best first."""
    labels = labels_of(model)
    chosen = function or labels.activation
    if chosen == "sigmoid":
        logits = np.asarray(1 / (1 + np.exp(-logits)), np.float32)
    elif chosen == "softmax":
        logits = softmax(logits)
    orders = np.argsort(-logits, axis=-1, kind="stable")
    return [
        [{"label": labels.names[i], "score": float(row[i])} for i in order]
        for row, order in zip(logits, orders, strict=True)
    ]


def _encoded(model: Model, batch: Sequence[Any], *, truncation: bool) -> TextRows:
    """Encode texts or pairs. An MLP head for pairs gets the first texts, then the second ones."""
    tokenizer, halves = tokenizer_of(model), getattr(model.config, "pair", None)
    pairs = [_pair(item) for item in batch]
    if halves and None in pairs:
        raise TensorCommonsError(f"{model.name} classifies pairs of texts: pass (text, text_pair) tuples")
    encode = partial(tokenizer.encode_batch, truncation=truncation)
    if halves is False or not any(pairs):
        return text_rows(model, encode(strings([_alone(item) for item in batch])))
    if None in pairs:
        raise TensorCommonsError("a batch must be all texts or all (text, text_pair) tuples: pass two batches")
    firsts, seconds = (strings([pair[side] for pair in pairs if pair]) for side in (0, 1))
    return text_rows(model, encode(firsts + seconds) if halves else encode(firsts, seconds), halves=bool(halves))


def _pair(item: Any) -> tuple[Any, Any] | None:
    """Return the two texts of a tuple or of ``{"text", "text_pair"}``; None for a single text."""
    if isinstance(item, Mapping) and set(item) == {"text", "text_pair"}:
        return item["text"], item["text_pair"]
    return item if isinstance(item, tuple) and len(item) == 2 else None


def _alone(item: Any) -> Any:
    return item["text"] if isinstance(item, Mapping) and set(item) == {"text"} else item
