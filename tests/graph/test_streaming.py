"""Choice of the weights that stay on the device between runs of a model larger than its limit."""

from __future__ import annotations

import pytest

from tensorcommons.graph.streaming import residents_of


@pytest.mark.parametrize(("room", "stay"), [(60, 0), (61, 1), (99, 39), (100, 40)])
def test_a_run_moves_the_weights_that_do_not_fit_beside_two_parts(room: int, stay: int) -> None:
    found = residents_of([[number] for number in range(100)], dict.fromkeys(range(100), 1), [room - 58] * 100)
    assert (len(found.weights), found.moved, found.alone) == (stay, 100 - stay, frozenset())


def test_a_weight_with_two_uses_stays_first() -> None:
    turns = [[0], *[[number] for number in range(1, 20)], [0]]
    found = residents_of(turns, dict.fromkeys(range(20), 10), [60] * 21)
    assert 0 in found.weights and found.moved == 200 - 10 * len(found.weights)


def test_a_large_weight_stays_rather_than_several_smaller_ones_before_it() -> None:
    turns = [[0], *[[number] for number in range(1, 31)]]
    sizes = {0: 90, **dict.fromkeys(range(1, 31), 10)}
    found = residents_of(turns, sizes, [120] * 31)
    assert 0 in found.weights and found.moved == 290
    late = residents_of(turns, sizes, [105] * 31)  # no room for two more: the next one is fetched late
    assert late.weights == {0} and late.moved == 300 and len(late.alone) == 29


def test_a_weight_that_does_not_fit_does_not_stay() -> None:
    found = residents_of([[0], [1]], {0: 10, 1: 10}, [10, 10])
    assert found.weights == frozenset() and found.alone == {0} and found.moved == 20
