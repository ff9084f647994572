"""Vectors of texts: a token's, a text's, how alike texts are, and a weight for each word of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import TensorCommonsError
from ..models.model import Model
from .job import Array, Job, inputs_of, one_of, texts_of, tokenizer_of

POOLINGS = ("none", "model", "mean", "cls", "max")


async def feature_extraction(
    model: Model, given: Any, *, pooling: str = "none", normalize: bool = False, truncation: bool = True
) -> Job:
    """See ``pipeline``. What is pooled is the same for a text alone and in a batch: padding does not count."""
    one_of("pooling", pooling, POOLINGS)
    if normalize and pooling == "none":
        raise TensorCommonsError(
            f"normalize=True is for one vector a text: pass pooling too ({', '.join(POOLINGS[1:])})"
        )
    texts, single = texts_of(given)
    encoding = tokenizer_of(model).encode_batch(texts, truncation=truncation)
    masks = encoding.attention_mask.astype(bool)

    def show(results: Sequence[Sequence[Array]]) -> Any:
        ((values,),) = results
        if pooling == "none":
            rows = [value[mask][None] for value, mask in zip(values, masks, strict=True)]
            return rows[0] if single else rows
        if pooling != "model":
            values = np.stack([_pooled(value[mask], pooling) for value, mask in zip(values, masks, strict=True)])
        if normalize:
            values = _unit(values)
        return values[0] if single else values

    output = "sentence_embedding" if pooling == "model" else "last_hidden_state"
    return Job([inputs_of(model, encoding)] if texts else [], (output,), show)


async def sentence_similarity(model: Model, given: Any, *, truncation: bool = True) -> Job:
    """See ``pipeline``."""
    texts, _ = texts_of(given)

    def show(results: Sequence[Sequence[Array]]) -> Array:
        unit = _unit(results[0][0])
        return np.asarray((unit @ unit.T).clip(-1, 1), np.float32)

    calls = [inputs_of(model, tokenizer_of(model).encode_batch(texts, truncation=truncation))] if texts else []
    return Job(calls, ("sentence_embedding",), show)


async def sparse_embedding(model: Model, given: Any, *, truncation: bool = True) -> Job:
    """See ``pipeline``."""
    texts, single = texts_of(given)
    tokenizer = tokenizer_of(model)

    def show(results: Sequence[Sequence[Array]]) -> Any:
        rows = []
        for row in results[0][0]:
            order = np.argsort(-row, kind="stable")[: int((row > 0).sum())]
            tokens = tokenizer.tokens_of(order.tolist())  # None: a row of zeros that pads the vocabulary
            rows.append([{"token": token, "weight": float(row[i])} for token, i in zip(tokens, order, strict=True)])
        return rows[0] if single else rows

    calls = [inputs_of(model, tokenizer.encode_batch(texts, truncation=truncation))] if texts else []
    return Job(calls, ("sparse_embedding",), show)


def _pooled(tokens: Array, mode: str) -> Array:
    """(tokens, hidden) -> (hidden,)."""
    pooled = {"cls": lambda: tokens[0], "mean": lambda: tokens.mean(0), "max": lambda: tokens.max(0)}[mode]()
    return np.asarray(pooled, np.float32)


def _unit(values: Array) -> Array:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), np.float32)
