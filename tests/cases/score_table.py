"""Random scores of tokens by the two tokens before them: a model without weights, for searches with few words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

WORDS = 14


@lru_cache(8)
def _table(seed: int) -> Any:
    rng = np.random.default_rng([seed, 1])
    spread = rng.choice([0.3, 1.0, 2.5])
    return (rng.standard_normal((WORDS, WORDS, WORDS)) * spread).astype(np.float32)


def scores_after(ids: Any, seed: int) -> Any:
    """Return the scores (rows, words) float32 of the tokens after ``ids`` (rows, 2 or more)."""
    return _table(seed)[ids[:, -2], ids[:, -1]]


def prompts_of_table(seed: int) -> Any:
    """Return prompts of one to three rows, (rows, 2 or more) int32."""
    rng = np.random.default_rng([seed, 2])
    return rng.integers(0, WORDS, (int(rng.integers(1, 4)), int(rng.integers(2, 5)))).astype(np.int32)
