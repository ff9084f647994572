"""Numbers and blocks of block formats, of which ``scripts/format_goldens.py`` makes golden values."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

BYTES = {"q8_0": 34}  # of a block, by format


def numbers() -> dict[str, Any]:
    """Float32 numbers to quantize, whole blocks of 32, by what is special about them."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(64, 256)).astype(np.float32)
    halves = rng.integers(-254, 255, (16, 64)).astype(np.float32) / 2
    halves[:, ::32] = 127  # a scale of 1, so that every second number is a tie
    return {
        "normal": normal,
        "large": normal * np.float32(1e6),
        "scales that are subnormal": normal * np.float32(1e-4),
        "below the scales of float16": normal * np.float32(1e-30),
        "zeros": np.zeros((2, 32), np.float32),
        "ties": halves,
        "float16": normal.astype(np.float16).astype(np.float32),
        "one of each block": np.eye(32, dtype=np.float32) * -3,
    }


def blocks(name: str) -> Any:
    """Blocks of random bits whose scales are finite."""
    raw = np.random.default_rng(1).integers(0, 256, (4096, BYTES[name]), np.uint8)
    return raw[np.isfinite(raw[:, :2].copy().view(np.float16)[:, 0])]


def digest(array: Any) -> str:
    """SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
