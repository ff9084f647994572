"""Choose the next token: the most likely one, or a sample from the tokens that top-k, top-p and so on keep.

Scores are float32 (batch, vocabulary). After the processors of ``logits_process.py`` they are filtered in NumPy, in the
order of ``transformers``: temperature, top-h, top-k, top-p, min-p, typical, epsilon, eta, renormalization.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import TensorCommonsError
from .generation_options import Options
from .logits_process import Ids, Processor, Prompt, Scores, build, renormalize

FEW = 1024  # tokens: a nucleus is searched among so many of the most likely ones first
COLD = 0.01  # a temperature below which scores of float32 may overflow
TOP_H_TOKENS = 100  # tokens: top-h keeps some of so many of the most likely ones


def keep_top_k(scores: Scores, count: int) -> Scores:
    """Keep the ``count`` largest scores and those equal to the last of them; the others become minus infinity."""
    count = min(count, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    return np.where(scores < least, np.float32(-np.inf), scores)


def keep_top_p(scores: Scores, part: float) -> Scores:
    """Keep the most likely tokens that together reach probability ``part``, at least one (Holtzman et al., 2020)."""
    return np.stack([_nucleus(row, part) for row in scores])


def _nucleus(row: Scores, part: float) -> Scores:
    places = np.flatnonzero(row != -np.inf)  # keeps NaN, which choose() reports
    if not places.size:
        return row
    weights, rest = softmax(row[places]), 0.0
    if places.size > FEW:  # sorting a whole vocabulary is slow, and mostly the first tokens reach ``part``
        first = weights >= np.partition(weights, -FEW)[-FEW]
        reached = float(weights[first].sum(dtype=np.float64))
        if reached >= part:
            places, weights, rest = places[first], weights[first], 1 - reached
    order = np.argsort(row[places], kind="stable")
    cumulative = np.float32(rest) + np.cumsum(weights[order], dtype=np.float32)
    stay = cumulative > np.float32(1 - part)
    stay[-1:] = True
    kept = np.full_like(row, -np.inf)
    kept[places[order[stay]]] = row[places[order[stay]]]
    return kept


def keep_min_p(scores: Scores, part: float) -> Scores:
    """Keep tokens with at least ``part`` of the largest probability (Nguyen et al., 2024,
    https://arxiv.org/abs/2407.01082).
    """
    weights = softmax(scores)
    best = weights.max(axis=1, keepdims=True)
    return _kept(scores, (weights >= np.float32(part) * best) | (weights == best))


def keep_top_h(scores: Scores, part: float) -> Scores:
    """Keep the most likely tokens whose entropy is at most ``part`` of the total (https://arxiv.org/abs/2509.02510).

    Both entropies are those of the 100 most likely tokens.
    """
    count = min(TOP_H_TOKENS, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    terms = _entropy_terms(np.take_along_axis(scores, order, axis=1))
    stays = np.cumsum(terms, axis=1) <= terms.sum(axis=1, keepdims=True) * np.float32(part)
    return _kept_in_order(scores, order, stays)


def keep_typical(scores: Scores, mass: float) -> Scores:
    """Keep typical tokens (Meister et al., 2022, https://arxiv.org/abs/2202.00666).

    These are the tokens whose information is nearest to the entropy, as many as reach probability ``mass``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = softmax(scores)
        information = -np.log(weights)
        distance = np.abs(information - _entropy_terms(scores).sum(axis=1, keepdims=True))
    order = np.argsort(distance, axis=1, kind="stable")
    ordered = np.take_along_axis(distance, order, axis=1)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1, dtype=np.float32)
    last = np.minimum((reached < np.float32(mass)).sum(axis=1, keepdims=True), scores.shape[1] - 1)
    stays = ~(ordered > np.take_along_axis(ordered, last, axis=1))
    return _kept_in_order(scores, order, stays)


def keep_epsilon(scores: Scores, cutoff: float) -> Scores:
    """Keep tokens with a probability of at least ``cutoff`` (Hewitt et al., 2022, https://arxiv.org/abs/2210.15191)."""
    return _kept(scores, (softmax(scores) >= np.float32(cutoff)) | (scores == scores.max(axis=1, keepdims=True)))


def keep_eta(scores: Scores, cutoff: float) -> Scores:
    """Keep tokens as :func:`keep_epsilon`, with a lower cutoff if the entropy is high (the same paper)."""
    entropy = _entropy_terms(scores).sum(axis=1, keepdims=True)
    least = np.minimum(np.float32(cutoff), np.sqrt(np.float32(cutoff)) * np.exp(-entropy))
    return _kept(scores, (softmax(scores) >= least) | (scores == scores.max(axis=1, keepdims=True)))


def _entropy_terms(scores: Scores) -> Scores:
    """Return ``-p log p`` of each token, 0 for probability 0."""
    weights = softmax(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights > 0, -weights * np.log(weights), np.float32(0))


def _kept(scores: Scores, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Scores:
    return np.where(kept | np.isnan(scores), scores, np.float32(-np.inf))  # keeps NaN, which choose() reports


def _kept_in_order(
    scores: Scores, order: np.ndarray[Any, np.dtype[np.int_]], stays: np.ndarray[Any, np.dtype[np.bool_]]
) -> Scores:
    """Keep the tokens of ``order`` (batch, tokens) that ``stays`` selects, and the first one."""
    stays[:, 0] = True
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, order, stays, axis=1)
    return _kept(scores, kept)


def softmax(scores: Scores) -> Scores:
    """Return the softmax along the last axis."""
    with np.errstate(under="ignore", invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


#: Option -> (a test of whether a value has an effect, the filter), in the order of application.
WARPERS: dict[str, tuple[Callable[[float], bool], Callable[[Scores, Any], Scores]]] = {
    "top_h": (lambda value: True, keep_top_h),
    "top_k": (lambda value: value > 0, keep_top_k),
    "top_p": (lambda value: value < 1, keep_top_p),
    "min_p": (lambda value: True, keep_min_p),
    "typical_p": (lambda value: value < 1, keep_typical),
    "epsilon_cutoff": (lambda value: 0 < value < 1, keep_epsilon),
    "eta_cutoff": (lambda value: 0 < value < 1, keep_eta),
}


class Sampler:
    """Choose the tokens of one generation by its ``options``. Each row has a random stream of its own.

    Raises:
        TensorCommonsError: an option names a token outside the vocabulary.
    """

    def __init__(self, options: Options, rows: int, prompt: Prompt, vocab_size: int) -> None:
        self.options = options
        seed = int(np.random.default_rng().integers(2**63)) if options.seed is None else options.seed
        self._streams = [np.random.default_rng([seed, row]) for row in range(rows)]
        self._processors: list[Processor] = build(options, prompt, vocab_size)

    @property
    def is_greedy(self) -> bool:
        """True if the most likely token is chosen from unchanged logits, which the device can do."""
        return not self.options.do_sample and not self._processors

    def scores(self, logits: Scores, ids: Ids) -> Scores:
        """Apply every processor and filter to ``logits``, given all tokens so far (batch, sequence)."""
        o, scores = self.options, logits
        for process in self._processors:
            scores = process(ids, scores)
        if o.do_sample:
            if o.temperature != 1:
                scores = _tempered(scores, o.temperature)
            for name, (applies, keep) in WARPERS.items():
                value = getattr(o, name)
                if value is not None and applies(value):
                    scores = keep(scores, value)
        return renormalize(ids, scores) if o.renormalize_logits else scores

    def choose(self, logits: Scores, ids: Ids) -> Ids:
        """Choose the next token of each row: (batch,) int32.

        Raises:
            TensorCommonsError: tokens are sampled, and scores are NaN or infinite, or the options exclude every token.
        """
        with np.errstate(invalid="ignore"):  # NaN is reported below
            scores = self.scores(logits, ids)
        if not self.options.do_sample:
            return np.asarray(scores.argmax(axis=1), np.int32)
        chosen = []
        for row, stream in zip(scores, self._streams, strict=True):
            if not row.max() < np.inf:  # also true for NaN
                raise TensorCommonsError(
                    "the model's scores are NaN or infinite, so no token can be sampled: "
                    "its weights are damaged, or a value overflowed"
                )
            possible = np.flatnonzero(row > -np.inf)
            if not possible.size:
                raise TensorCommonsError("the options exclude every token, so none can be sampled: relax them")
            weights = np.cumsum(softmax(row[possible]), dtype=np.float64)
            chosen.append(possible[np.searchsorted(weights, stream.random() * weights[-1], side="right")])
        return np.array(chosen, np.int32)


def _tempered(scores: Scores, temperature: float) -> Scores:
    if temperature < COLD:  # only differences matter; subtract the maximum, so that large scores stay finite
        scores = scores - scores.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        return scores / max(np.float32(temperature), np.finfo(np.float32).tiny)
