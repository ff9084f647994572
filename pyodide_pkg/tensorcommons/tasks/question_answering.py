"""Extract the answer to a question from windows of a context, as `transformers` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..hub.encoding import Encoding
from ..models.model import Model
from ..ops.choosing import softmax
from .base import Array, Job, count, strings, text_rows, tokenizer_of

WINDOW = 384  # tokens of a window, if the model takes as many
MASKED = -10000.0  # the logit of tokens that cannot begin or end an answer
Answer: TypeAlias = "dict[str, Any]"


async def question_answering(
    model: Model,
    given: Any = None,
    *,
    question: str | Sequence[str] | None = None,
    context: str | Sequence[str] | None = None,
    top_k: int = 1,
    doc_stride: int | None = None,
    max_answer_len: int = 15,
    max_seq_len: int | None = None,
    handle_impossible_answer: bool = False,
    align_to_words: bool = True,
) -> Job:
    """See ``pipeline``."""
    count("top_k", top_k)
    count("max_answer_len", max_answer_len)
    examples = _examples(given, question, context)
    tokenizer = tokenizer_of(model)
    most = tokenizer.max_length or WINDOW
    size = min(most, WINDOW) if max_seq_len is None else min(count("max_seq_len", max_seq_len), most)
    overlap = min(size // 2, 128) if doc_stride is None else count("doc_stride", doc_stride, low=0)
    asked, contexts = [each for each, _ in examples], [text for _, text in examples]
    encoding = tokenizer.encode_windows(asked, contexts, size, overlap)

    def show(logits_of: list[Sequence[Array]]) -> Any:
        rows = []
        for number, text in enumerate(contexts):
            found: list[Answer] = []
            impossible = 1.0
            wanted = 2 * top_k + 10 if align_to_words else top_k  # several candidates may align to the same words
            for row in encoding.rows_of(number):
                logits = logits_of[row]
                null, candidates = _candidates(encoding, row, logits, tokenizer.cls_id, wanted, max_answer_len)
                impossible = min(impossible, null)
                inside = encoding.sequence_ids[row] == 1
                seen = encoding.offsets[row, inside].tolist()
                if align_to_words:
                    seen = _whole_words(seen, encoding.word_ids[row, inside].tolist())
                for begin, end, score in candidates:
                    _add(found, text, seen[begin][0], seen[end][1], score)
            if handle_impossible_answer:
                found.append({"score": impossible, "start": 0, "end": 0, "answer": ""})
            best = sorted(found, key=lambda answer: -float(answer["score"]))[:top_k]
            rows.append(best[0] if len(best) == 1 else best)
        return rows[0] if len(rows) == 1 else rows

    return Job(text_rows(model, encoding), ("start_logits", "end_logits"), lambda row, arrays: tuple(arrays), show)


def _examples(given: Any, question: Any, context: Any) -> list[tuple[str, str]]:
    """Return (question, context) pairs from any form that `transformers` accepts."""
    if given is None:
        given = {"question": question, "context": context}
    items = [given] if isinstance(given, Mapping) else list(given) if isinstance(given, (list, tuple)) else [given]
    bad = [e for e in items if not isinstance(e, Mapping) or set(e) != {"question", "context"}]
    if bad or not items:
        raise TensorCommonsError(f'this task takes {{"question": ..., "context": ...}}, not {quoted((*bad, given)[0])}')
    pairs: list[tuple[str, str]] = []
    for item in items:
        sides = [[side] if isinstance(side, str) else side for side in (item["question"], item["context"])]
        if not all(isinstance(side, (list, tuple)) for side in sides):
            raise TensorCommonsError(f"a question and a context must be strings, not {quoted(item)}")
        longest = max(len(side) for side in sides)
        if any(len(side) not in (1, longest) for side in sides):
            raise TensorCommonsError(
                f"{len(sides[0])} questions and {len(sides[1])} contexts cannot be paired: pass one, or equally many"
            )
        asked, texts = (strings(list(side) * (longest if len(side) == 1 else 1)) for side in sides)
        pairs += zip(asked, texts, strict=True)
    if not pairs or not all(asked.strip() and text.strip() for asked, text in pairs):
        raise TensorCommonsError("a question and its context must not be empty")
    return pairs


def _candidates(
    encoding: Encoding, row: int, logits: Sequence[Array], cls_id: int | None, wanted: int, longest: int
) -> tuple[float, list[tuple[int, int, float]]]:
    """Return the score of no answer in this window, and (first token, last token, score) of the best answers.

    Tokens count from the window's first token of the context. The first token of the input represents no answer.
    """
    real = encoding.attention_mask[row] == 1
    inside = encoding.sequence_ids[row][real] == 1
    possible = inside | (encoding.input_ids[row][real] == cls_id)
    first, last = (softmax(np.where(possible, values, MASKED)) for values in logits)
    null = float(first[0] * last[0])
    first[0] = last[0] = 0
    places = np.flatnonzero(inside)
    scores = np.tril(np.triu(np.outer(first[places], last[places])), longest - 1).reshape(-1)
    best = np.argsort(-scores, kind="stable")[:wanted]
    begins, ends = np.divmod(best, max(len(places), 1))
    return null, [(int(b), int(e), float(scores[n])) for n, b, e in zip(best, begins, ends, strict=True) if b <= e]


def _whole_words(spans: Sequence[Sequence[int]], numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the range of characters of each token's word, as far as the word is inside the window."""
    reach: dict[int, tuple[int, int]] = {}
    for (start, end), word in zip(spans, numbers, strict=True):
        reach[word] = (reach[word][0] if word in reach else start, end)
    return [reach[word] for word in numbers]


def _add(found: list[Answer], text: str, start: int, end: int, score: float) -> None:
    """Add an answer, or add its score to that of an answer with the same text."""
    answer = text[start:end]
    same = next((other for other in found if other["answer"].lower() == answer.lower()), None)
    if same is None:
        found.append({"score": score, "start": start, "end": end, "answer": answer})
    else:
        same["score"] += score
