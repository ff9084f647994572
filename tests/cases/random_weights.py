"""Weights made from their names, and pictures from their sizes, equal on every machine, for goldens without committed
inputs.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np


def values_of(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return normal numbers, around 1 for weights of norms: ones and zeros would hide mistakes."""
    values = np.asarray(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape))
    if len(shape) == 1 and name.endswith("weight"):
        return (1 + 0.1 * values).astype(np.float32)
    return np.asarray(values * (0.1 if len(shape) <= 1 else 0.3), np.float32)


def picture(height: int, width: int) -> np.ndarray[Any, Any]:
    """Return a uint8 picture (height, width, 3) of waves that become finer to the right, and sharp edges."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x * x / 90), np.sin(y * x / 200), np.cos((x + 2 * y) / 5)], -1)
    tiles = ((x // 7 + y // 5) % 2)[..., None] * np.array([60, 0, -50])
    return (128 + 60 * waves + tiles).clip(0, 255).astype(np.uint8)
