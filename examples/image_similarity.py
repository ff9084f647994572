"""Compare pictures by the cosines of DINOv2 features.

    await main("facebook/dinov2-small", pictures)

``pictures`` are arrays (height, width, 3) of 0 to 255, all of one size that is a multiple of the model's patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tensorcommons as tc

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet, as in training


async def main(
    model: str | Mapping[str, bytes], pictures: Sequence[Any], devices: tc.Devices | None = None
) -> np.ndarray[Any, Any]:
    """Return the cosines (pictures, pictures) between the features of the [CLS] token."""
    manager = tc.TensorSharingManager(max_memory_mb=512, devices=devices or await tc.open_devices())
    loaded = await tc.from_pretrained(model, manager=manager, tokenizer=False)
    pixels = (np.stack(pictures) / 255 - MEAN) / STD
    out = await loaded(pixel_values=np.moveaxis(pixels, 3, 1).astype(np.float32), outputs=["last_hidden_state"])
    features = (await out["last_hidden_state"].read())[:, 0]
    loaded.unload()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines: np.ndarray[Any, Any] = unit @ unit.T
    print(cosines.round(2))
    return cosines
