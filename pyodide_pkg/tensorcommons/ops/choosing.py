"""Choices of tokens from their scores: the most likely one, or a sample.

The ops are for generations on devices that choose tokens themselves. Elsewhere the host calls the same functions of
NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec, per_element, per_input
from ..errors import UnsupportedDtype
from ..tensor import Tensor
from .registry import apply, define

Scores: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Tokens: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"

NOT_A_NUMBER = -1  # in place of a token if its scores are NaN, or infinite and tokens are sampled
FEW = 1024  # tokens: a nucleus is searched among so many of the most likely ones first
COLD = 0.01  # a temperature below which scores of float32 may overflow


def temper(scores: Scores, temperature: float) -> Scores:
    """Divide ``scores`` by ``temperature``."""
    if temperature < COLD:  # only differences matter; subtract the maximum, so that large scores stay finite
        scores = scores - scores.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        return scores / max(np.float32(temperature), np.finfo(np.float32).tiny)


def keep_top_k(scores: Scores, count: int, least: int = 1) -> Scores:
    """Keep the ``count`` or ``least`` largest scores, and those equal to the last; the others become minus infinity."""
    return np.where(within(scores, max(count, least)), scores, np.float32(-np.inf))


def within(scores: Scores, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Select the ``count`` largest scores of each row, those equal to the last of them, and NaN."""
    count = min(count, scores.shape[1])
    selected: np.ndarray[Any, np.dtype[np.bool_]] = ~(scores < np.partition(scores, -count, axis=1)[:, -count, None])
    return selected


def keep_top_p(scores: Scores, part: float, least: int = 1) -> Scores:
    """Keep the most likely tokens that together reach probability ``part`` (Holtzman et al., 2020,
    https://arxiv.org/abs/1904.09751), but ``least`` or more.
    """
    return np.stack([_nucleus(row, part, least) for row in scores])


def _nucleus(row: Scores, part: float, least: int) -> Scores:
    places = np.flatnonzero(row != -np.inf)  # keeps NaN, which the choice reports
    if not places.size:
        return row
    weights, rest = softmax(row[places]), 0.0
    if places.size > FEW >= least:  # sorting a whole vocabulary is slow, and mostly the first tokens reach ``part``
        first = weights >= np.partition(weights, -FEW)[-FEW]
        reached = float(weights[first].sum(dtype=np.float64))
        if reached >= part:
            places, weights, rest = places[first], weights[first], 1 - reached
    order = np.argsort(row[places], kind="stable")
    cumulative = rest + np.cumsum(weights[order], dtype=np.float64)
    stay = cumulative.astype(np.float32) > np.float32(1 - part)
    stay[-least:] = True
    kept = np.full_like(row, -np.inf)
    kept[places[order[stay]]] = row[places[order[stay]]]
    return kept


def keep_min_p(scores: Scores, part: float, least: int = 1) -> Scores:
    """Keep tokens with at least ``part`` of the largest probability (Nguyen et al., 2024,
    https://arxiv.org/abs/2407.01082), but ``least`` or more.
    """
    weights = softmax(scores)
    return only(scores, (weights >= np.float32(part) * weights.max(axis=1, keepdims=True)) | within(weights, least))


