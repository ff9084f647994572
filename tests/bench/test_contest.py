"""The contest of the benchmarks: alternating samples, results that must agree, reported failures."""

from __future__ import annotations

import numpy as np
import pytest

from bench.contest import Rules, cosine, measure
from bench.workloads import Work

RULES = Rules(rounds=4, cap_s=1000)


class Fake:
    """A contestant that takes ``ms`` per sample and returns ``value``."""

    version = "1"
    device = "webgpu"

    def __init__(self, name, diary, ms=1.0, value=(1.0, 2.0), fails_at=None):
        self.name, self._diary, self._ms, self._value, self._fails_at = name, diary, ms, value, fails_at
        self._samples = 0
        self.extra = {"of": name}

    def device_bytes(self):
        return 0

    async def prepare(self, work):
        if self._fails_at == "prepare":
            raise RuntimeError("no such device\n  at line 1")
        return self

    async def sample(self):
        self._samples += 1
        self._diary.append(self.name)
        if self._samples == self._fails_at:
            raise RuntimeError("device lost")
        return self._ms

    def result(self):
        return np.array(self._value, np.float32)

    async def close(self):
        self._diary.append(f"{self.name} closed")


def work(**rest):
    return Work("group", "work", "kind", {}, {}, None, (), **rest)


async def test_contestants_alternate_in_a_changing_order():
    diary: list[str] = []
    await measure([Fake("a", diary), Fake("b", diary)], work(), RULES, {})
    assert diary == ["a", "b", *"ab", *"ba", *"ab", *"ba", "a closed", "b closed"]


async def test_each_contestant_warms_up_before_it_is_timed():
    diary: list[str] = []
    figure = await measure([Fake("a", diary, ms=2)], work(), Rules(2, cap_s=1000, warm_ms=3), {})
    assert diary == ["a", *"aaa", *"aaa", "a closed"]
    assert figure.rows[0].samples_ms == [2, 2]


async def test_a_slow_contestant_stops_at_its_cap_with_at_least_two_samples():
    figure = await measure([Fake("slow", [], ms=900), Fake("quick", [])], work(), Rules(5, cap_s=1), {})
    assert [len(row.samples_ms) for row in figure.rows] == [2, 5]


async def test_a_differing_result_is_disqualified():
    figure = await measure([Fake("a", []), Fake("b", [], value=(2.0, -1.0))], work(), RULES, {})
    good, bad = figure.rows
    assert good.samples_ms and not bad.samples_ms and "cosine 0.000000" in bad.error


async def test_tokens_must_be_equal():
    contestants = [Fake("a", [], value=(7.0, 40000.0)), Fake("b", [], value=(7.0, 40001.0))]
    good, bad = (await measure(contestants, work(equal=True), RULES, {})).rows
    assert good.samples_ms and not bad.samples_ms and "from number 1 of 2 on" in bad.error
    assert (await measure(contestants, work(), RULES, {})).rows[1].samples_ms  # which a cosine does not detect


async def test_tokens_of_rows_are_compared_with_the_same_ones_in_a_line():
    contestants = [Fake("a", [], value=((7.0, 40000.0),)), Fake("b", [], value=(7.0, 40000.0))]
    contestants.append(Fake("c", [], value=(7.0, 40001.0)))
    rows = (await measure(contestants, work(equal=True), RULES, {})).rows
    assert [bool(row.samples_ms) for row in rows] == [True, True, False]
    rows = (await measure(contestants, work(equal=True, leading=1), RULES, {})).rows
    assert [row.extra["tokens equal"] for row in rows] == ["2 of 2", "2 of 2", "1 of 2"]


async def test_results_are_compared_with_the_exact_one_where_it_is_known():
    figure = await measure([Fake("a", [])], work(exact=lambda: np.array([1.0, -1.0])), RULES, {})
    assert "not the expected one" in figure.rows[0].error


async def test_failures_are_reported_and_the_others_continue():
    contestants = [Fake("a", [], fails_at="prepare"), Fake("b", [], fails_at=3), Fake("c", [])]
    figure = await measure(contestants, work(), RULES, {})
    assert [row.error for row in figure.rows] == [
        "RuntimeError: no such device at line 1",
        "RuntimeError: device lost",
        "",
    ]
    assert [len(row.samples_ms) for row in figure.rows] == [0, 1, 4]


async def test_a_run_that_would_take_too_long_is_skipped_with_the_reason():
    paces: dict[str, float] = {}
    rules = Rules(2, cap_s=1, patience_s=60)
    await measure([Fake("a", [], ms=10_000)], work(scale=1.0), rules, paces)
    figure = await measure([Fake("a", [], ms=80_000)], work(scale=8.0), rules, paces)
    assert figure.rows[0].error == "not run: at the pace of the work before, one run would take 80 s"


async def test_without_patience_the_first_run_is_the_only_sample():
    figure = await measure([Fake("a", [], ms=200_000)], work(), RULES, {})
    assert figure.rows[0].samples_ms == [200_000] and "only the first run" in figure.rows[0].error


@pytest.mark.parametrize("other", [[1.0], [float("nan"), 1.0]])
def test_the_cosine_of_incomparable_results_is_nan(other):
    assert np.isnan(cosine(np.array([1.0, 2.0]), np.array(other)))
