"""Embeddings: vectors of tokens and texts, similarities of texts, and sparse weights over the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import TensorCommonsError, quoted, shown
from ..models.model import Model
from .base import Array, Job, TextRows, count, one_of, text_rows, texts_of, tokenizer_of

POOLINGS = ("none", "model", "mean", "cls", "max")


async def feature_extraction(
    model: Model,
    given: Any,
    *,
    pooling: str = "none",
    normalize: bool = False,
    prompt_name: str | None = None,
    prompt: str | None = None,
    truncate_dim: int | None = None,
    truncation: bool = True,
) -> Job:
    """See ``pipeline``. Padding is not pooled, so a text has the same vector alone and in a batch."""
    one_of("pooling", pooling, POOLINGS)
    if normalize and pooling == "none":
        raise TensorCommonsError(
            f"normalize=True needs one vector for each text: pass pooling, one of {', '.join(POOLINGS[1:])}"
        )
    if truncate_dim is not None and (count("truncate_dim", truncate_dim), pooling)[1] == "none":
        raise TensorCommonsError(
            f"truncate_dim needs one vector for each text: pass pooling, one of {', '.join(POOLINGS[1:])}"
        )
    texts, single = texts_of(given)
    size = model.use.truncate_dim if truncate_dim is None and pooling == "model" else truncate_dim
    rows = _rows(model, texts, prompt_name, prompt, by_default=pooling == "model", truncation=truncation)

    def each(row: int, arrays: Sequence[Array]) -> Array:
        return arrays[0][None] if pooling == "none" else arrays[0][:size]

    def show(values: list[Array]) -> Any:
        if pooling == "none":
            return values[0] if single else values
        vectors = _unit(np.stack(values)) if normalize else np.stack(values)
        return vectors[0] if single else vectors

    outputs = {"none": "last_hidden_state", "model": "sentence_embedding"}
    return Job(rows, (outputs.get(pooling, f"{pooling}_embedding"),), each, show)


async def sentence_similarity(
    model: Model, given: Any, *, prompt_name: str | None = None, prompt: str | None = None, truncation: bool = True
) -> Job:
    """See ``pipeline``."""
    texts, _ = texts_of(given)
    size = model.use.truncate_dim
    rows = _rows(model, texts, prompt_name, prompt, by_default=True, truncation=truncation)

    def show(values: list[Array]) -> Array:
        return SIMILARITIES[model.use.similarity](np.stack(values))

    return Job(rows, ("sentence_embedding",), lambda row, arrays: arrays[0][:size], show)


async def sparse_embedding(model: Model, given: Any, *, truncation: bool = True) -> Job:
    """See ``pipeline``."""
    texts, single = texts_of(given)
    tokenizer = tokenizer_of(model)

    def each(row: int, arrays: Sequence[Array]) -> list[dict[str, Any]]:
        weights = arrays[0]
        order = np.argsort(-weights, kind="stable")[: int((weights > 0).sum())]
        tokens = tokenizer.tokens_of(order.tolist())  # None for an id beyond the vocabulary
        return [{"token": token, "weight": float(weights[i])} for token, i in zip(tokens, order, strict=True)]

    rows = text_rows(model, tokenizer.encode_batch(texts, truncation=truncation))
    return Job(rows, ("sparse_embedding",), each, lambda shown: shown[0] if single else shown)


def _rows(
    model: Model, texts: list[str], name: str | None, prompt: str | None, *, by_default: bool, truncation: bool
) -> TextRows:
    """Encode the texts, each after the requested prompt, or with ``by_default`` after the folder's default prompt."""
    use, tokenizer = model.use, tokenizer_of(model)
    name = use.default_prompt_name if name is None and by_default else name
    for option, value in (("prompt", prompt), ("prompt_name", name)):
        if value is not None and not isinstance(value, str):
            raise TensorCommonsError(f"{option} must be a string, not {quoted(value)}")
    if prompt is None and name is not None and name not in use.prompts:
        known = shown(", ".join(use.prompts)) or "none"
        raise TensorCommonsError(f"prompt_name {quoted(name)} is not one of the prompts of {model.name}: {known}")
    before = prompt if prompt is not None else use.prompts[name] if name is not None else ""

    def lowered(text: str) -> str:
        return text.replace("Σ", "σ").lower() if use.do_lower_case else text  # not "ς" at the end of a word

    encoding = tokenizer.encode_batch([lowered(before + text) for text in texts], truncation=truncation)
    if use.include_prompt or not before:
        return text_rows(model, encoding)
    prompt_ids = tokenizer.encode_batch([lowered(before)])
    length = prompt_ids.sequence_ids.shape[1] - int(prompt_ids.sequence_ids[0, -1] == -1)
    counted = encoding.attention_mask.cumsum(axis=1)
    return text_rows(model, encoding, pooling_mask=encoding.attention_mask * (counted > length))


def _distance(values: Array, order: int) -> Array:
    return np.stack([-np.linalg.norm(values - row, ord=order, axis=1) for row in values])


def _unit(values: Array) -> Array:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), np.float32)


def _cosine(values: Array) -> Array:
    unit = _unit(values)
    return np.asarray((unit @ unit.T).clip(-1, 1), np.float32)


#: By ``similarity_fn_name`` of sentence-transformers: (texts, hidden) -> (texts, texts); larger is more similar.
SIMILARITIES: dict[str, Callable[[Array], Array]] = {
    "cosine": _cosine,
    "dot": lambda values: values @ values.T,
    "euclidean": lambda values: _distance(values, 2),
    "manhattan": lambda values: _distance(values, 1),
}
