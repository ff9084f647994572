"""Buckets of relative positions: one for each short distance, and logarithmic ranges for longer distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def buckets(
    queries: int, keys: int, count: int = 32, max_distance: int = 128, *, bidirectional: bool = True, first: int = 0
) -> np.ndarray[Any, Any]:
    """Return the bucket of each (query, key), int32 (queries, keys): 0 to ``count`` - 1. Query 0 is at ``first``.

    If ``bidirectional``, each direction has half of the buckets; else all keys after a query are in bucket 0. Distances
    from ``max_distance`` share the last bucket (Raffel et al., 2020, https://arxiv.org/abs/1910.10683).
    """
    distance = np.arange(first, first + queries)[:, None] - np.arange(keys)[None]  # positive for earlier keys
    result = np.zeros((queries, keys), np.int32)
    if bidirectional:
        count //= 2
        result += (distance < 0) * np.int32(count)
        distance = np.abs(distance)
    else:
        distance = np.maximum(distance, 0)
    exact = count // 2
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / math.log(max_distance / exact)
    far = np.minimum(exact + (ratio * (count - exact)).astype(np.int32), count - 1)
    result += np.where(distance < exact, distance, far).astype(np.int32)
    return result
