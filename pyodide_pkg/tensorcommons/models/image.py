"""Pixels as inputs: ``pixel_values`` (batch, channels, height, width), as image preprocessing gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..dtypes import host_array
from ..errors import ShapeMismatch, TensorCommonsError
from ..shapes import Shape
from .architecture import Prepared

LARGEST = 2048  # pixels of a side of an example


@dataclass(frozen=True)
class ImageInputs:
    """Images of ``channels`` and any size of at least one patch; ``size`` is the one the model was made for."""

    channels: int
    size: int
    patch: int
    names: ClassVar[tuple[str, ...]] = ("pixel_values",)

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """One float32 array."""
        if "pixel_values" not in inputs:
            raise TensorCommonsError(f"{model} needs pixel_values")
        pixels = host_array(inputs["pixel_values"])
        if pixels.ndim != 4 or pixels.shape[1] != self.channels or 0 in pixels.shape or pixels.dtype.kind != "f":
            wanted = f"(batch, {self.channels}, height, width)"
            raise ShapeMismatch(f"pixel_values must be floats {wanted}, not {pixels.dtype} {pixels.shape}")
        if min(pixels.shape[2:]) < self.patch:
            raise ShapeMismatch(f"pixel_values {pixels.shape} have no whole patch of {self.patch} x {self.patch}")
        return Prepared({"pixel_values": np.ascontiguousarray(pixels, np.float32)})

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """``shape`` is (batch, height, width)."""
        if shape is not None and len(shape) != 3:
            raise ShapeMismatch(f"a shape of images is (batch, height, width), not {shape}")
        side = self.size if self.size <= LARGEST else self.patch  # made before the weights are there
        batch, height, width = shape or (1, side, side)
        return {"pixel_values": np.zeros((batch, self.channels, height, width), np.float32)}
