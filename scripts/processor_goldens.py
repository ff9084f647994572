"""Pixel values as the image processors of `transformers` make them, for fields in many forms.

    python -m scripts.processor_goldens

Needs `transformers`, `pillow` and `numpy`, in an environment of their own; the answers are committed, as
tests/goldens/processors.json and processors.npz.
"""

from __future__ import annotations

import importlib
import json
import random
import warnings
from typing import Any

import numpy as np

from scripts.paths import ROOT

GOLDENS = ROOT / "tests" / "goldens"
SHAPES = ((21, 34), (40, 13), (1, 9))
#: Field: values that it may have; the class decides which of them it accepts.
FIELDS: dict[str, list[Any]] = {
    "size": [
        14,
        [12, 15],
        {"height": 15, "width": 11},
        {"shortest_edge": 13},
        {"shortest_edge": 13, "longest_edge": 17},
        {"max_height": 14, "max_width": 16},
    ],
    "crop_size": [10, [9, 12], {"height": 16, "width": 11}, None],
    "resample": [0, 1, 2, 3, 4, 5],
    "do_resize": [True, False, None],
    "do_center_crop": [True, False, None],
    "do_rescale": [True, False],
    "rescale_factor": [1 / 255, 1 / 127.5],
    "do_normalize": [True, False, None],
    "image_mean": [0.5, [0.1, 0.2, 0.3]],
    "image_std": [0.25, [0.1, 0.2, 0.3]],
    "do_pad": [True, False],
    "pad_size": [{"height": 48, "width": 40}, 60],
    "crop_pct": [0.9, 1.0],
    "do_convert_rgb": [True, False],
}
KINDS = ("ViT", "DeiT", "Bit", "CLIP", "Siglip", "Beit", "ConvNext")
EACH = 9  # configs of a class


def picture(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image of random pixels."""
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def main() -> None:
    """Write the goldens."""
    transformers = importlib.import_module("transformers")
    images = importlib.import_module("PIL.Image")
    rng = random.Random(5)  # noqa: S311 - the same configs each time
    configs: list[dict[str, Any]] = []
    arrays = {}
    for kind in KINDS:
        made = 0
        while made < EACH:
            fields = {name: rng.choice(values) for name, values in FIELDS.items() if rng.random() < 0.4}
            fields.setdefault("size", 14 if kind != "ConvNext" else {"shortest_edge": 13})
            fields.setdefault("crop_size", 10)
            if fields.get("do_pad") and "pad_size" not in fields:
                continue
            shape = SHAPES[made % len(SHAPES)]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**fields)
                    values = processor(images.fromarray(picture(*shape)), return_tensors="np")["pixel_values"][0]
            except (ValueError, TypeError, AttributeError):  # what the class refuses
                continue
            arrays[f"{len(configs)}"] = np.asarray(values, np.float32)
            configs.append({"image_processor_type": f"{kind}ImageProcessor", **fields, "_shape": shape})
            made += 1
    (GOLDENS / "processors.json").write_text(
        "[\n" + ",\n".join(json.dumps(config, sort_keys=True) for config in configs) + "\n]\n"
    )
    save: Any = np.savez_compressed
    save(GOLDENS / "processors.npz", **arrays)


if __name__ == "__main__":
    main()
