"""Choices of tokens on a device: the most likely one, and samples after temperature, top-k, top-p and min-p."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.ops.choosing import (
    LIKELIEST,
    NOT_A_NUMBER,
    PENALTY,
    SAMPLE,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    softmax,
    temper,
)
from tensorcommons.ops.registry import apply
from tests.cases import only
from tests.cases.support import on

SIZES = (1, 3, 255, 256, 257, 49152)
SETTINGS = (  # temperature, top_k, top_p, min_p
    (1.0, 0, 1.0, 0.0),
    (0.8, 50, 0.95, 0.0),
    (1.0, 1, 1.0, 0.0),
    (1.0, 10**6, 0.5, 0.0),
    (1.0, 2000, 0.9, 0.0),
    (0.7, 0, 0.999, 0.0),
    (1.0, 0, 0.0, 0.0),
    (1.0, 0, 1e-6, 0.0),
    (1.0, 0, 1.0, 0.1),
    (2.0, 40, 0.9, 0.05),
    (0.01, 50, 0.95, 0.0),
    (100.0, 0, 0.5, 0.0),
    (100.0, 300, 0.95, 0.0),
)
NEAR = 1e-5  # of a cumulative probability


def _filtered(scores: Any, settings: Any) -> Any:
    temperature, top_k, top_p, min_p = settings
    scores = temper(scores, temperature)
    if top_k > 0:
        scores = keep_top_k(scores, int(top_k))
    if top_p < 1:
        scores = keep_top_p(scores, top_p)
    return keep_min_p(scores, min_p)


def _may_be(token: int, scores: Any, settings: Any, number: float) -> bool:
    """Return whether ``token`` is drawn by a number near ``number``, or by a top-p near that of ``settings``."""
    temperature, top_k, top_p, min_p = settings
    for part in (top_p, top_p - 1e-6, top_p + 1e-6) if 0 < top_p < 1 else (top_p,):
        weights = softmax(_filtered(scores[None], (temperature, top_k, part, min_p))[0]).astype(np.float64)
        ends = np.cumsum(weights) / weights.sum()
        begin = ends[token] - weights[token]
        if weights[token] > 0 and begin - NEAR <= number <= ends[token] + NEAR:
            return True
    return False


async def _samples(device: Device, scores: Any, settings: Any, numbers: Any) -> Any:
    table = np.column_stack([np.tile(np.array(settings, np.float32), (len(scores), 1)), numbers]).astype(np.float32)
    x, given = on(device, scores, table)
    return (await apply(SAMPLE, x, given).read())[:, 0]


async def _agrees(device: Device, scores: Any, settings: Any, numbers: Any) -> float:
    """Draw one token of each row on ``device``, and compare it with the host's. Return the share of others."""
    wanted = SAMPLE.reference(scores, np.column_stack([np.tile(np.float32(settings), (len(scores), 1)), numbers]))[:, 0]
    got = await _samples(device, scores, settings, numbers)
    for row in np.flatnonzero(got != wanted):
        assert _may_be(got[row], scores[row].astype(np.float32), settings, float(numbers[row])), (
            f"{scores.shape} {settings} row {row}: {got[row]} instead of {wanted[row]} for {numbers[row]}"
        )
    return float((got != wanted).mean())


def _numbers(rng: np.random.Generator, count: int) -> Any:
    return (rng.integers(2**24, size=count) / 2**24).astype(np.float32)


@only("cpu", "webgpu")
async def samples_are_those_of_the_host(device: Device) -> None:
    rng = np.random.default_rng(7)
    others = []
    for size in SIZES:
        scores = (3 * rng.standard_normal((3, size))).astype(np.float32)
        others += [await _agrees(device, scores, settings, _numbers(rng, 3)) for settings in SETTINGS]
    assert np.mean(others) < 0.02, np.mean(others)


