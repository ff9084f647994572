"""The sample pictures of the page, drawn from formulas: a red ball on a meadow, one on sand, and a boat at sea."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from scripts import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Picture = NDArray[np.float64]  # (height, width, 3), from 0 to 1

HEIGHT, WIDTH = 360, 480
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)


def _grain(seed: int, size: int) -> Picture:
    """Return noise of squares of ``size`` pixels, from -1 to 1, smoothed."""
    rows, columns = HEIGHT // size + 2, WIDTH // size + 2
    points = np.random.default_rng(seed).uniform(-1, 1, (rows, columns))
    y, x = Y / size, X / size
    top, left = y.astype(int), x.astype(int)
    dy, dx = (part * part * (3 - 2 * part) for part in (y - top, x - left))
    upper = points[top, left] * (1 - dx) + points[top, left + 1] * dx
    lower = points[top + 1, left] * (1 - dx) + points[top + 1, left + 1] * dx
    return np.asarray((upper * (1 - dy) + lower * dy)[..., None])


def _sky(low: tuple[float, ...], high: tuple[float, ...]) -> Picture:
    share = (Y / HEIGHT)[..., None]
    return np.asarray(np.array(high) * (1 - share) + np.array(low) * share)


def _ground(above: Picture, horizon: float, colour: tuple[float, ...], seed: int, rough: float) -> Picture:
    noise = 0.5 * _grain(seed, 4) + 0.3 * _grain(seed + 1, 17) + 0.2 * _grain(seed + 2, 60)
    below = np.array(colour) * (0.85 + 0.35 * ((Y - horizon) / (HEIGHT - horizon))[..., None] + rough * noise)
    return np.where((horizon + 6 * np.sin(X / 70) < Y)[..., None], below, above)


def _ball(picture: Picture, x: float, y: float, radius: float, colour: tuple[float, ...]) -> Picture:
    shadow = np.exp(-(((X - x - 0.3 * radius) / (1.2 * radius)) ** 2 + ((Y - y - radius) / (0.28 * radius)) ** 2))
    picture = picture * (1 - 0.55 * shadow[..., None])
    u, v = (X - x) / radius, (Y - y) / radius
    depth = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    light = np.clip(-0.5 * u - 0.6 * v + 0.65 * depth, 0, 1)[..., None]
    body = np.array(colour) * (0.25 + 0.85 * light) + 0.6 * light**24
    edge = np.clip((1 - np.sqrt(u * u + v * v)) * radius, 0, 1)[..., None]
    return np.asarray(picture * (1 - edge) + body * edge)


def _boat(picture: Picture) -> Picture:
    hull = (Y > 218) & (Y < 250) & (np.abs(X - 250) < 80 - 1.1 * (Y - 218))
    sail = (Y > 90) & (Y < 208) & (X > 256) & (X < 256 + 0.62 * (Y - 90))
    other = (Y > 110) & (Y < 208) & (X < 246) & (X > 246 - 0.42 * (Y - 110))
    mast = (Y > 78) & (Y < 220) & (np.abs(X - 251) < 2.5)
    for shape, colour in (
        (mast, (0.3, 0.2, 0.1)),
        (sail, (0.97, 0.95, 0.9)),
        (other, (0.85, 0.3, 0.2)),
        (hull, (0.35, 0.18, 0.1)),
    ):
        shade = 1 - 0.15 * (X - 180) / 150
        picture = np.where(shape[..., None], np.array(colour) * shade[..., None], picture)
    return picture


def _meadow() -> Picture:
    return _ball(
        _ground(_sky((0.8, 0.9, 1), (0.35, 0.6, 0.95)), 150, (0.3, 0.55, 0.2), 1, 0.5), 300, 240, 58, (0.85, 0.1, 0.1)
    )


def _sand() -> Picture:
    return _ball(
        _ground(_sky((0.95, 0.92, 0.85), (0.55, 0.75, 0.9)), 120, (0.85, 0.74, 0.5), 5, 0.18),
        160,
        230,
        66,
        (0.8, 0.12, 0.1),
    )


def _sea() -> Picture:
    water = _ground(_sky((1, 0.75, 0.5), (0.45, 0.5, 0.75)), 215, (0.12, 0.3, 0.42), 9, 0.25)
    waves = 0.05 * np.sin(Y * 1.3 + 3 * np.sin(X / 25))[..., None] * (Y > 222)[..., None]
    return _boat(water + waves)


PICTURES: dict[str, Callable[[], Picture]] = {
    "ball-on-a-meadow.png": _meadow,
    "ball-on-sand.png": _sand,
    "boat-at-sea.png": _sea,
}


def sample_pictures() -> list[Path]:
    """Update dist/samples; gives its pictures."""
    folder = paths.DIST / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, draw in PICTURES.items():
        path, data = folder / name, png(np.rint(255 * draw().clip(0, 1)).astype(np.uint8))
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)
        made.append(path)
    return made


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels (height, width, 3). https://www.w3.org/TR/png-3/"""
    height, width = pixels.shape[:2]
    above = np.pad(pixels, [(1, 0), (0, 0), (0, 0)])[:-1]
    lines = np.pad((pixels - above).reshape(height, -1), [(0, 0), (1, 0)], constant_values=2)  # the filter "up"

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
