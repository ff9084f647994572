"""Beam search over tables of scores: against `transformers`, a plain restatement, and every text there is."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.paths import ROOT
from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.beams import BeamSearch, Found, draw_several, largest
from tensorcommons.models.generation_options import Options
from tensorcommons.models.logits_process import Prompt, renormalize
from tensorcommons.models.lookup import candidates
from tensorcommons.models.sampling import Sampler
from tests.cases import shows
from tests.cases.score_table import WORDS, prompts_of_table, scores_after

GOLDENS = json.loads((ROOT / "tests" / "goldens" / "beams.json").read_text())
LOST = np.float32(-1e9)


def searched(prompts: Any, options: Options, logits: Any, words: int, **more: Any) -> tuple[Found, BeamSearch]:
    """Search to the end. ``logits`` is a function of the tokens so far, (rows, width)."""
    longest = prompts.shape[1] + (options.max_new_tokens or 0)
    rows = np.repeat(prompts, options.num_beams, axis=0)
    sampler = Sampler(options, len(rows), Prompt(prompts.shape[1], longest, rows), words)
    search = BeamSearch(prompts, options, longest, words, numbers=sampler.several, **more)
    while not search.is_done:
        before = search.tokens
        parents, tokens = search.step(sampler.scores(renormalize(before, logits(before)), before))
        np.testing.assert_array_equal(search.tokens, np.concatenate([before[parents], tokens[:, None]], axis=1))
    return search.found(), search


@shows("any decoder", "beam search over tables of scores, by 240 combinations of options", "beams.json")
def test_searches_are_those_of_the_reference():
    ambiguous = 0
    for case in GOLDENS["tables"]:
        prompts, seed = prompts_of_table(case["seed"]), case["seed"]
        options = Options.of({}, {**case["options"], "output_logprobs": True})
        found, _ = searched(prompts, options, partial(scores_after, seed=seed), WORDS)
        np.testing.assert_allclose(found.scores, case["scores"], rtol=1e-4, atol=1e-4)
        # The texts of lost beams have equal scores, whose order PyTorch leaves open.
        sure = found.scores > LOST / 100
        ambiguous += not sure.all()
        new = found.tokens[:, prompts.shape[1] :]
        assert new[sure].tolist() == [row for row, is_sure in zip(case["new"], sure, strict=True) if is_sure], case
        np.testing.assert_array_equal(found.rows[sure], np.array(case["rows"])[sure])
        np.testing.assert_allclose(np.nan_to_num(found.logprobs)[sure], np.array(case["logprobs"])[sure], atol=3e-4)
        np.testing.assert_array_equal(np.isnan(found.logprobs), found.rows < 0)
    assert ambiguous < 9


@shows("any decoder", "scores for beams after each option for drawn tokens", "beams.json")
def test_filters_keep_more_tokens_with_beams():
    for case in GOLDENS["warped"]:
        ids = np.array(case["ids"])
        options = Options.of({}, {name: value for name, value in case["options"].items() if value is not None})
        got = Sampler(options, len(ids), Prompt(ids.shape[1], 99, ids), WORDS).scores(
            scores_after(ids, case["seed"]), ids
        )
        wanted = np.array([[-np.inf if score is None else score for score in row] for row in case["scores"]])
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4, err_msg=str(case["options"]))


def restated(prompts: Any, o: Options, logprobs: Any, longest: int) -> list[list[tuple[Any, list[int]]]]:
    """Search with lists and single numbers: the (score, new tokens) of all beams of each prompt."""
    f, beams, penalty = np.float32, o.num_beams, o.length_penalty
    running: Any = [[(f(0) if beam == 0 else LOST, []) for beam in range(beams)] for _ in prompts]
    ended: Any = [[(LOST, [], False) for _ in range(beams)] for _ in prompts]
    hopeful, length = [True] * len(prompts), 0
    while True:
        stops = []
        for number, prompt in enumerate(prompts):
            pairs = []
            for score, new in running[number]:
                row = logprobs(np.array([[*prompt, *new]]))[0]
                pairs += [(f(row[token] + score), [*new, token]) for token in range(len(row))]
            pairs.sort(key=lambda pair: -pair[0])
            pairs = pairs[: max(2, 1 + len(o.eos_token_id)) * beams]
            ends = [new[-1] in o.eos_token_id or len(prompt) + len(new) >= longest for _, new in pairs]
            stops += ends
            is_full = o.early_stopping is True and all(done for *_, done in ended[number])
            for rank, ((score, new), is_end) in enumerate(zip(pairs, ends, strict=True)):
                final, counts = f(score / f((length + 1) ** penalty)), is_end and rank < beams
                for excluded in (is_full, not hopeful[number], not counts):
                    final = f(final + LOST) if excluded else final
                ended[number].append((final, new, counts))
            ended[number] = sorted(ended[number], key=lambda each: -each[0])[:beams]
            left = [(f(s + LOST) if e else s, new) for (s, new), e in zip(pairs, ends, strict=True)]
            running[number] = sorted(left, key=lambda pair: -pair[0])[:beams]
        length += 1
        at = longest - len(prompts[0]) if o.early_stopping == "never" and penalty > 0 else length
        for number in range(len(prompts)):
            best, worst = f(running[number][0][0] / f(at**penalty)), min(each[0] for each in ended[number])
            hopeful[number] &= any(best > (worst if done else LOST) for *_, done in ended[number])
        is_full = o.early_stopping is True and all(done for own in ended for *_, done in own)
        if all(stops) or is_full or not any(hopeful):
            return [[(score, new) for score, new, _ in own] for own in ended]


@settings(max_examples=250, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([-2.0, -0.3, 0.0, 1.0, 1.7]),
    st.sampled_from([True, False, "never"]), st.integers(1, 7), st.lists(st.integers(0, 7), max_size=4),
    st.sampled_from(["random", "ties", "holes", "ties and holes", "hopeless"]),
)  # fmt: skip
def test_a_search_equals_its_restatement(seed, beams, penalty, stopping, steps, ends, kind):
    rng = np.random.default_rng(seed)
    words = 6
    table: Any = rng.standard_normal((words, words)) * 2
    if "ties" in kind:
        table = np.round(table / 2)
    table = renormalize(table, table.astype(np.float32))
    if "holes" in kind:
        table[rng.random(table.shape) < 0.4] = -np.inf
    if kind == "hopeless":
        table[:, 1:] = -np.inf
    prompts = rng.integers(0, words, (int(rng.integers(1, 4)), 2)).astype(np.int32)
    given_options = {
        "num_beams": beams, "length_penalty": penalty, "early_stopping": stopping, "num_return_sequences": beams,
        "max_new_tokens": steps, "eos_token_id": ends, "pad_token_id": 3,
    }  # fmt: skip
    options = Options.of({}, given_options)
    search = BeamSearch(prompts, options, 2 + steps, words)
    while not search.is_done:
        search.step(table[search.tokens[:, -1]])
    found = search.found()
    wanted = [each for own in restated(prompts, options, lambda ids: table[ids[:, -1]], 2 + steps) for each in own]
    for row, (score, new) in enumerate(wanted):
        assert found.scores[row] == score
        assert found.tokens[row, 2 : 2 + len(new)].tolist() == new
        assert (found.tokens[row, 2 + len(new) :] == 3).all()
        assert (found.rows[row] >= 0).sum() == len(new)
    assert found.tokens.shape[1] == 2 + max(len(new) for _, new in wanted)


def _after(table: Any, ids: Any) -> Any:
    return table[ids[:, -1]]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 3.0, -1.0])
def test_enough_beams_find_the_best_of_all_texts(penalty):
    words, steps = 3, 4
    for seed in range(20):
        table = np.random.default_rng(seed).standard_normal((words, words)).astype(np.float32)
        table = renormalize(table, table)
        texts: dict[Any, Any] = {}
        for text in itertools.product(range(words), repeat=steps):
            new = text[: text.index(0) + 1] if 0 in text else text
            texts[new] = sum(table[a, b] for a, b in itertools.pairwise((2, *new))) / len(new) ** penalty
        options = Options(
            num_beams=81, length_penalty=penalty, early_stopping="never", max_new_tokens=steps, eos_token_id=(0,)
        )
        found, _ = searched(np.array([[2]]), options, partial(_after, table), words)
        best = max(texts, key=texts.__getitem__)
        if penalty < 0:  # a longer text may be better than the search assumes: see `early_stopping` in the reference
            assert found.scores[0] <= texts[best] + 1e-4
        else:
            assert found.tokens[0, 1 : 1 + len(best)].tolist() == list(best)
            np.testing.assert_allclose(found.scores[0], texts[best], rtol=1e-5)


def test_of_equal_scores_the_first_is_largest():
    rng = np.random.default_rng(0)
    for size, count in ((9, 9), (50, 7), (50, 50), (5, 1)):
        scores = rng.integers(0, 4, (3, size)).astype(np.float32)
        scores[1, 2:] = -np.inf
        wanted = [[place for _, place in sorted(zip(-row, range(size), strict=True))[:count]] for row in scores]
        assert largest(scores, count).tolist() == wanted


def test_several_draws_have_the_probabilities_of_draws_without_replacement():
    chances = np.array([0.5, 0.3, 0.15, 0.05])
    with np.errstate(divide="ignore"):
        scores = np.log(np.append(chances, 0)).astype(np.float32)
    numbers = Sampler(Options(seed=5), 1, Prompt(1, 9, np.zeros((1, 1))), 5).several(0, 20000, 2)
    seen = Counter(tuple(draw_several(scores, row).tolist()) for row in numbers)
    for first, second in itertools.permutations(range(4), 2):
        expected = chances[first] * chances[second] / (1 - chances[first])
        assert abs(seen[first, second] / 20000 - expected) < 4 * np.sqrt(expected / 20000), (first, second)
    assert sum(seen[pair] for pair in itertools.permutations(range(4), 2)) == 20000
    assert len(draw_several(scores, numbers[0])) == 2
    assert set(draw_several(scores, np.zeros(5, np.float32)).tolist()) == set(range(5))
    assert draw_several(scores, np.zeros(5, np.float32))[-1] == 4, "places without a chance follow the others"


def test_sampled_beams_follow_from_the_seed_and_the_prompt_alone():
    prompts = prompts_of_table(5)[:, :2]
    prompts = np.concatenate([prompts, prompts + 1]) % WORDS
    options = {"do_sample": True, "num_beams": 3, "eos_token_id": [1], "max_new_tokens": 9, "pad_token_id": 3}

    def found(prompts: Any, seed: int) -> Any:
        got, _ = searched(prompts, Options.of({}, {**options, "seed": seed}), lambda ids: scores_after(ids, 5), WORDS)
        return [row[row != 3].tolist() for row in got.tokens]

    both = found(prompts, 1)
    assert both == found(prompts, 1) != found(prompts, 2)
    assert both[0] == found(prompts[:1], 1)[0]
    assert len({tuple(found(prompts, seed)[0]) for seed in range(8)}) > 3


def test_a_stop_ends_a_text_like_an_end_token():
    options = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 8, "pad_token_id": 3}
    prompts = prompts_of_table(2)
    by_token, _ = searched(
        prompts, Options.of({}, {**options, "eos_token_id": [4]}), lambda ids: scores_after(ids, 2), WORDS
    )
    by_stop, _ = searched(
        prompts, Options.of({}, options), lambda ids: scores_after(ids, 2), WORDS, stops=lambda new: new[-1] == 4
    )
    assert (by_token.tokens == 4).any()
    np.testing.assert_array_equal(by_token.tokens, by_stop.tokens)


def test_the_last_step_ends_all_texts():
    options = Options(num_beams=3, num_return_sequences=2, max_new_tokens=9)
    search = BeamSearch(np.array([[1, 2]]), options, 11, WORDS)
    search.step(renormalize(search.tokens, scores_after(search.tokens, 1)))
    search.step(renormalize(search.tokens, scores_after(search.tokens, 1)), is_last=True)
    assert search.is_done and search.found().tokens.shape == (2, 4)


def test_scores_that_allow_no_choice_are_refused():
    options = Options(num_beams=2, max_new_tokens=3)
    wrong = np.zeros((2, WORDS), np.float32)
    wrong[1, 3] = np.nan
    with pytest.raises(TensorCommonsError, match="NaN"):
        BeamSearch(np.array([[1]]), options, 4, WORDS).step(wrong)
    drawn = Options(num_beams=2, max_new_tokens=3, do_sample=True)
    search = BeamSearch(np.array([[1]]), drawn, 4, WORDS, numbers=lambda *_: np.zeros((1, 4), np.float32))
    with pytest.raises(TensorCommonsError, match="exclude every token"):
        search.step(np.full((2, WORDS), -np.inf, np.float32))
    with pytest.raises(TensorCommonsError, match="vocabulary of 4"):
        BeamSearch(np.array([[1]]), Options(num_beams=2, eos_token_id=(0, 1, 2)), 4, 3)


def test_extreme_penalties_give_numbers():
    """With a large negative one every text is worse than none, as in the reference."""
    for penalty, width in ((1e4, 7), (-1e4, 2)):
        options = Options(num_beams=2, num_return_sequences=2, length_penalty=penalty, max_new_tokens=5)
        found, _ = searched(np.array([[1, 2]]), options, lambda ids: scores_after(ids, 1), WORDS)
        assert not np.isnan(found.scores).any() and found.tokens.shape == (2, width)


@shows("any decoder", "candidates of prompt lookup", "lookup.json")
def test_candidates_are_those_of_the_reference():
    cases = json.loads((ROOT / "tests" / "goldens" / "lookup.json").read_text())["lookups"]
    for case in cases:
        ids = np.array(case["ids"])
        count = (
            case["prompt_lookup_num_tokens"] if case["longest"] > len(ids) + 1 else 0
        )  # the last token is not drafted
        found = candidates(ids, count, case["ends"], case["max_matching_ngram_size"])
        assert found.tolist() == case["candidates"], case
    assert sum(bool(case["candidates"]) for case in cases) > 50
