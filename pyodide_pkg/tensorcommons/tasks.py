"""What each task makes of its inputs, which outputs it reads, and what it shows of them.

Texts longer than the tokenizer's maximum are truncated, of a pair the longer one first; an answer is looked for in what
is left of the context.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import TensorCommonsError
from .hub.offsets import offsets
from .hub.tokenizer import Encoding, Tokenizer
from .models.heads import Labels
from .models.model import Model
from .models.preprocessing import pixels_of

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Inputs: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
TOP = 5  # answers of fill-mask and image-classification
ANSWER = 15  # tokens of the longest answer to a question


@dataclass(frozen=True)
class Task:
    """``prepare`` gives the model's inputs of a batch, and what ``show`` needs besides the arrays of ``outputs``.

    ``single`` are the types of one input alone; with ``by_input`` it gets its own row, rather than the whole result.
    """

    prepare: Callable[[Model, Sequence[Any]], Awaitable[tuple[Inputs, Any]]]
    outputs: tuple[str, ...]
    show: Callable[[Model, Any, Sequence[Array]], Any]
    single: tuple[type, ...] | None = (str, tuple)
    by_input: bool = True

    def is_single(self, value: Any) -> bool:
        """Whether ``value`` is one input: of the types that are, or for images whatever is no list."""
        return not isinstance(value, (list, tuple)) if self.single is None else isinstance(value, self.single)


def _inputs(model: Model, encoding: Encoding) -> Inputs:
    """The arrays that the model takes."""
    return {name: array for name, array in encoding.as_inputs().items() if name in model.input_names}


def _of_texts(texts: Callable[[Model, Sequence[Any]], list[str]]) -> Callable[..., Awaitable[tuple[Inputs, Any]]]:
    async def prepare(model: Model, batch: Sequence[Any]) -> tuple[Inputs, Encoding]:
        encoding = tokenizer_of(model).encode_batch(texts(model, batch))
        return _inputs(model, encoding), encoding

    return prepare


def tokenizer_of(model: Model) -> Tokenizer:
    """The model's tokenizer. Raises TensorCommonsError where it has none."""
    if model.tokenizer is None:
        raise TensorCommonsError(f"{model.name} has no tokenizer: it was unloaded, or this Python has no JavaScript")
    return model.tokenizer


def _strings(model: Model, batch: Sequence[Any]) -> list[str]:
    bad = next((text for text in batch if not isinstance(text, str)), None)
    if bad is not None:
        raise TensorCommonsError(f"this task takes strings, not {type(bad).__name__} ({bad!r:.60})")
    return list(batch)


def _masked(model: Model, batch: Sequence[Any]) -> list[str]:
    texts, tokenizer = _strings(model, batch), tokenizer_of(model)
    for text, ids in zip(texts, tokenizer.encode_batch(texts).input_ids, strict=True):
        count = int((ids == tokenizer.mask_id).sum())
        if count != 1:
            raise TensorCommonsError(f"fill-mask takes texts with one mask token, not {count}: {text!r:.60}")
    return texts


async def _classified(model: Model, batch: Sequence[Any]) -> tuple[Inputs, Any]:
    """Texts or pairs. An MLP head for pairs gets the first texts, then the second ones."""
    tokenizer, halves = tokenizer_of(model), getattr(model.config, "pair", None)
    pairs = [isinstance(item, tuple) and len(item) == 2 for item in batch]
    if halves and not all(pairs):
        raise TensorCommonsError(f"{model.name} compares two texts: pass (text, text_pair) tuples")
    if halves is False or not any(pairs):
        encoding = tokenizer.encode_batch(_strings(model, batch))
    elif not all(pairs):
        raise TensorCommonsError("a batch is of texts or of (text, text_pair) tuples, not of both")
    else:
        firsts, seconds = ([*_strings(model, [item[side] for item in batch])] for side in (0, 1))
        encoding = tokenizer.encode_batch(firsts + seconds) if halves else tokenizer.encode_batch(firsts, seconds)
    return _inputs(model, encoding), encoding


async def _asked(model: Model, batch: Sequence[Any]) -> tuple[Inputs, Any]:
    known = {"question", "context"}
    bad = next((item for item in batch if not isinstance(item, Mapping) or set(item) != known), None)
    if bad is not None:
        raise TensorCommonsError(f'this task takes {{"question": ..., "context": ...}}, not {bad!r:.60}')
    questions, contexts = (_strings(model, [item[name] for item in batch]) for name in ("question", "context"))
    encoding = tokenizer_of(model).encode_batch(questions, contexts)
    return _inputs(model, encoding), (encoding, contexts)


async def _tagged(model: Model, batch: Sequence[Any]) -> tuple[Inputs, Any]:
    texts = _strings(model, batch)
    encoding = tokenizer_of(model).encode_batch(texts)
    return _inputs(model, encoding), (encoding, texts)


async def _seen(model: Model, batch: Sequence[Any]) -> tuple[Inputs, Any]:
    if model.processor is None:
        raise TensorCommonsError(f"{model.name} has no preprocessor_config.json, which says how images become pixels")
    images = [await pixels_of(image) for image in batch]
    values = [model.processor(image) for image in images]
    if len({value.shape for value in values}) > 1:
        raise TensorCommonsError("images of one batch come to different sizes here: pass them one by one")
    return {"pixel_values": np.stack(values)}, [image.shape[:2] for image in images]


