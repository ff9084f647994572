"""Fill the mask tokens of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import TensorCommonsError, quoted
from ..hub.tokenizer import Tokenizer
from ..models.model import Model
from ..ops.choosing import softmax
from .base import Array, Job, count, strings, text_rows, texts_of, tokenizer_of


async def fill_mask(
    model: Model,
    given: Any,
    *,
    top_k: int = 5,
    targets: str | Sequence[str] | None = None,
    truncation: bool = True,
) -> Job:
    """See ``pipeline``."""
    texts, single = texts_of(given)
    tokenizer = tokenizer_of(model)
    count("top_k", top_k)
    allowed = None if targets is None else _ids_of(tokenizer, targets)
    encoding = tokenizer.encode_batch(texts, truncation=truncation)
    rows = [ids[mask == 1] for ids, mask in zip(encoding.input_ids, encoding.attention_mask, strict=True)]
    for text, ids in zip(texts, rows, strict=True):
        if not (ids == tokenizer.mask_id).any():
            raise TensorCommonsError(
                f"fill-mask needs a mask token among the first {len(ids)} tokens of the text {quoted(text)}"
            )

    def each(row: int, arrays: Sequence[Array]) -> Any:
        ids, logits = rows[row], arrays[0]
        filled = [
            _filled(tokenizer, ids, int(place), logits[place], allowed, top_k)
            for place in np.flatnonzero(ids == tokenizer.mask_id)
        ]
        return filled[0] if len(filled) == 1 else filled

    def show(shown: list[Any]) -> Any:
        return shown[0] if single or len(shown) == 1 else shown  # as in `transformers`, also for a list of one text

    return Job(text_rows(model, encoding), ("logits",), each, show)


def _filled(
    tokenizer: Tokenizer, ids: NDArray[np.int32], place: int, logits: Array, allowed: list[int] | None, top_k: int
) -> list[dict[str, Any]]:
    """Return the most likely tokens at ``place`` of a text, best first."""
    scores = softmax(logits)
    known = np.arange(len(scores)) if allowed is None else np.array(allowed)
    best = known[np.argsort(-scores[known], kind="stable")[:top_k]]
    alone = int((ids == tokenizer.mask_id).sum()) == 1
    filled = np.repeat(ids[None], len(best), 0)
    filled[:, place] = best
    shown = []
    for token, name, row in zip(best.tolist(), tokenizer.tokens_of(best.tolist()), filled, strict=True):
        held = row.tolist() if name is not None else np.delete(row, place).tolist()  # an id beyond the vocabulary
        shown.append(
            {
                "score": float(scores[token]),
                "token": token,
                "token_str": "" if name is None else tokenizer.decode([token], skip_special_tokens=False),
                "sequence": tokenizer.decode(held, skip_special_tokens=alone),  # keep the other mask tokens
            }
        )
    return shown


def _ids_of(tokenizer: Tokenizer, targets: str | Sequence[str]) -> list[int]:
    """Return the id of each target, or of its first token if the target is not in the vocabulary."""
    words = strings([targets] if isinstance(targets, str) else list(targets))
    if not words:
        raise TensorCommonsError("targets is empty: pass at least one word to choose from")
    ids = tokenizer.convert_tokens_to_ids(words)
    for number, (word, known) in enumerate(zip(words, ids, strict=True)):
        if known is None:
            pieces = tokenizer.encode_batch([word], truncation=False, add_special_tokens=False).input_ids[0]
            if not len(pieces):
                raise TensorCommonsError(f"the target {quoted(word)} has no tokens: pass another word")
            ids[number] = int(pieces[0])
    return list(dict.fromkeys(number for number in ids if number is not None))
