"""Memory plans: live values never overlap, and the arena is little larger than the largest live set."""

import random

from hypothesis import given
from hypothesis import strategies as st

from tensorcommons.graph.arena import ALIGNMENT, Life, lower_bound, pack

lives_of = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 20), st.integers(0, 8)).map(
        lambda t: Life(t[0] * ALIGNMENT, t[1], t[1] + t[2])
    ),
    max_size=40,
)


@given(lives_of, st.integers(0, 4))
def test_live_values_never_overlap(lives: list[Life], reserved: int) -> None:
    start = reserved * ALIGNMENT
    end = pack(lives, start)
    for i, a in enumerate(lives):
        assert a.offset >= start and a.offset % ALIGNMENT == 0 and a.offset + a.nbytes <= end
        for b in lives[:i]:
            alive_together = a.first <= b.last and b.first <= a.last
            apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
            assert apart or not alive_together


@given(lives_of)
def test_the_arena_is_between_the_largest_live_set_and_the_sum(lives: list[Life]) -> None:
    end = pack(lives)
    assert lower_bound(lives) <= end <= sum(life.nbytes for life in lives)


def test_a_chain_takes_two_buffers() -> None:
    lives = [Life(ALIGNMENT * 4, step, step + 1) for step in range(50)]
    random.Random(0).shuffle(lives)
    assert pack(lives) == lower_bound(lives) == ALIGNMENT * 8