@only("cpu", "webgpu")
async def samples_of_equal_and_excluded_scores(device: Device) -> None:
    """Draw among ties, of which top-p keeps the last ones, and where all scores but one are minus infinity."""
    rng, others = np.random.default_rng(8), []
    for size in (3, 257, 5000):
        ties = rng.integers(-3, 3, (4, size)).astype(np.float32)
        same = np.full((4, size), -2.5, np.float32)
        alone = np.full((4, size), -np.inf, np.float32)
        alone[np.arange(4), rng.integers(size, size=4)] = 1e4
        spread = (1e30 * rng.standard_normal((4, size))).astype(np.float32)
        for scores in (ties, same, alone, spread, ties.astype(np.float16)):
            some = (*SETTINGS[:6], SETTINGS[9])
            others += [await _agrees(device, scores, settings, _numbers(rng, 4)) for settings in some]
    assert np.mean(others) < 0.05, np.mean(others)


@only("cpu", "webgpu")
async def scores_that_are_no_numbers(device: Device) -> None:
    scores = np.random.default_rng(9).standard_normal((5, 300)).astype(np.float32)
    scores[1, 299], scores[2, 7], scores[3] = np.nan, np.inf, -np.inf
    got = await _samples(device, scores, (1.0, 50, 0.9, 0.0), np.full(5, 0.5))
    assert (got == NOT_A_NUMBER).tolist() == [False, True, True, True, False]
    (x,) = on(device, scores)
    wanted = [[int(row.argmax())] for row in scores]
    wanted[1] = [NOT_A_NUMBER]
    assert (await apply(LIKELIEST, x).read()).tolist() == wanted


@only("cpu", "webgpu")
async def the_likeliest_token_is_the_first_maximum(device: Device) -> None:
    rng = np.random.default_rng(10)
    for size in (*SIZES, 5001):
        for scores in (rng.standard_normal((3, size)), rng.integers(0, 4, (2, size)), np.zeros((1, size))):
            for dtype in (np.float32, np.float16):
                a = scores.astype(dtype)
                (x,) = on(device, a)
                token = await apply(LIKELIEST, x).read()
                np.testing.assert_array_equal(token, a.argmax(1)[:, None])


@only("cpu", "webgpu")
async def samples_have_the_probabilities_of_the_scores(device: Device) -> None:
    """Draw many tokens and compare their counts with the probabilities: chi-square within five standard deviations."""
    rng = np.random.default_rng(11)
    row, count = (1.5 * rng.standard_normal(40)).astype(np.float32), 4000
    settings = (0.9, 20, 0.95, 0.0)
    got = await _samples(device, np.tile(row, (count, 1)), settings, _numbers(rng, count))
    expected = count * softmax(_filtered(row[None], settings))[0].astype(np.float64)
    counts, kept = np.bincount(got, minlength=40), expected > 0
    assert not counts[~kept].any()
    chi = float(((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum())
    free = int(kept.sum()) - 1
    assert chi < free + 5 * (2 * free) ** 0.5, (chi, free)


@only("webgpu")
async def time_of_choices(device: Device) -> None:
    """Print microseconds a choice on hardware, for each of some settings, and check that the profile has them."""
    rng = np.random.default_rng(12)
    for size in (49152, 50257, 128256, 262144) if not device.is_software else (300,):
        (x,) = on(device, (3 * rng.standard_normal((1, size))).astype(np.float32))
        text = on(device, np.zeros((1, 1024), np.int32), *np.array([[0], [600]], np.int32), np.array([1.2], np.float32))
        calls = [lambda: apply(LIKELIEST, x), lambda: apply(PENALTY, x, *text)]  # noqa: B023 - called before the next
        for settings in SETTINGS[:7]:
            (given,) = on(device, np.array([[*settings, 0.3]], np.float32))
            calls.append(lambda given=given: apply(SAMPLE, x, given))  # type: ignore[misc] # noqa: B023
        times = [await _milliseconds(call) for call in calls]
        assert all(time > 0 for time in times)
        print(f"{size} tokens: likeliest, penalty, samples in us: {[round(1000 * time, 1) for time in times]}")


async def _milliseconds(call: Any) -> float:
    async with tc.profile() as profile:
        await call().read()
    (row,) = profile.rows
    return row.on_device or row.milliseconds or 0.0