def only(scores: Scores, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> Scores:
    """Keep the scores that ``kept`` selects, and NaN, which the choice reports."""
    return np.where(kept | np.isnan(scores), scores, np.float32(-np.inf))


def softmax(scores: Scores) -> Scores:
    """Return the softmax along the last axis."""
    with np.errstate(under="ignore", invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)


def draw(scores: Scores, numbers: Any) -> Tokens:
    """Draw a token of each row by the softmax of its scores: the first one whose cumulative probability exceeds the
    row's number, from 0 to below 1. :data:`NOT_A_NUMBER` if scores are NaN or infinite, or exclude every token.
    """
    chosen = np.full(len(scores), NOT_A_NUMBER, np.int32)
    for i, (row, number) in enumerate(zip(scores, numbers, strict=True)):
        if -np.inf < row.max() < np.inf:  # false for NaN
            possible = np.flatnonzero(row > -np.inf)
            weights = np.cumsum(softmax(row[possible]), dtype=np.float64)
            chosen[i] = possible[np.searchsorted(weights, float(number) * weights[-1], side="right")]
    return chosen


def penalize(scores: Scores, tokens: Any, penalty: Any) -> Scores:
    """Divide the positive scores of ``tokens`` (rows, count) by ``penalty``, multiply the negative ones by it.

    Each token counts once. A token that is outside the vocabulary has no effect.
    """
    size = scores.shape[1]
    padded = np.pad(scores, ((0, 0), (0, 1)))
    ids = np.where((tokens >= 0) & (tokens < size), tokens, size)
    seen = np.take_along_axis(padded, ids, axis=1)
    np.put_along_axis(padded, ids, np.where(seen < 0, seen * penalty, seen / penalty), axis=1)
    return padded[:, :size]


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return Spec((_checked(specs[0]).shape[0], 1), dtypes.int32)


def _checked(scores: Spec) -> Spec:
    if scores.dtype not in (dtypes.float32, dtypes.float16):
        raise UnsupportedDtype(f"scores must be float32 or float16, not {scores.dtype}")
    return scores


def _likeliest(x: Any) -> Any:
    token = x.argmax(axis=1, keepdims=True)  # the position of a NaN, if there is one
    return np.where(np.isnan(np.take_along_axis(x, token, axis=1)), NOT_A_NUMBER, token).astype(np.int32)


def _sample(x: Any, settings: Any) -> Any:
    tokens = np.empty((len(x), 1), np.int32)
    for row, (temperature, top_k, top_p, min_p, number) in enumerate(settings):
        with np.errstate(invalid="ignore"):  # NaN is not a choice
            scores = temper(x[row : row + 1].astype(np.float32), temperature)
            if top_k > 0:
                scores = keep_top_k(scores, int(top_k))
            if top_p < 1:
                scores = keep_top_p(scores, top_p)
            tokens[row] = draw(keep_min_p(scores, min_p), [number])
    return tokens


def _penalize(x: Any, tokens: Any, first: Any, end: Any, penalty: Any) -> Any:
    places = np.arange(tokens.shape[1])
    counts = (places >= first[:, None]) & (places < end[:, None])
    return penalize(x.astype(np.float32), np.where(counts, tokens, -1), penalty[:, None])


LIKELIEST = define("likeliest", _infer, _likeliest, operations=per_input(1))
SAMPLE = define("sample", _infer, _sample, operations=per_input(8))
PENALTY = define(
    "repetition_penalty", lambda specs, attrs: Spec(_checked(specs[0]).shape, dtypes.float32), _penalize,
    operations=per_element(1),
)  # fmt: skip


def likeliest(scores: Tensor) -> Tensor:
    """Return the first largest of ``scores`` (rows, vocabulary) in each row: (rows, 1) int32.

    It is :data:`NOT_A_NUMBER` in rows that contain NaN.
    """
    return apply(LIKELIEST, scores)


def sample(scores: Tensor, settings: Tensor) -> Tensor:
    """Draw a token of each row of ``scores`` (rows, vocabulary): (rows, 1) int32.

    ``settings`` (rows, 5) float32 are a temperature above 0, top_k (0: off), top_p (1: off), min_p (0: off) and a
    number from 0 to below 1, which decides. Filters and order are those of ``transformers``: of equal scores top-k
    keeps all and top-p the last ones. The token is :data:`NOT_A_NUMBER` in rows with NaN or infinity, or minus infinity
    alone.

    Devices agree unless a cumulative probability is within 1e-5 of the number, or within rounding of top_p.
    """
    return apply(SAMPLE, scores, settings)


def repetition_penalty(scores: Tensor, tokens: Tensor, first: Tensor, end: Tensor, penalty: Tensor) -> Tensor:
    """Make tokens that are in the text less likely (Keskar et al., 2019, https://arxiv.org/abs/1909.05858).

    ``scores`` are (rows, vocabulary). The text of a row is ``tokens`` (rows, capacity) int32 from its ``first`` (rows,)
    to before its ``end`` (rows,). ``penalty`` (rows,) float32 divides positive scores and multiplies others, once
    for each token. The result is float32.
    """
    return apply(PENALTY, scores, tokens, first, end, penalty)
