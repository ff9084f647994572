"""Pixels of encoded files, and of canvases and bitmaps through ``bridge/images.js``.

Files are decoded by Pillow, as `transformers` does it, and not by the browser: the same bytes then give the same pixels
in every engine, also under transparency, with colour profiles and in unusual modes. Pyodide distributes Pillow (1 MB);
it is loaded with the first such file.

A JPEG of one or three channels is the exception. Browsers decode it with libjpeg-turbo, as Pillow does elsewhere, to
the bit in Chromium; Pyodide's Pillow has another library, up to 9 of 255 levels off where colours are subsampled.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TensorCommonsError, shown
from .loader import load_js_module
from .packages import provide
from .runtime import IN_BROWSER

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FILE_PIXELS = 1 << 26  # of a file: 268 MB while it is decoded; a small file can state any number


async def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image to pixels (height, width, 3): its first frame, rotated by EXIF, ``convert("RGB")``.

    Raises:
        TensorCommonsError: Pillow cannot decode it, it has more than 67 million pixels, or there is no Pillow.
    """
    size = _jpeg_size(data) if IN_BROWSER else None
    if size is not None and size[0] * size[1] <= MAX_FILE_PIXELS:
        from pyodide.ffi import JsException, to_js

        helper = await load_js_module("images", "images.js")
        try:
            return np.ascontiguousarray(_array(await helper.decode(to_js(data)))[:, :, :3])
        except JsException:
            pass  # Pillow decodes it, or reports the fault
    if not await provide("pillow", "PIL"):
        how = 'await pyodide_js.loadPackage("pillow")' if IN_BROWSER else "pip install pillow"
        raise TensorCommonsError(f"image files need Pillow: {how}, or pass an array (height, width, 3)")
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of sizes, which are checked here
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height <= MAX_FILE_PIXELS:
                    return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # each of Pillow's fifty decoders has its own exceptions
        reason = shown(f"{type(error).__name__}: {error}")
        raise TensorCommonsError(f"{len(data):,} bytes are not an image that Pillow can decode ({reason})") from None
    raise TensorCommonsError(
        f"an image of {width:,} x {height:,} pixels is over the limit of {MAX_FILE_PIXELS:,} pixels"
    )


async def pixels(image: Any) -> NDArray[np.uint8]:
    """Return the pixels of a canvas, ImageData or ImageBitmap, (height, width, 4)."""
    helper = await load_js_module("images", "images.js")
    from pyodide.ffi import JsException

    try:
        found = helper.pixels(image)
    except JsException as error:
        raise TensorCommonsError(f"not an image that can be read: {error.message}") from None
    if not found:  # JavaScript's null
        raise TensorCommonsError("not an image: pass a canvas, ImageData or ImageBitmap with a width and a height")
    return _array(found)


def is_js(value: object) -> bool:
    """Return whether ``value`` is an object of JavaScript."""
    if not IN_BROWSER:
        return False
    from pyodide.ffi import JsProxy

    return isinstance(value, JsProxy)


def _array(found: Any) -> NDArray[np.uint8]:
    data = np.frombuffer(found.data.to_bytes(), np.uint8)
    return data.reshape(int(found.height), int(found.width), 4)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a whole JPEG of one or three channels; None for any other data.

    A segment is FF, its kind, its length in two bytes and so many bytes less two (ITU-T T.81, B.1.1). A frame has the
    kinds C0 to CF except three. A truncated file is left to Pillow, which refuses it.
    """
    if not data.startswith(b"\xff\xd8\xff") or not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            return (height, width) if data[at + 9] in (1, 3) and height and width else None
        at += 1 if kind == 0xFF else 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
    return None
