"""From an image to pixel values, as ``preprocessor_config.json`` says: resize, crop or pad, rescale, normalize.

Resizing is Pillow's, which `transformers` resizes with: a filter as wide as the image shrinks (no aliasing), over one
axis and then the other, each rounded to whole levels, to the bit. It begins with the width, but with the height where
only that shrinks, or shrinks more and is the longer side: Pillow 13 does so for nearly all sizes, earlier ones always
begin with the width, which on photographs makes a level here and there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..bridge import images
from ..errors import InvalidWeights, ShapeMismatch, TensorCommonsError

Array: TypeAlias = "np.ndarray[Any, Any]"
ONE = np.int64(1 << 22)  # Pillow's weights are whole multiples of 1 / ONE


def _triangle(x: Array) -> Array:
    return np.asarray(np.maximum(1 - np.abs(x), 0))


def _cubic(x: Array) -> Array:
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: Array) -> Array:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


def _box(x: Array) -> Array:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _hamming(x: Array) -> Array:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


# By Pillow's number: the filter, and how far from its centre it reaches. 0 is the nearest pixel.
FILTERS: dict[int, tuple[Callable[[Array], Array], float]] = {
    1: (_lanczos, 3.0),
    2: (_triangle, 1.0),
    3: (_cubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}


@dataclass(frozen=True)
class ImageProcessor:
    """What ``preprocessor_config.json`` says. Sizes are (height, width) in pixels; None leaves a step out.

    ``edge`` is "" where ``size`` is exact, "shortest" or "longest" where it is that edge and the other one follows.
    """

    size: tuple[int, int] | None = (224, 224)
    edge: str = ""
    resample: int = 2
    crop: tuple[int, int] | None = None
    pad: tuple[int, int] | None = None
    rescale: float | None = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], file: str) -> ImageProcessor:
        """The steps of a parsed ``preprocessor_config.json``. Raises InvalidWeights for what is not built in."""

        def on(name: str, otherwise: bool) -> bool:
            value = config.get(f"do_{name}")
            return otherwise if value is None else bool(value)

        size, edge = _size(config.get("size", 224), file, "size")
        resample = config.get("resample", 2)
        if resample not in (0, *FILTERS):
            raise InvalidWeights(file, f"resample {resample!r} is none of Pillow's 0 to 5")
        rescale = config.get("rescale_factor", 1 / 255)
        mean, std = (config.get(f"image_{name}", [0.5] * 3) for name in ("mean", "std"))
        for name, value in (("image_mean", mean), ("image_std", std)):
            if not (isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value)):
                raise InvalidWeights(file, f"{name} must be numbers, one a channel, not {value!r}")
        if not isinstance(rescale, (int, float)) or 0 in std:
            raise InvalidWeights(file, f"rescale_factor {rescale!r} or image_std {std!r} cannot be used")
        cropped = on("center_crop", "crop_size" in config)
        normalized = on("normalize", True)
        return cls(
            size if on("resize", True) else None,
            edge,
            resample,
            _size(config.get("crop_size", 224), file, "crop_size", square=True)[0] if cropped else None,
            _size(config.get("pad_size"), file, "pad_size", square=True)[0] if on("pad", False) else None,
            rescale if on("rescale", True) else None,
            tuple(mean) if normalized else None,
            tuple(std) if normalized else None,
        )

    def __call__(self, image: Array) -> Array:
        """uint8 pixels (height, width, 3) -> float32 (3, height, width)."""
        if self.size is not None:
            image = resized(image, self.target(image.shape[0], image.shape[1]), self.resample)
        if self.crop is not None:
            image = centred(image, self.crop)
        if self.pad is not None:
            image = padded(image, self.pad)
        values = image.astype(np.float64)
        if self.rescale is not None:
            values = values * self.rescale
        if self.mean is not None:
            values = (values - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32)

    def region(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of the result that show an image of this size, and not what it was padded with."""
        if self.size is not None:
            height, width = self.target(height, width)
        if self.crop is not None:
            height, width = self.crop
        before = [max(have - n, 0) // 2 for have, n in zip(self.pad or (0, 0), (height, width), strict=True)]
        return slice(before[0], before[0] + height), slice(before[1], before[1] + width)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of this size is resized to."""
        assert self.size is not None
        if not self.edge:
            return self.size
        short, long = sorted((height, width))
        wanted = self.size[0]
        if self.edge == "shortest":
            pair = (wanted, int(wanted * long / short))
        else:
            pair = (max(int(wanted * short / long + 0.5), 1), wanted)
        return pair if height <= width else (pair[1], pair[0])


async def pixels_of(image: Any) -> Array:
    """uint8 (height, width, 3) of an array, of an image file's bytes, or of a canvas, ImageData or ImageBitmap.

    An array is uint8 (height, width), (height, width, 1, 3 or 4) or (3, height, width). Transparency is dropped.

    Raises:
        ShapeMismatch: the array is of another shape or dtype.
        DeviceUnavailable: bytes are given where there is no browser to decode them.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        array: Array = await images.decode(bytes(image))
    elif images.is_js(image):
        array = await images.pixels(image)
    elif hasattr(image, "__array__"):
        array = np.asarray(image)
    else:
        raise TensorCommonsError(f"an image is an array, a file's bytes or a canvas, not {type(image).__name__}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape or array.dtype != np.uint8:
        raise ShapeMismatch(f"an image is uint8 (height, width, 3), not {array.dtype} {array.shape}")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def resized(image: Array, size: tuple[int, int], resample: int) -> Array:
    """uint8 (height, width, channels) in another size, by Pillow's filter of that number."""
    result, (height, width) = image, image.shape[:2]
    shrinks_more = size[0] * width < size[1] * height and height > width
    height_first = size[0] < height and (size[1] > width or shrinks_more)
    for axis in (0, 1) if height_first else (1, 0):
        if size[axis] != image.shape[axis]:
            result = _resized_axis(result, axis, size[axis], resample)
    return result


def _resized_axis(image: Array, axis: int, size: int, resample: int) -> Array:
    old = image.shape[axis]
    scale = old / size
    centres = (np.arange(size) + 0.5) * scale
    if resample == 0:
        return np.asarray(np.take(image, np.minimum(centres.astype(np.int64), old - 1), axis))
    function, reach = FILTERS[resample]
    wide = max(scale, 1.0)
    first = np.maximum((centres - reach * wide + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach * wide + 0.5).astype(np.int64), old)
    places = first[:, None] + np.arange((last - first).max())
    weights = np.where(places < last[:, None], function((places + 0.5 - centres[:, None]) / wide), 0)
    weights = np.rint(weights / weights.sum(1, keepdims=True) * ONE).astype(np.int64)
    shape = [1, 1, 1]
    shape[axis] = size
    total = np.full((*image.shape[:axis], size, *image.shape[axis + 1 :]), ONE // 2)
    for tap, weight in zip(np.minimum(places, old - 1).T, weights.T, strict=True):
        total += np.take(image, tap, axis) * weight.reshape(shape)
    return (total // ONE).clip(0, 255).astype(np.uint8)


def centred(image: Array, size: tuple[int, int]) -> Array:
    """The middle of an image (height, width, channels), with zeros where it is too small."""
    image = padded(image, (max(size[0], image.shape[0]), max(size[1], image.shape[1])), up=True)
    top, left = ((have - want) // 2 for have, want in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def padded(image: Array, size: tuple[int, int], *, up: bool = False) -> Array:
    """An image (height, width, channels) with zeros around; an odd row or column is behind, or before with ``up``."""
    missing = [max(want - have, 0) for have, want in zip(image.shape, size, strict=False)]
    before = [(n + up) // 2 for n in missing]
    return np.pad(image, [*((b, n - b) for b, n in zip(before, missing, strict=True)), (0, 0)])


def _size(value: object, file: str, name: str, *, square: bool = False) -> tuple[tuple[int, int], str]:
    """A size as the config writes it: a number, or {"height", "width"}, {"shortest_edge"} or {"longest_edge"}."""
    sides: tuple[object, object] = (value, value)
    edge = ""
    if isinstance(value, dict):
        known = {"height": "", "shortest_edge": "shortest", "longest_edge": "longest"}
        key = next((key for key in known if key in value), "height")
        edge = known[key]
        sides = (value.get(key), value.get("width" if key == "height" else key))
        if set(value) - {key, "width" if key == "height" else key}:
            sides = (None, None)
    height, width = sides
    whole = type(height) is int and type(width) is int and min(height, width) > 0
    if not whole or (square and edge == "longest"):
        raise InvalidWeights(file, f"{name} {value!r} is no size that can be used")
    assert isinstance(height, int) and isinstance(width, int)
    return (height, width), "" if square else edge
