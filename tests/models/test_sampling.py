"""Nuclei of large vocabularies, where only the likeliest tokens are sorted."""

from __future__ import annotations

import numpy as np
import pytest

from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.sampling import FEW, Options, Sampler, keep_top_k, keep_top_p


def nucleus(row, part):
    """By definition: the likeliest, one by one, until they reach ``part``; of equal ones the later comes first."""
    order = np.argsort(row, kind="stable")[::-1]
    weights = np.exp(row[order].astype(np.float64) - row.max())
    before = np.cumsum(weights) - weights
    return set(order[before < part * weights.sum()].tolist())


@pytest.mark.parametrize("spread", [0.1, 4.0, 8.0])  # the flattest takes far more than FEW
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_nucleus_is_what_its_definition_says(spread, part):
    scores = np.random.default_rng(0).standard_normal((2, 9 * FEW), np.float32) * np.float32(spread)
    for row, kept in zip(scores, keep_top_p(scores, part), strict=True):
        stays = np.flatnonzero(kept > -np.inf)
        np.testing.assert_array_equal(kept[stays], row[stays])
        # float32 sums may part with float64 over one token at the edge
        assert len(nucleus(row, part) ^ set(stays.tolist())) <= (1 if len(stays) < FEW else 9)


def test_what_top_k_left_is_all_that_a_nucleus_looks_at():
    scores = np.random.default_rng(0).standard_normal((1, 9 * FEW), np.float32)
    left = keep_top_k(scores, 20)
    kept = set(np.flatnonzero(keep_top_p(left, 0.7)[0] > -np.inf).tolist())
    assert kept == nucleus(left[0], 0.7) and 1 < len(kept) < 20


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused_behind_a_nucleus(wrong):
    scores = np.zeros((1, 9 * FEW), np.float32)
    scores[0, 5] = wrong
    sampler = Sampler(Options(do_sample=True, top_k=0, top_p=0.5, seed=1), 1)
    with pytest.raises(TensorCommonsError, match="NaN or infinite"), np.errstate(invalid="ignore"):
        sampler.choose(scores, np.zeros((1, 1), np.int32), 0)
