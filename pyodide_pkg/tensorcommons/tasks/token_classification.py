"""Label the tokens of texts, and merge the tokens of one entity, as `transformers` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError
from ..hub.tokenizer import Tokenizer
from ..models.model import Model
from ..ops.choosing import softmax
from .base import Array, Job, count, one_of, several, strings, text_rows, texts_of, tokenizer_of
from .classification import labels_of

STRATEGIES = ("none", "simple", "first", "average", "max")
Entity: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Piece:
    """A token or word: its text, its range of characters, and the scores of each token and label."""

    word: str  # for an unknown token, the characters of the text
    start: int
    end: int
    scores: Array  # (tokens, labels)
    inside: bool = False  # it continues a word
    index: int = 0


async def token_classification(
    model: Model,
    given: Any,
    *,
    aggregation_strategy: str = "none",
    ignore_labels: Sequence[str] = ("O",),
    stride: int | None = None,
    truncation: bool = True,
) -> Job:
    """See ``pipeline``."""
    strategy = one_of("aggregation_strategy", aggregation_strategy, STRATEGIES)
    if stride is not None and (count("stride", stride, low=0), strategy)[1] == "none":
        raise TensorCommonsError(
            f"stride needs an aggregation_strategy: pass one of {', '.join(STRATEGIES[1:])}, not none"
        )
    texts, single = texts_of(given)
    tokenizer, names = tokenizer_of(model), labels_of(model).names
    if stride is None:
        encoding = tokenizer.encode_batch(texts, truncation=truncation)
    else:
        encoding = tokenizer.encode_windows(texts, overlap=stride)
    ignored = set(strings([ignore_labels] if isinstance(ignore_labels, str) else several(ignore_labels)))

    def each(row: int, arrays: Sequence[Array]) -> Array:
        return softmax(arrays[0])

    def show(scores: list[Array]) -> Any:
        rows: list[list[Entity]] = []
        for number, text in enumerate(texts):
            found, of_text = [], encoding.rows_of(number)
            for row in of_text:
                places = np.flatnonzero(encoding.sequence_ids[row] == 0)
                ids = encoding.input_ids[row, places].tolist()
                spans = encoding.offsets[row, places].tolist()
                first = int(encoding.attention_mask[row].argmax())  # padding may precede it
                parts = zip((places - first).tolist(), ids, tokenizer.convert_ids_to_tokens(ids), spans, strict=True)
                pieces = [
                    _piece(tokenizer, text, token, each, span, scores[row][place], place)
                    for place, each, token, span in parts
                ]
                found += _entities(tokenizer, pieces, strategy, names)
            kept = [e for e in found if e.get("entity") not in ignored and e.get("entity_group") not in ignored]
            rows.append(_without_overlap(kept) if len(of_text) > 1 else kept)
        return rows[0] if single else rows

    return Job(text_rows(model, encoding), ("logits",), each, show)


def _piece(
    tokenizer: Tokenizer, text: str, token: str, number: int, span: Sequence[int], scores: Array, index: int
) -> Piece:
    """Make the piece of one token.

    A token continues a word if it is shorter in the text than in the vocabulary ("##s"), or, for a tokenizer without
    such prefixes, if no space precedes it.
    """
    start, end = span
    part, unknown = text[start:end], number == tokenizer.unk_id
    shorter, follows = len(token) != len(part), start > 0 and " " not in text[start - 1 : start + 1]
    inside = shorter if tokenizer.subword_prefix else follows
    return Piece(part if unknown else token, start, end, scores[None], inside and not unknown, index)


def _entities(tokenizer: Tokenizer, pieces: list[Piece], strategy: str, names: Sequence[str]) -> list[Entity]:
    if strategy == "none":
        return [
            {
                "entity": names[int(piece.scores[0].argmax())],
                "score": float(piece.scores[0].max()),
                "index": piece.index,
                "word": piece.word,
                "start": piece.start,
                "end": piece.end,
            }
            for piece in pieces
        ]
    parts = pieces if strategy == "simple" else _words(tokenizer, pieces)
    tagged = [(part, *_label(part.scores, strategy, names)) for part in parts]
    groups: list[list[tuple[Piece, str, float]]] = []
    for each in tagged:
        begins, kind = _tag(each[1])
        if groups and not begins and kind == _tag(groups[-1][-1][1])[1]:
            groups[-1].append(each)
        else:
            groups.append([each])
    wholes = _joined(tokenizer, [[part for part, *_ in group] for group in groups])
    return [
        {
            "entity_group": group[0][1].split("-", 1)[-1],
            "score": float(np.mean([score for *_, score in group])),
            "word": whole.word,
            "start": whole.start,
            "end": whole.end,
        }
        for group, whole in zip(groups, wholes, strict=True)
    ]


def _words(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> list[Piece]:
    """Merge the tokens of each word to one piece."""
    words: list[list[Piece]] = []
    for piece in pieces:
        if words and piece.inside:
            words[-1].append(piece)
        else:
            words.append([piece])
    return _joined(tokenizer, words)


def _joined(tokenizer: Tokenizer, groups: Sequence[Sequence[Piece]]) -> list[Piece]:
    """Merge each group to one piece."""
    texts = tokenizer.convert_tokens_to_strings([[piece.word for piece in group] for group in groups])
    return [
        Piece(text, group[0].start, group[-1].end, np.concatenate([piece.scores for piece in group]))
        for text, group in zip(texts, groups, strict=True)
    ]


def _label(scores: Array, strategy: str, names: Sequence[str]) -> tuple[str, float]:
    """Choose the label of a word from its tokens."""
    if strategy == "average":
        row = scores.mean(axis=0)
    else:
        row = scores[int(scores.max(axis=1).argmax()) if strategy == "max" else 0]
    best = int(row.argmax())
    return names[best], float(row[best])


def _tag(label: str) -> tuple[bool, str]:
    """Return whether a label begins an entity, and its type: "B-PER" does, "I-PER" and "PER" continue one."""
    return label.startswith("B-"), label[2:] if label[:2] in ("B-", "I-") else label


def _without_overlap(entities: Sequence[Entity]) -> list[Entity]:
    """Resolve overlapping entities of two windows: keep the longer one, or that with the higher score."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: int(entity["start"])):
        if kept and kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept[-1] = max(kept[-1], entity, key=lambda e: (e["end"] - e["start"], e["score"]))
        else:
            kept.append(entity)
    return kept
