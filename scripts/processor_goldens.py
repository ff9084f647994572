"""Make ``tests/goldens/processors.json`` and ``.npz``: pixel values of the image processors of `transformers`.

    python -m scripts.processor_goldens            write the files
    python -m scripts.processor_goldens --check    compute everything again and compare with the committed files

Needs `transformers`, `pillow` and `numpy`. The fields of the processors have values of every accepted form.
"""

from __future__ import annotations

import importlib
import json
import random
import warnings
from typing import Any

import numpy as np

from scripts.goldens import Goldens

SHAPES = ((21, 34), (40, 13), (1, 9))
#: Field: possible values, of which each class accepts some.
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
EACH = 9  # configs per class


def picture(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Make an image of random pixels."""
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    transformers = importlib.import_module("transformers")
    images = importlib.import_module("PIL.Image")
    rng = random.Random(5)  # noqa: S311 - the same configs each time
    configs: list[dict[str, Any]] = []
    arrays = {}
    for kind in KINDS:
        count = 0
        while count < EACH:
            fields = {name: rng.choice(values) for name, values in FIELDS.items() if rng.random() < 0.4}
            fields.setdefault("size", 14 if kind != "ConvNext" else {"shortest_edge": 13})
            fields.setdefault("crop_size", 10)
            if fields.get("do_pad") and "pad_size" not in fields:
                continue
            shape = SHAPES[count % len(SHAPES)]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**fields)
                    values = processor(images.fromarray(picture(*shape)), return_tensors="np")["pixel_values"][0]
            except (ValueError, TypeError, AttributeError):  # refused by the class
                continue
            arrays[f"{len(configs)}"] = np.asarray(values, np.float32)
            configs.append({"image_processor_type": f"{kind}ImageProcessor", **fields, "_shape": shape})
            count += 1
    lines = ",\n".join(json.dumps(config, sort_keys=True) for config in configs)
    made.data("processors.json", f"[\n{lines}\n]\n".encode())
    made.arrays("processors.npz", arrays)
    return made.report()


if __name__ == "__main__":
    raise SystemExit(main())
