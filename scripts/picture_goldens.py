"""Make ``tests/goldens/pictures.json``: small image files of every mode, and their pixels in `transformers`.

    python -m scripts.picture_goldens            write the file
    python -m scripts.picture_goldens --check    compute everything again and compare with the committed file

Needs `pillow` and `numpy`. `transformers` reads a file with ``exif_transpose`` and ``convert("RGB")``.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
from typing import Any

import numpy as np

from scripts.goldens import Goldens

HEIGHT, WIDTH = 6, 5


def files() -> dict[str, bytes]:
    """Make the files, by name."""
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
    profile = bytearray(cms.ImageCmsProfile(cms.createProfile("LAB")).tobytes())
    profile[24:36] = bytes(12)  # the date
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
        "profile.png": saved("PNG", rgb, icc_profile=bytes(profile)),
        "animated.gif": saved("GIF", palette, save_all=True, append_images=[palette.transpose(0)], transparency=1),
        "turned.jpeg": saved("JPEG", rgb, exif=orientation, quality=90),
        "cmyk.jpeg": saved("JPEG", rgb.convert("CMYK"), quality=90),
        "grey.jpeg": saved("JPEG", picture.convert("L"), quality=90),
        "bitmap.bmp": saved("BMP", rgb),
        "deep.tiff": saved("TIFF", deep),
    }


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    image, ops = (importlib.import_module(f"PIL.{name}") for name in ("Image", "ImageOps"))
    table = {}
    for name, data in files().items():
        pixels = np.array(ops.exif_transpose(image.open(io.BytesIO(data))).convert("RGB"))
        table[name] = {
            "file": base64.b64encode(data).decode(),
            "shape": pixels.shape[:2],
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
        }
    made.data("pictures.json", (json.dumps(table, indent=1) + "\n").encode())
    return made.report()


if __name__ == "__main__":
    raise SystemExit(main())
