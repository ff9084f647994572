"""Image inputs: ``pixel_values`` (batch, channels, height, width), the result of image preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..dtypes import host_array
from ..errors import ShapeMismatch, TensorCommonsError
from ..shapes import Shape
from .architecture import Prepared

LARGEST = 2048  # pixels: the largest side of example inputs


@dataclass(frozen=True)
class ImageInputs:
    """Images with ``channels`` channels and sides of at least ``patch`` pixels; ``size`` is the side in training.

    If ``is_fixed``, it is the only side.
    """

    channels: int
    size: int
    patch: int
    is_fixed: bool = False
    names: ClassVar[tuple[str, ...]] = ("pixel_values",)

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """Check the pixels and convert them to float32."""
        if "pixel_values" not in inputs:
            raise TensorCommonsError(f"the input pixel_values of {model} is missing")
        pixels = host_array(inputs["pixel_values"])
        if pixels.ndim != 4 or pixels.shape[1] != self.channels or 0 in pixels.shape or pixels.dtype.kind != "f":
            wanted = f"(batch, {self.channels}, height, width)"
            raise ShapeMismatch(f"pixel_values must be floats {wanted}, not {pixels.dtype} {pixels.shape}")
        if min(pixels.shape[2:]) < self.patch:
            raise ShapeMismatch(f"pixel_values {pixels.shape} are smaller than a patch of {self.patch} x {self.patch}")
        if self.is_fixed and pixels.shape[2:] != (self.size, self.size):
            raise ShapeMismatch(f"pixel_values of {model} must be {self.size} x {self.size} pixels, not {pixels.shape}")
        return Prepared({"pixel_values": np.ascontiguousarray(pixels, np.float32)})

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Create pixels of ``shape`` (batch, height, width)."""
        if shape is not None and len(shape) != 3:
            raise ShapeMismatch(f"a shape of images must be (batch, height, width), not {shape}")
        side = self.size if self.size <= LARGEST else self.patch  # a size from an unchecked file
        batch, height, width = shape or (1, side, side)
        return {"pixel_values": np.zeros((batch, self.channels, height, width), np.float32)}
