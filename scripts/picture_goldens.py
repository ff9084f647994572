"""Small image files of every mode, and the pixels that `transformers` has of them: tests/goldens/pictures.json.

    python -m scripts.picture_goldens

Needs `pillow` and `numpy`. What `transformers` does with a file is ``exif_transpose`` and ``convert("RGB")``.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
from typing import Any

import numpy as np

from scripts.paths import ROOT

HEIGHT, WIDTH = 6, 5


def files() -> dict[str, bytes]:
    """The files by name."""
    image = importlib.import_module("PIL.Image")
    cms = importlib.import_module("PIL.ImageCms")
    rng = np.random.default_rng(4)
    rgba = rng.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 1
    rgba[0, 0, :3] = 20, 0, 15
    picture = image.fromarray(rgba)
    palette = picture.convert("RGB").quantize(8)
    orientation = image.Exif()
    orientation[0x0112] = 6
    profile = cms.ImageCmsProfile(cms.createProfile("LAB")).tobytes()
    deep = image.fromarray(rng.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16))

    def saved(kind: str, shown: Any, **options: Any) -> bytes:
        file = io.BytesIO()
        shown.save(file, kind, **options)
        return file.getvalue()

    rgb = picture.convert("RGB")
    return {
        "transparent.png": saved("PNG", picture),
        "transparent.webp": saved("WEBP", picture, lossless=True, exact=True),
        "grey-transparent.png": saved("PNG", picture.convert("LA")),
        "grey.png": saved("PNG", picture.convert("L")),
        "one-bit.png": saved("PNG", picture.convert("1")),
        "sixteen-bit.png": saved("PNG", deep),
        "palette.png": saved("PNG", palette),
        "palette-transparent.png": saved("PNG", palette, transparency=bytes([0, 100, 255, 30])),
        "colour-key.png": saved("PNG", rgb, transparency=(20, 0, 15)),
        "profile.png": saved("PNG", rgb, icc_profile=profile),
        "animated.gif": saved("GIF", palette, save_all=True, append_images=[palette.transpose(0)], transparency=1),
        "turned.jpeg": saved("JPEG", rgb, exif=orientation, quality=90),
        "cmyk.jpeg": saved("JPEG", rgb.convert("CMYK"), quality=90),
        "grey.jpeg": saved("JPEG", picture.convert("L"), quality=90),
        "bitmap.bmp": saved("BMP", rgb),
        "deep.tiff": saved("TIFF", deep),
    }


def main() -> None:
    """Write the goldens."""
    image, ops = (importlib.import_module(f"PIL.{name}") for name in ("Image", "ImageOps"))
    made = {}
    for name, data in files().items():
        pixels = np.array(ops.exif_transpose(image.open(io.BytesIO(data))).convert("RGB"))
        made[name] = {
            "file": base64.b64encode(data).decode(),
            "shape": pixels.shape[:2],
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
        }
    (ROOT / "tests" / "goldens" / "pictures.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