def _embeddings(model: Model, context: Any, arrays: Sequence[Array]) -> Array:
    return arrays[0]


def _cosines(model: Model, context: Any, arrays: Sequence[Array]) -> Array:
    (values,) = arrays
    unit = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return np.asarray((unit @ unit.T).clip(-1, 1), np.float32)


def _terms(model: Model, context: Any, arrays: Sequence[Array]) -> list[list[dict[str, Any]]]:
    rows = []
    for row in arrays[0]:
        order = np.argsort(-row, kind="stable")[: int((row > 0).sum())]
        tokens = tokenizer_of(model).convert_ids_to_tokens(order.tolist())
        rows.append([{"token": token, "weight": float(row[i])} for token, i in zip(tokens, order, strict=True)])
    return rows


def _fillings(model: Model, encoding: Encoding, arrays: Sequence[Array]) -> list[list[dict[str, Any]]]:
    (values,) = arrays
    tokenizer = tokenizer_of(model)
    at = (encoding.input_ids == tokenizer.mask_id).argmax(axis=1)
    rows = []
    for row in _softmax(values[np.arange(len(at)), at]):
        best = np.argsort(-row, kind="stable")[:TOP]
        tokens = tokenizer.convert_ids_to_tokens(best.tolist())
        rows.append([{"token": token, "score": float(row[i])} for token, i in zip(tokens, best, strict=True)])
    return rows


def _labels_of(model: Model) -> Labels:
    architecture: Any = model.architecture
    labels: Labels = architecture.labels if hasattr(architecture, "labels") else architecture.head.labels
    return labels


def _scores(labels: Labels, logits: Array) -> Array:
    if labels.activation == "none":
        return logits
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32) if labels.activation == "sigmoid" else _softmax(logits)


def _labels(model: Model, context: Any, arrays: Sequence[Array]) -> list[list[dict[str, Any]]]:
    labels = _labels_of(model)
    rows = []
    for row in _scores(labels, arrays[0]):
        scored = [{"label": name, "score": float(score)} for name, score in zip(labels.names, row, strict=True)]
        rows.append(sorted(scored, key=lambda entry: -float(str(entry["score"]))))
    return rows


def _classes(model: Model, context: Any, arrays: Sequence[Array]) -> list[list[dict[str, Any]]]:
    return [row[:TOP] for row in _labels(model, context, arrays)]


def _entities(model: Model, context: Any, arrays: Sequence[Array]) -> list[list[dict[str, Any]]]:
    encoding, texts = context
    names = _labels_of(model).names
    rows = []
    for row, (text, scores) in enumerate(zip(texts, _softmax(arrays[0]), strict=True)):
        places = np.flatnonzero(encoding.sequence_ids[row] == 0)
        tokens = tokenizer_of(model).convert_ids_to_tokens(encoding.input_ids[row, places].tolist())
        found = []
        for place, token, (start, end) in zip(places, tokens, offsets(text, tokens), strict=True):
            best = int(scores[place].argmax())
            entity = {"entity": names[best], "score": float(scores[place, best]), "index": int(place)}
            if names[best] != "O":
                found.append({**entity, "word": token, "start": start, "end": end})
        rows.append(found)
    return rows


def _answers(model: Model, context: Any, arrays: Sequence[Array]) -> list[dict[str, Any]]:
    encoding, contexts = context
    rows = []
    for row, text in enumerate(contexts):
        places = np.flatnonzero(encoding.sequence_ids[row] == 1)
        if not len(places):
            rows.append({"score": 0.0, "start": 0, "end": 0, "answer": ""})
            continue
        tokens = tokenizer_of(model).convert_ids_to_tokens(encoding.input_ids[row, places].tolist())
        first, last = (_softmax(logits[row, places]) for logits in arrays)
        both = np.tril(np.triu(np.outer(first, last)), ANSWER - 1)  # it ends where it begins or later
        start, end = np.unravel_index(both.argmax(), both.shape)
        spans = offsets(text, tokens)
        begin, stop = spans[start][0], spans[end][1]
        rows.append({"score": float(both[start, end]), "start": begin, "end": stop, "answer": text[begin:stop]})
    return rows


def _maps(model: Model, sizes: Any, arrays: Sequence[Array]) -> list[Array]:
    assert model.processor is not None
    return [array[model.processor.region(*size)] for array, size in zip(arrays[0], sizes, strict=True)]


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


TASKS = {
    "feature-extraction": Task(_of_texts(_strings), ("sentence_embedding",), _embeddings),
    "sentence-similarity": Task(_of_texts(_strings), ("sentence_embedding",), _cosines, by_input=False),
    "sparse-embedding": Task(_of_texts(_strings), ("sparse_embedding",), _terms),
    "fill-mask": Task(_of_texts(_masked), ("logits",), _fillings),
    "text-classification": Task(_classified, ("logits",), _labels),
    "zero-shot/nli": Task(_classified, ("logits",), _labels),
    "token-classification": Task(_tagged, ("logits",), _entities),
    "question-answering": Task(_asked, ("start_logits", "end_logits"), _answers, single=(dict,)),
    "image-feature-extraction": Task(_seen, ("image_embedding",), _embeddings, single=None),
    "image-classification": Task(_seen, ("logits",), _classes, single=None),
    "saliency": Task(_seen, ("saliency",), _maps, single=None),
}
