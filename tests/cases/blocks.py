"""Numbers and blocks of block formats, of which ``scripts/format_goldens.py`` makes golden values."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

BYTES = {  # of a block, by format, and the offsets of its float16 scales
    "q4_0": (18, 0),
    "q4_1": (20, 0, 2),
    "q5_0": (22, 0),
    "q5_1": (24, 0, 2),
    "q8_0": (34, 0),
    "q2_k": (84, 80, 82),
    "q3_k": (110, 108),
    "q4_k": (144, 0, 2),
    "q5_k": (176, 0, 2),
    "q6_k": (210, 208),
    "iq4_nl": (18, 0),
}
LARGE = {"q4_0": 1e4, "q8_0": 1e6}  # formats to which numbers are quantised, with a factor of large ones


def numbers(name: str) -> dict[str, Any]:
    """Float32 numbers to quantize, whole blocks of 32, by what is special about them."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(64, 256)).astype(np.float32)
    halves = rng.integers(-254, 255, (16, 64)).astype(np.float32) / 2
    halves[:, ::32] = 127  # a scale of 1, so that every second number is a tie
    return {
        "normal": normal,
        "large": normal * np.float32(LARGE[name]),
        "scales that are subnormal": normal * np.float32(1e-4),
        "below the scales of float16": normal * np.float32(1e-30),
        "zeros": np.zeros((2, 32), np.float32),
        "ties": halves,
        "float16": normal.astype(np.float16).astype(np.float32),
        "one of each block": np.eye(32, dtype=np.float32) * -3,
    }


def any_blocks(name: str) -> Any:
    """Blocks of random bits."""
    return np.random.default_rng(1).integers(0, 256, (4096, BYTES[name][0]), np.uint8)


def blocks(name: str) -> Any:
    """Blocks of random bits whose scales are finite."""
    raw = any_blocks(name)
    scales = [raw[:, at : at + 2].copy().view(np.float16)[:, 0] for at in BYTES[name][1:]]
    return raw[np.isfinite(scales).all(axis=0)]


def without_payloads(array: Any) -> Any:
    """Replace every NaN by one: the bits of a NaN depend on the processor."""
    return np.where(np.isnan(array), np.float32(np.nan), array)


def digest(array: Any) -> str:
    """SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
