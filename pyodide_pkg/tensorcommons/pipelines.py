"""The tasks that people ask for by name: texts in, NumPy arrays or labels out.

A pipeline tokenizes, runs the model on its device, reads the one small result, and makes it readable. Texts longer
than the tokenizer's maximum are truncated, as in the reference pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import TensorCommonsError
from .hub.tokenizer import Encoding, Tokenizer
from .models.architecture import check_task
from .models.loading import from_pretrained
from .models.model import Model
from .sharing.manager import TensorSharingManager
from .tensor import read_together

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
        return (await run_pipelines([(self, texts)]))[0]

    def close(self) -> None:
        """Unload the model, if the pipeline loaded it. Safe to call twice."""
        if self._owns_model:
            self.model.unload()


async def run_pipelines(calls: Sequence[tuple[Pipeline, Any]]) -> list[Any]:
    """Several pipelines as one merged graph: ``calls`` are (pipeline, texts) pairs; what they share is computed once.

    All of one manager and device. Gives each one's result, as the pipeline alone would.

    Raises:
        TensorCommonsError: a pipeline cannot take its texts, or they are on different devices; nothing ran.
    """
    results: list[Any] = [[] for _ in calls]
    work = []
    for number, (pipe, texts) in enumerate(calls):
        single = isinstance(texts, (str, tuple))
        batch = [texts] if single else list(texts)
        if batch:
            if pipe.task not in _TASKS:
                raise TensorCommonsError(
                    f"{pipe.task} does not run together with others: its steps depend on its words"
                )
            task = _TASKS[pipe.task]
            encoding = _tokenizer(pipe.model).encode_batch(task.texts(pipe.model, batch))
            work.append((number, pipe, task, encoding, single and task.by_text))
    if not work:
        return results
    outputs = await work[0][1].model.manager.run_together(
        [(pipe.model, encoding.as_inputs()) for _, pipe, _, encoding, _ in work],
        [(task.output,) for _, _, task, _, _ in work],
    )
    values = await read_together([output[entry[2].output] for entry, output in zip(work, outputs, strict=True)])
    for (number, pipe, task, encoding, first_only), array in zip(work, values, strict=True):
        rows = task.show(pipe.model, encoding, array)
        results[number] = rows[0] if first_only else rows
    return results


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
    - "text-generation", "text2text-generation": a text, a chat, or a list of them -> [{"generated_text"}]; also in
      pieces, see :class:`TextGeneration`

    Raises:
        UnsupportedModel: the model does not do the task.
        TensorCommonsError: the task is unknown, or the model has no tokenizer.
    """
    from .writing import TASKS, TextGeneration  # a kind of pipeline, so it stands above this file

    if task not in (*_TASKS, *TASKS):
        raise TensorCommonsError(f"unknown task {task!r}; known: {', '.join(sorted((*_TASKS, *TASKS)))}")
    kind = TextGeneration if task in TASKS else Pipeline
    if isinstance(source, Model):
        check_task(task, source.architecture.tasks, source.name)
        return kind(task, source, owns_model=False)
    model = await from_pretrained(
        source, manager=manager, device=device, task=task, progress_callback=progress_callback
    )
    return kind(task, model, owns_model=True)


def _tokenizer(model: Model) -> Tokenizer:
    if model.tokenizer is None:
        raise TensorCommonsError(f"{model.name} has no tokenizer: it was unloaded, or this Python has no JavaScript")
    return model.tokenizer


def _strings(model: Model, batch: Sequence[Any]) -> list[str]:
    bad = next((text for text in batch if not isinstance(text, str)), None)
    if bad is not None:
        raise TensorCommonsError(f"this task takes strings, not {type(bad).__name__} ({bad!r:.60})")
    return list(batch)


def _masked(model: Model, batch: Sequence[Any]) -> list[str]:
    texts, tokenizer = _strings(model, batch), _tokenizer(model)
    for text, ids in zip(texts, tokenizer.encode_batch(texts).input_ids, strict=True):
        count = int((ids == tokenizer.mask_id).sum())
        if count != 1:
            raise TensorCommonsError(f"fill-mask takes texts with one mask token, not {count}: {text!r:.60}")
    return texts


def _classified(model: Model, batch: Sequence[Any]) -> list[str]:
    """For a pair head the first texts, then the second ones."""
    if not model.config.pair:
        return _strings(model, batch)
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in batch):
        raise TensorCommonsError(f"{model.name} compares two texts: pass (text, text_pair) tuples")
    return _strings(model, [first for first, _ in batch] + [second for _, second in batch])


def _embeddings(model: Model, encoding: Encoding, values: Array) -> Array:
    return values


def _cosines(model: Model, encoding: Encoding, values: Array) -> Array:
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return np.asarray((unit @ unit.T).clip(-1, 1), np.float32)


def _terms(model: Model, encoding: Encoding, values: Array) -> list[list[dict[str, Any]]]:
    rows = []
    for row in values:
        order = np.argsort(-row, kind="stable")[: int((row > 0).sum())]
        tokens = _tokenizer(model).convert_ids_to_tokens(order.tolist())
        rows.append([{"token": token, "weight": float(row[i])} for token, i in zip(tokens, order, strict=True)])
    return rows


def _fillings(model: Model, encoding: Encoding, values: Array) -> list[list[dict[str, Any]]]:
    tokenizer = _tokenizer(model)
    at = (encoding.input_ids == tokenizer.mask_id).argmax(axis=1)
    rows = []
    for row in _softmax(values[np.arange(len(at)), at]):
        best = np.argsort(-row, kind="stable")[:5]
        tokens = tokenizer.convert_ids_to_tokens(best.tolist())
        rows.append([{"token": token, "score": float(row[i])} for token, i in zip(tokens, best, strict=True)])
    return rows


def _labels(model: Model, encoding: Encoding, values: Array) -> list[list[dict[str, Any]]]:
    config = model.config
    scores = 1 / (1 + np.exp(-values)) if config.output_activation == "sigmoid" else _softmax(values)
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


@dataclass(frozen=True)
class Task:
    """How a task makes texts of its inputs, which output it reads, and what it shows of it.

    ``by_text`` is whether one text alone gets its own row, rather than the whole result.
    """

    texts: Callable[[Model, Sequence[Any]], list[str]]
    output: str
    show: Callable[[Model, Encoding, Array], Any]
    by_text: bool = True


_TASKS = {
    "feature-extraction": Task(_strings, "sentence_embedding", _embeddings),
    "sentence-similarity": Task(_strings, "sentence_embedding", _cosines, by_text=False),
    "sparse-embedding": Task(_strings, "sparse_embedding", _terms),
    "fill-mask": Task(_masked, "logits", _fillings),
    "text-classification": Task(_classified, "logits", _labels),
    "zero-shot/nli": Task(_classified, "logits", _labels),
}
