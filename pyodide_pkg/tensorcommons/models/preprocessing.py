"""Convert an image to pixel values by ``preprocessor_config.json``: resize, crop or pad, rescale, normalize.

Resizing gives the bits of Pillow, which `transformers` uses: a filter whose width grows as the image shrinks (so that
nothing aliases) is applied to one axis and then to the other, and each result is rounded to integers. The width comes
first, except if only the height shrinks, or if the height is longer and shrinks more. Pillow 13 does the same for
nearly all sizes; earlier versions always begin with the width, which changes some pixels of a photograph by one level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..bridge import images
from ..errors import ShapeMismatch, TensorCommonsError
from .image_settings import MAX_PIXELS, Settings, read_settings

Array: TypeAlias = "np.ndarray[Any, Any]"
ONE = np.int64(1 << 22)  # Pillow's weights are integer multiples of 1 / ONE


def _cubic(x: Array) -> Array:
    x, a = np.abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


# By Pillow's number: the filter and its radius. 0 is the nearest pixel.
FILTERS: dict[int, tuple[Callable[[Array], Array], float]] = {
    1: (lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0), 3.0),  # Lanczos
    2: (lambda x: np.asarray(np.maximum(1 - np.abs(x), 0)), 1.0),  # triangle
    3: (_cubic, 2.0),
    4: (lambda x: ((x > -0.5) & (x <= 0.5)).astype(np.float64), 0.5),  # box
    5: (lambda x: np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0), 1.0),  # Hamming
}


@dataclass(frozen=True)
class ImageProcessor:
    """Convert pixels to a model's input by the settings of ``preprocessor_config.json``."""

    settings: Settings

    @classmethod
    def of(cls, config: Mapping[str, Any], file: str, model_type: str = "") -> ImageProcessor:
        """Create the processor for a parsed ``preprocessor_config.json``. Raises the errors of ``read_settings``."""
        return cls(read_settings(config, file, model_type))

    def __call__(self, image: Array) -> Array:
        """Convert uint8 pixels (height, width, 3) to float32 (3, height, width).

        Raises:
            ShapeMismatch: the resized image exceeds MAX_PIXELS, or the ``pad_size`` of the settings.
        """
        s = self.settings
        image = self._sized(image)
        after = None
        if s.pad is not None and s.is_padded_first:
            image = padded(image, s.pad)
        elif s.pad is not None:
            after = [(0, want - have) for want, have in zip(s.pad, image.shape, strict=False)]
            if min(after)[1] < 0:
                raise ShapeMismatch(f"an image of {_by(image.shape)} pixels is larger than its pad_size {_by(s.pad)}")
        result = np.empty((3, *image.shape[:2]), np.float32)
        for channel, values in enumerate(result):  # one at a time: float64 takes eight times the bytes of the pixels
            exact = image[:, :, channel].astype(np.float64)
            if s.rescale is not None:
                exact *= s.rescale
            if s.mean is not None and s.std is not None:
                exact -= s.mean[channel]
                exact /= s.std[channel]
            values[:] = exact
        return result if after is None else np.pad(result, [(0, 0), *after])

    def region(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns of the result that contain an image of this size, without its padding."""
        height, width = self._place(height, width)[1]
        pad = self.settings.pad if self.settings.is_padded_first else None
        before = [max(have - n, 0) // 2 for have, n in zip(pad or (0, 0), (height, width), strict=True)]
        return slice(before[0], before[0] + height), slice(before[1], before[1] + width)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which an image of this size is resized, before it is cropped."""
        size, share = self.settings.size, self.settings.crop_share
        if size is None:
            return height, width
        if not size.edge:
            return size.height, size.width
        short, long = sorted((height, width))
        if size.edge == "within":
            scale = min(size.height / height, size.width / width)
            return max(int(height * scale), 1), max(int(width * scale), 1)
        if size.edge == "longest":
            pair = (max(int(size.height * short / long + 0.5), 1), size.height)
        elif size.width:
            pair = _between(short, long, size.height, size.width)
        else:
            wanted = size.height if share is None else int(size.height / share)
            pair = (wanted, int(wanted * long / short))
        return pair if height <= width else (pair[1], pair[0])

    def _place(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the sizes of an image of this size after resizing, and after cropping."""
        s = self.settings
        target = size = self.target(height, width)
        if s.crop_share is not None and s.size is not None:
            size = (s.size.height, s.size.height)
        return target, s.crop or size

    def _sized(self, image: Array) -> Array:
        """Resize and crop ``image``. Pixels outside the crop are not computed."""
        s, before = self.settings, image.shape
        target, final = self._place(before[0], before[1])
        if final[0] * final[1] > MAX_PIXELS:
            raise ShapeMismatch(
                f"an image of {_by(before)} pixels would be resized to {_by(final)}, over the limit of "
                f"{MAX_PIXELS:,} pixels: use a smaller image"
            )
        crops = [crop for crop in (None if s.crop_share is None else final, s.crop) if crop is not None]
        kept = [(0, extent) for extent in target]
        for crop in crops[:1]:
            # The centre, as centred() crops it; an axis that is too short is kept whole.
            spare = [(have - want) // 2 for have, want in zip(target, crop, strict=True)]
            kept = [
                (max(n, 0), n + want if n >= 0 else have) for n, want, have in zip(spare, crop, target, strict=True)
            ]
        if s.size is not None:
            image = resized(image, target, s.resample, kept)
        elif crops:
            image = image[kept[0][0] : kept[0][1], kept[1][0] : kept[1][1]]
        for crop in crops:
            image = centred(image, crop)
        return image


def _between(short: int, long: int, wanted: int, most: int) -> tuple[int, int]:
    """Return the edges (shorter, longer) with a shorter edge of ``wanted`` and a longer edge of at most ``most``."""
    exact: float = wanted
    if long / short * wanted > most:
        exact = most * float(short) / long
        wanted = round(exact)
    if short == wanted:
        return short, long
    return max(wanted, 1), max(int(exact * long / short), 1)


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]:,} x {shape[1]:,}"


async def pixels_of(image: Any) -> Array:
    """Return the pixels, uint8 (height, width, 3), of an array, an image file, or a canvas, ImageData or ImageBitmap.

    An array must be uint8 (height, width), (height, width, 1, 3 or 4) or (3, height, width). An alpha channel is
    dropped without blending.

    Raises:
        ShapeMismatch: the array has another shape or dtype.
        TensorCommonsError: the bytes cannot be decoded, or ``image`` is not an image.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        array: Array = await images.decode(bytes(image))
    elif images.is_js(image):
        array = await images.pixels(image)
    elif hasattr(image, "__array__"):
        array = np.asarray(image)
    else:
        raise TensorCommonsError(
            f"an image must be an array, the bytes of a file or a canvas, not {type(image).__name__}"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape or array.dtype != np.uint8:
        raise ShapeMismatch(f"an image must be uint8 (height, width, 3), not {array.dtype} {array.shape}")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def resized(image: Array, size: tuple[int, int], resample: int, kept: Sequence[tuple[int, int]] | None = None) -> Array:
    """Resize uint8 (height, width, channels) to ``size`` with Pillow's filter number ``resample``.

    ``kept`` are the ranges of rows and columns of the result to compute, (from, to) each.
    """
    (height, width), kept = image.shape[:2], kept or [(0, size[0]), (0, size[1])]
    shrinks_more = size[0] * width < size[1] * height and height > width
    height_first = size[0] < height and (size[1] > width or shrinks_more)
    first, second = (0, 1) if height_first else (1, 0)
    # Resize along the first axis only the part that the filter of the second axis needs.
    reached, places, weights = _taps(image.shape[second], size[second], resample, kept[second])
    image = image[reached] if second == 0 else image[:, reached]
    if size[first] != image.shape[first]:
        own, at, shares = _taps(image.shape[first], size[first], resample, kept[first])
        image = _filtered(image[own] if first == 0 else image[:, own], first, at, shares)
    else:
        own = slice(*kept[first])
        image = image[own] if first == 0 else image[:, own]
    return _filtered(image, second, places, weights)


def _taps(old: int, size: int, resample: int, kept: tuple[int, int]) -> tuple[slice, Array, Array | None]:
    """Find the source pixels for the results ``kept`` along an axis.

    Returns a range of the axis, the positions of the sources in it (results, taps), and their integer weights in units
    of 1 / ONE; None to copy one pixel.
    """
    results = np.arange(*kept)
    if old == size:
        return slice(*kept), (results - kept[0])[:, None], None
    scale = old / size
    centres = (results + 0.5) * scale
    if resample == 0:
        nearest = np.minimum(centres.astype(np.int64), old - 1)
        start = int(nearest[0])
        return slice(start, int(nearest[-1]) + 1), (nearest - start)[:, None], None
    function, reach = FILTERS[resample]
    wide = max(scale, 1.0)
    first = np.maximum((centres - reach * wide + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach * wide + 0.5).astype(np.int64), old)
    places = first[:, None] + np.arange((last - first).max())
    weights = np.where(places < last[:, None], function((places + 0.5 - centres[:, None]) / wide), 0)
    weights = np.rint(weights / weights.sum(1, keepdims=True) * ONE).astype(np.int64)
    start, stop = int(first[0]), int(last[-1])
    return slice(start, stop), np.minimum(places, stop - 1) - start, weights


def _filtered(image: Array, axis: int, places: Array, weights: Array | None) -> Array:
    if weights is None:
        return np.asarray(np.take(image, places[:, 0], axis))
    shape = [1, 1, 1]
    shape[axis] = len(places)
    total = np.full((*image.shape[:axis], len(places), *image.shape[axis + 1 :]), ONE // 2)
    for tap, weight in zip(places.T, weights.T, strict=True):
        total += np.take(image, tap, axis) * weight.reshape(shape)
    return (total // ONE).clip(0, 255).astype(np.uint8)


def centred(image: Array, size: tuple[int, int]) -> Array:
    """Crop the centre of an image (height, width, channels), with zeros around it if it is too small."""
    image = padded(image, (max(size[0], image.shape[0]), max(size[1], image.shape[1])), up=True)
    top, left = ((have - want) // 2 for have, want in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def padded(image: Array, size: tuple[int, int], *, up: bool = False) -> Array:
    """Pad an image (height, width, channels) with zeros; an odd row or column goes after it, or before with ``up``."""
    missing = [max(want - have, 0) for have, want in zip(image.shape, size, strict=False)]
    before = [(n + up) // 2 for n in missing]
    return np.pad(image, [*((b, n - b) for b, n in zip(before, missing, strict=True)), (0, 0)])
