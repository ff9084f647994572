"""The browser's image decoder and its canvases; ``bridge/images.js`` is their other half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeviceUnavailable, TensorCommonsError
from .loader import load_js_module
from .runtime import IN_BROWSER

if TYPE_CHECKING:
    from numpy.typing import NDArray


async def decode(data: bytes) -> NDArray[np.uint8]:
    """The pixels of an encoded image, (height, width, 4). Raises TensorCommonsError where the browser knows no such."""
    if not IN_BROWSER:
        raise DeviceUnavailable("javascript", "a browser decodes image files; pass an array (height, width, 3) instead")
    helper = await load_js_module("images", "images.js")
    from pyodide.ffi import JsException, to_js

    try:
        return _array(await helper.decode(to_js(data)))
    except JsException as error:
        raise TensorCommonsError(f"{len(data):,} bytes are no image that can be decoded: {error.message}") from None


async def pixels(image: Any) -> NDArray[np.uint8]:
    """The pixels of a canvas, ImageData or ImageBitmap, (height, width, 4)."""
    helper = await load_js_module("images", "images.js")
    from pyodide.ffi import JsException

    try:
        found = helper.pixels(image)
    except JsException as error:
        raise TensorCommonsError(f"not an image that can be read: {error.message}") from None
    if not found:  # JavaScript's null
        raise TensorCommonsError("not an image: a canvas, ImageData or ImageBitmap has a width and a height")
    return _array(found)


def is_js(value: object) -> bool:
    """Whether ``value`` is an object of JavaScript."""
    if not IN_BROWSER:
        return False
    from pyodide.ffi import JsProxy

    return isinstance(value, JsProxy)


def _array(found: Any) -> NDArray[np.uint8]:
    data = np.frombuffer(found.data.to_bytes(), np.uint8)
    return data.reshape(int(found.height), int(found.width), 4)
