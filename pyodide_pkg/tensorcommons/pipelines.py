"""The tasks that people ask for by name: texts in, NumPy arrays or labels out.

A pipeline tokenizes, runs the model on its device, reads the one small result, and makes it readable. Texts longer
than the tokenizer's maximum are truncated, as in the reference pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from .errors import TensorCommonsError
from .hub.tokenizer import Encoding, Tokenizer
from .models.heads import MlpHead
from .models.loading import from_pretrained
from .models.model import Model, check_task
from .sharing.manager import TensorSharingManager

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


class Pipeline:
    """``await pipe(texts)``. ``model`` is the model it runs; ``close()`` unloads it if the pipeline loaded it."""

    def __init__(self, task: str, model: Model, *, owns_model: bool) -> None:
        self.task = task
        self.model = model
        self._owns_model = owns_model

    def __repr__(self) -> str:
        return f"<Pipeline {self.task} of {self.model!r}>"

    async def __call__(self, texts: Any) -> Any:
        """The task's result for one text or a list of them; see :func:`pipeline`."""
        single = isinstance(texts, (str, tuple))
        batch = [texts] if single else list(texts)
        if not batch:
            return []
        result = await _TASKS[self.task](self.model, batch)
        return result[0] if single and self.task != "sentence-similarity" else result

    def close(self) -> None:
        """Unload the model, if the pipeline loaded it. Safe to call twice."""
        if self._owns_model:
            self.model.unload()


async def pipeline(
    task: str,
    source: str | Mapping[str, bytes] | Model,
    *,
    manager: TensorSharingManager,
    device: str = "auto",
    progress_callback: Callable[[dict[str, Any]], None] | None = None,
) -> Pipeline:
    """A pipeline for ``task`` on ``source``: a loaded model, or anything that ``from_pretrained`` takes.

    - "feature-extraction": texts -> float32 array (texts, hidden), one embedding each
    - "sentence-similarity": texts -> float32 array (texts, texts) of cosines
    - "sparse-embedding": texts -> for each a list of {"token", "weight"}, heaviest first (SPLADE)
    - "fill-mask": texts with one [MASK] -> for each the five likeliest {"token", "score"}
    - "text-classification", "zero-shot/nli": texts, or (text, text_pair) tuples for a pair head -> for each a list of
      {"label", "score"}, best first

    Raises:
        UnsupportedModel: the model does not do the task.
        TensorCommonsError: the task is unknown, or the model has no tokenizer.
    """
    if task not in _TASKS:
        raise TensorCommonsError(f"unknown task {task!r}; known: {', '.join(sorted(_TASKS))}")
    if isinstance(source, Model):
        check_task(task, source.architecture.tasks, source.name)
        return Pipeline(task, source, owns_model=False)
    model = await from_pretrained(
        source, manager=manager, device=device, task=task, progress_callback=progress_callback
    )
    return Pipeline(task, model, owns_model=True)


def _tokenizer(model: Model) -> Tokenizer:
    if model.tokenizer is None:
        raise TensorCommonsError(f"{model.name} has no tokenizer: it was unloaded, or this Python has no JavaScript")
    return model.tokenizer


def _encode(model: Model, texts: Sequence[Any]) -> Encoding:
    bad = next((text for text in texts if not isinstance(text, str)), None)
    if bad is not None:
        raise TensorCommonsError(f"this task takes strings, not {type(bad).__name__} ({bad!r:.60})")
    return _tokenizer(model).encode_batch(list(texts))


async def _run(model: Model, encoding: Encoding, output: str) -> Array:
    result = (await model(**encoding.as_inputs(), outputs=(output,)))[output]
    return await result.read()


async def _embed(model: Model, texts: Sequence[Any]) -> Array:
    return await _run(model, _encode(model, texts), "sentence_embedding")


async def _similarity(model: Model, texts: Sequence[Any]) -> Array:
    embeddings = await _embed(model, texts)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return np.asarray(unit @ unit.T, np.float32)


async def _sparse(model: Model, texts: Sequence[Any]) -> list[list[dict[str, Any]]]:
    weights = await _run(model, _encode(model, texts), "sparse_embedding")
    tokenizer = _tokenizer(model)
    rows = []
    for row in weights:
        order = np.argsort(-row, kind="stable")[: int((row > 0).sum())]
        tokens = tokenizer.convert_ids_to_tokens(order.tolist())
        rows.append([{"token": token, "weight": float(row[i])} for token, i in zip(tokens, order, strict=True)])
    return rows


async def _fill_mask(model: Model, texts: Sequence[Any]) -> list[list[dict[str, Any]]]:
    encoding, tokenizer = _encode(model, texts), _tokenizer(model)
    masked = encoding.input_ids == tokenizer.mask_id
    for text, count in zip(texts, masked.sum(axis=1), strict=True):
        if count != 1:
            raise TensorCommonsError(f"fill-mask takes texts with one mask token, not {count}: {text!r:.60}")
    logits = await _run(model, encoding, "logits")
    rows = []
    for row in logits[np.arange(len(texts)), masked.argmax(axis=1)]:
        scores = _softmax(row)
        best = np.argsort(-scores, kind="stable")[:5]
        tokens = tokenizer.convert_ids_to_tokens(best.tolist())
        rows.append([{"token": token, "score": float(scores[i])} for token, i in zip(tokens, best, strict=True)])
    return rows


async def _classify(model: Model, texts: Sequence[Any]) -> list[list[dict[str, Any]]]:
    architecture = model.architecture
    assert isinstance(architecture, MlpHead)
    config = architecture.config
    if config.pair:
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in texts):
            raise TensorCommonsError(f"{model.name} compares two texts: pass (text, text_pair) tuples")
        texts = [first for first, _ in texts] + [second for _, second in texts]
    logits = await _run(model, _encode(model, texts), "logits")
    scores = 1 / (1 + np.exp(-logits)) if config.output_activation == "sigmoid" else _softmax(logits)
    return [
        sorted(
            ({"label": label, "score": float(score)} for label, score in zip(config.labels, row, strict=True)),
            key=lambda entry: -float(entry["score"]),
        )
        for row in scores
    ]


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


_TASKS: dict[str, Callable[[Model, Sequence[Any]], Any]] = {
    "feature-extraction": _embed,
    "sentence-similarity": _similarity,
    "sparse-embedding": _sparse,
    "fill-mask": _fill_mask,
    "text-classification": _classify,
    "zero-shot/nli": _classify,
}
