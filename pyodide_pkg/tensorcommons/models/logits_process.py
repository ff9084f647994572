"""Logits processors: functions of the scores of one step, with the semantics and the order of ``transformers``.

A processor takes the tokens so far (batch, sequence), with the padding of prompts, and the scores float32
(batch, vocabulary), and returns new scores. ``build`` makes the list of processors for the options of a call. The
filters for sampled tokens (top-k, top-p and so on) are in ``sampling.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..ops.choosing import Scores, penalize
from .generation_options import Options

Ids: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Processor: TypeAlias = "Callable[[Ids, Scores], Scores]"

LOWEST = np.float32(-np.inf)


@dataclass(frozen=True)
class Prompt:
    """The prompts of one generation, for the processors.

    ``length`` is the width of the prompts (1 for an encoder-decoder), ``starts`` (batch,) the number of padding tokens
    before each, or None. ``encoder_ids`` are the inputs of the encoder, or the prompts of a decoder without one.
    ``max_length`` is the width at which the generation ends.
    """

    length: int
    max_length: int
    encoder_ids: Ids
    starts: Ids | None = None


def build(options: Options, prompt: Prompt, vocab_size: int) -> list[Processor]:
    """Build the processors of one generation, in the order of ``transformers``.

    Raises:
        TensorCommonsError: an option names a token outside the vocabulary, or ``eos_token_id`` is missing.
    """
    o, ends = options, _inside(options.eos_token_id, vocab_size)
    made: list[Processor] = []
    if o.sequence_bias:
        made.append(sequence_bias(o.sequence_bias, vocab_size, "sequence_bias"))
    if o.encoder_repetition_penalty != 1:
        inverse = np.float32(1 / o.encoder_repetition_penalty)  # makes the tokens of the encoder's input more likely
        made.append(lambda _, scores: penalize(scores, prompt.encoder_ids, inverse))
    if o.repetition_penalty != 1:
        made.append(partial(repetition_penalty, o.repetition_penalty, prompt.starts))
    if o.no_repeat_ngram_size > 0:
        made.append(lambda ids, scores: without_ngrams(ids, o.no_repeat_ngram_size, ids, scores))
    if o.encoder_no_repeat_ngram_size > 0:
        made.append(partial(without_ngrams, prompt.encoder_ids, o.encoder_no_repeat_ngram_size))
    if o.bad_words_ids:
        single = {(end,) for end in o.eos_token_id}
        words = tuple((word, -np.inf) for word in o.bad_words_ids if word not in single)
        made.append(sequence_bias(words, vocab_size, "bad_words_ids"))
    least = o.min_length if o.min_new_tokens is None else prompt.length + o.min_new_tokens
    if least > prompt.length and o.eos_token_id:
        made.append(partial(suppress, ends, lambda width: width < least))
    if o.forced_bos_token_id is not None:
        made.append(partial(force, _known("forced_bos_token_id", (o.forced_bos_token_id,), vocab_size), 1))
    if o.forced_eos_token_id:
        last = _known("forced_eos_token_id", o.forced_eos_token_id, vocab_size)
        made.append(partial(force, last, prompt.max_length - 1))
    if o.remove_invalid_values:
        made.append(remove_invalid_values)
    if o.exponential_decay_length_penalty is not None:
        if not o.eos_token_id:
            raise TensorCommonsError("exponential_decay_length_penalty needs an eos_token_id: pass one")
        start, factor = o.exponential_decay_length_penalty
        ends = _known("eos_token_id", o.eos_token_id, vocab_size)
        made.append(partial(exponential_decay, ends, start + prompt.length, factor))
    if o.suppress_tokens:
        made.append(partial(suppress, _inside(o.suppress_tokens, vocab_size), lambda width: True))
    if o.begin_suppress_tokens:
        begin = prompt.length + (prompt.length == 1 and o.forced_bos_token_id is not None)
        made.append(partial(suppress, _inside(o.begin_suppress_tokens, vocab_size), lambda width: width == begin))
    return made


def _inside(tokens: Sequence[int], vocab_size: int) -> list[int]:
    """Return the tokens that are inside the vocabulary."""
    return [token for token in tokens if 0 <= token < vocab_size]


def _known(name: str, tokens: Sequence[int], vocab_size: int) -> list[int]:
    if outside := [token for token in tokens if not 0 <= token < vocab_size]:
        raise TensorCommonsError(f"{name} {quoted(outside[0])} is outside the vocabulary of {vocab_size}")
    return list(tokens)


def repetition_penalty(penalty: float, starts: Ids | None, ids: Ids, scores: Scores) -> Scores:
    """Make tokens that are already in the text less likely; see :func:`penalize`. Padding tokens are not affected."""
    if starts is not None:
        ids = np.where(np.arange(ids.shape[1]) < starts[:, None], -1, ids)
    return penalize(scores, ids, np.float32(penalty))


def sequence_bias(biases: Sequence[tuple[tuple[int, ...], float]], vocab_size: int, name: str) -> Processor:
    """Add a bias to the last token of each sequence whose other tokens end the text.

    Raises:
        TensorCommonsError: a token is outside the vocabulary.
    """
    for tokens, _ in biases:
        _known(name, tokens, vocab_size)
    alone = np.zeros(vocab_size, np.float32)
    for tokens, bias in biases:
        if len(tokens) == 1:
            alone[tokens[0]] = bias
    longer = [(np.array(tokens), bias) for tokens, bias in biases if len(tokens) > 1]

    def process(ids: Ids, scores: Scores) -> Scores:
        added = np.tile(alone, (len(scores), 1))
        for tokens, bias in longer:
            width = len(tokens) - 1
            if width <= ids.shape[1]:
                added[(ids[:, -width:] == tokens[:-1]).all(axis=1), tokens[-1]] += np.float32(bias)
        return scores + added

    return process


def without_ngrams(where: Ids, size: int, ids: Ids, scores: Scores) -> Scores:
    """Exclude every token that would complete a sequence of ``size`` tokens that is in ``where``."""
    if min(where.shape[1], ids.shape[1] + 1) < size:
        return scores
    windows = np.lib.stride_tricks.sliding_window_view(where, size, axis=1)
    prefix = ids[:, ids.shape[1] + 1 - size :]
    row, place = np.nonzero((windows[..., :-1] == prefix[:, None]).all(axis=-1))
    scores = scores.copy()
    scores[row, windows[row, place, -1]] = LOWEST
    return scores


def suppress(tokens: Sequence[int], applies: Callable[[int], bool], ids: Ids, scores: Scores) -> Scores:
    """Exclude ``tokens`` at the steps for which ``applies(width of the text so far)`` is true."""
    if applies(ids.shape[1]):
        scores = scores.copy()
        scores[:, tokens] = LOWEST
    return scores


def force(tokens: Sequence[int], width: int, ids: Ids, scores: Scores) -> Scores:
    """Exclude all tokens but ``tokens`` at the step for which the text is ``width`` tokens long."""
    if ids.shape[1] == width:
        scores = np.full_like(scores, LOWEST)
        scores[:, tokens] = 0
    return scores


def remove_invalid_values(ids: Ids, scores: Scores) -> Scores:
    """Replace NaN by 0, and infinities by the largest and smallest float32."""
    limits = np.finfo(np.float32)
    return np.nan_to_num(scores, nan=0.0, posinf=float(limits.max), neginf=float(limits.min))


def exponential_decay(ends: Sequence[int], start: int, factor: float, ids: Ids, scores: Scores) -> Scores:
    """Raise the scores of end tokens by ``|score| * (factor**n - 1)``, n tokens after the width ``start``."""
    count = ids.shape[1] - start
    if count > 0:
        now = scores[:, ends]
        with np.errstate(over="ignore", invalid="ignore"):
            growth = np.float32(np.float64(factor) ** count - 1)
            grown = np.where(np.isfinite(now), now + np.abs(now) * growth, now)
        scores = scores.copy()
        scores[:, ends] = grown
    return scores


def renormalize(ids: Ids, scores: Scores) -> Scores:
    """Return the logarithm of the softmax of the scores."""
    with np.errstate(under="ignore"):
        shifted = scores - scores.max(axis=-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)
