"""Nucleus sampling with large vocabularies, where only the most likely tokens are sorted."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable

import numpy as np
import pytest

from scripts.paths import ROOT
from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.generation_options import INERT, REFUSED, Options, _warn_once
from tensorcommons.models.logits_process import Prompt
from tensorcommons.models.sampling import Sampler
from tensorcommons.ops.choosing import FEW, keep_top_k, keep_top_p
from tests.cases import shows

GOLDENS = ROOT / "tests" / "goldens"


def nucleus(row, part):
    """Choose by definition: the most likely tokens until they reach ``part``; of equal ones, the later is first."""
    order = np.argsort(row, kind="stable")[::-1]
    weights = np.exp(row[order].astype(np.float64) - row.max())
    before = np.cumsum(weights) - weights
    return set(order[before < part * weights.sum()].tolist())


@pytest.mark.parametrize("spread", [0.1, 4.0, 8.0])  # the flattest distribution keeps far more than FEW
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_nucleus_follows_its_definition(spread, part):
    scores = np.random.default_rng(0).standard_normal((2, 9 * FEW), np.float32) * np.float32(spread)
    for row, kept in zip(scores, keep_top_p(scores, part), strict=True):
        stays = np.flatnonzero(kept > -np.inf)
        np.testing.assert_array_equal(kept[stays], row[stays])
        # float32 sums may differ from float64 by one token at the edge
        assert len(nucleus(row, part) ^ set(stays.tolist())) <= (1 if len(stays) < FEW else 9)


def test_a_nucleus_is_chosen_among_the_tokens_of_top_k():
    scores = np.random.default_rng(0).standard_normal((1, 9 * FEW), np.float32)
    left = keep_top_k(scores, 20)
    kept = set(np.flatnonzero(keep_top_p(left, 0.7)[0] > -np.inf).tolist())
    assert kept == nucleus(left[0], 0.7) and 1 < len(kept) < 20


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_nan_are_refused_after_a_nucleus(wrong):
    scores = np.zeros((1, 9 * FEW), np.float32)
    scores[0, 5] = wrong
    ids = np.zeros((1, 1), np.int32)
    sampler = Sampler(Options(do_sample=True, top_k=0, top_p=0.5, seed=1), 1, Prompt(1, 9, ids), 9 * FEW)
    with pytest.raises(TensorCommonsError, match="NaN or infinite"):
        sampler.choose(scores, ids)


@shows("any decoder", "scores after each option for drawn tokens, and after several", "generation.json")
def test_the_distribution_is_that_of_the_reference():
    """The remaining tokens are equal, and their scores within rounding."""
    processed = json.loads((GOLDENS / "generation.json").read_text())["processed"]
    with np.load(GOLDENS / "generation.npz") as arrays:
        ids, scores = arrays["ids"], arrays["scores"]
        for number, options in enumerate(processed):
            prompt = Prompt(ids.shape[1], 99, ids)
            got = Sampler(Options.of({}, options), len(ids), prompt, scores.shape[1]).scores(scores, ids)
            wanted = arrays[f"scores.{number}"]
            np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted), str(options))
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=str(options))


def test_every_field_of_the_reference_is_listed_once():
    honoured = {field.name for field in dataclasses.fields(Options)}
    decided = [*honoured, *INERT, *REFUSED]
    assert len(decided) == len(set(decided))
    assert set(json.loads((GOLDENS / "generation.json").read_text())["fields"]) <= set(decided)


def test_the_table_in_the_docs_matches_the_code():
    page = (ROOT / "docs" / "generation.md").read_text()
    found = {
        kind: re.findall(r"`(\w+)`", " ".join(re.findall(rf"^\| (.*?) \| {kind} \|", page, re.MULTILINE)))
        for kind in ("supported", "inert", "refused")
    }
    honoured = [field.name for field in dataclasses.fields(Options)]
    listed: tuple[Iterable[str], ...] = (honoured, INERT, REFUSED)
    for kind, names in zip(found, listed, strict=True):
        assert sorted(found[kind]) == sorted(names), kind


def test_options_without_effect_cause_one_warning(caplog):
    _warn_once.cache_clear()
    for _ in range(2):
        Options.of({"top_p": 0.5}, {"temperature": 0.7, "max_length": 9, "max_new_tokens": 3})
    Options.of({"temperature": 0.0}, {})
    assert [("temperature" in text, "max_length" in text, "top_p" in text) for text in caplog.messages] == [
        (True, False, False),
        (False, True, False),
    ]


def test_values_that_mean_not_set_cause_no_warning(caplog):
    _warn_once.cache_clear()
    plain = dict.fromkeys(("temperature", "top_p", "typical_p", "length_penalty"), 1.0) | {"top_k": 50, "min_p": None}
    Options.of({}, {**plain, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "early_stopping": False, "min_new_tokens": 2})
    assert caplog.messages == []
    Options.of({}, {"min_new_tokens": 2, "min_length": 9})
    assert ["min_new_tokens is used" in text for text in caplog.messages] == [True]
