"""Choosing the next token: the likeliest, or one drawn from what top-k, a nucleus and so on leave.

Scores are float32 (batch, vocabulary), worked on in NumPy after the processors of ``logits_process.py``, in the order
of ``transformers``: temperature, top-h, top-k, top-p, min-p, typical, epsilon, eta, renormalizing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError
from .generation_options import Options
from .logits_process import Processor, Prompt, build, renormalize

Scores: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Ids: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
FEW = 1024  # the likeliest, among which a nucleus is looked for first
COLD = 0.01  # a temperature below which scores of float32 may overflow
TOP_H_TOKENS = 100  # the likeliest, which top-h chooses among


def keep_top_k(scores: Scores, count: int) -> Scores:
    """All but the ``count`` largest become minus infinity; ties of the last of them stay."""
    count = min(count, scores.shape[1])
    least = np.partition(scores, -count, axis=1)[:, -count, None]
    return np.where(scores < least, np.float32(-np.inf), scores)


def keep_top_p(scores: Scores, part: float) -> Scores:
    """Nucleus sampling (Holtzman et al., 2020): the likeliest that together reach ``part`` stay, at least one."""
    return np.stack([_nucleus(row, part) for row in scores])


def _nucleus(row: Scores, part: float) -> Scores:
    places = np.flatnonzero(row != -np.inf)  # NaN stays, for who draws to find
    if not places.size:
        return row
    weights, rest = softmax(row[places]), 0.0
    if places.size > FEW:  # sorting a vocabulary takes longer than all else: mostly the first of them reach ``part``
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
    """Min-p sampling (Nguyen et al., 2024, https://arxiv.org/abs/2407.01082): at least ``part`` of the likeliest."""
    weights = softmax(scores)
    best = weights.max(axis=1, keepdims=True)
    return _kept(scores, (weights >= np.float32(part) * best) | (weights == best))


def keep_top_h(scores: Scores, part: float) -> Scores:
    """Top-h sampling (https://arxiv.org/abs/2509.02510): the likeliest whose entropy is up to ``part`` of all of it.

    Both are counted among the 100 likeliest tokens.
    """
    count = min(TOP_H_TOKENS, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    terms = _entropy_terms(np.take_along_axis(scores, order, axis=1))
    stays = np.cumsum(terms, axis=1) <= terms.sum(axis=1, keepdims=True) * np.float32(part)
    stays[:, 0] = True
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, order, stays, axis=1)
    return _kept(scores, kept)


def keep_typical(scores: Scores, mass: float) -> Scores:
    """Locally typical sampling (Meister et al., 2022, https://arxiv.org/abs/2202.00666).

    Of the tokens whose information is nearest to the entropy, as many as reach ``mass``.
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
    stays[:, 0] = True
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, order, stays, axis=1)
    return _kept(scores, kept)


def keep_epsilon(scores: Scores, cutoff: float) -> Scores:
    """Epsilon sampling (Hewitt et al., 2022, https://arxiv.org/abs/2210.15191): tokens of at least that probability."""
    return _kept(scores, (softmax(scores) >= np.float32(cutoff)) | (scores == scores.max(axis=1, keepdims=True)))


def keep_eta(scores: Scores, cutoff: float) -> Scores:
    """Eta sampling, of the same paper: the cutoff is lower where the entropy is high."""
    entropy = _entropy_terms(scores).sum(axis=1, keepdims=True)
    least = np.minimum(np.float32(cutoff), np.sqrt(np.float32(cutoff)) * np.exp(-entropy))
    return _kept(scores, (softmax(scores) >= least) | (scores == scores.max(axis=1, keepdims=True)))


def _entropy_terms(scores: Scores) -> Scores:
    """``-p log p`` of each token, 0 where the probability is."""
    weights = softmax(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights > 0, -weights * np.log(weights), np.float32(0))


def _kept(scores: Scores, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Scores:
    return np.where(kept | np.isnan(scores), scores, np.float32(-np.inf))  # NaN stays, for who draws to find


def softmax(scores: Scores) -> Scores:
    """Along the last axis."""
    with np.errstate(under="ignore", invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


#: Option -> (whether a value keeps fewer tokens, how), in their order.
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
    """Chooses the tokens of one generation as ``options`` say. Each row draws from a stream of its own.

    Raises:
        TensorCommonsError: an option does not fit the vocabulary.
    """

    def __init__(self, options: Options, rows: int, prompt: Prompt, vocab_size: int) -> None:
        self.options = options
        seed = int(np.random.default_rng().integers(2**63)) if options.seed is None else options.seed
        self._streams = [np.random.default_rng([seed, row]) for row in range(rows)]
        self._processors: list[Processor] = build(options, prompt, vocab_size)

    @property
    def is_greedy(self) -> bool:
        """True if the likeliest token is chosen, whatever came before: the device can do that without the logits."""
        return not self.options.do_sample and not self._processors

    def scores(self, logits: Scores, ids: Ids) -> Scores:
        """``logits`` after every processor, given all tokens so far (batch, sequence)."""
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
            TensorCommonsError: tokens are drawn, and scores are NaN or infinite, or the options exclude every token.
        """
        with np.errstate(invalid="ignore"):  # what is not a number is refused below
            scores = self.scores(logits, ids)
        if not self.options.do_sample:
            return np.asarray(scores.argmax(axis=1), np.int32)
        chosen = []
        for row, stream in zip(scores, self._streams, strict=True):
            if not row.max() < np.inf:  # nor if one is NaN
                raise TensorCommonsError("the model's scores are NaN or infinite: no token can be drawn by them")
            possible = np.flatnonzero(row > -np.inf)
            if not possible.size:
                raise TensorCommonsError("the options exclude every token: none can be drawn")
            weights = np.cumsum(softmax(row[possible]), dtype=np.float64)
            chosen.append(possible[np.searchsorted(weights, stream.random() * weights[-1], side="right")])
        return np.array(chosen, np.int32)


def _tempered(scores: Scores, temperature: float) -> Scores:
    if temperature < COLD:  # only differences count, and those of the likeliest must not be infinite
        scores = scores - scores.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        return scores / max(np.float32(temperature), np.finfo(np.float32).tiny)
