"""Images to pixel values; features and saliency maps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TensorCommonsError
from ..models.model import Model
from ..models.preprocessing import pixels_of
from .job import Array, Inputs, Job


@dataclass(frozen=True)
class Images:
    """The images of a call: those whose pixels come to one size are one call of the model.

    ``places`` are the images of each of ``calls``, by number; ``sizes`` are (height, width) before preprocessing.
    """

    calls: list[Inputs]
    places: list[list[int]]
    sizes: list[tuple[int, int]]
    single: bool

    def in_order(self, results: Sequence[Array]) -> list[Array]:
        """Each image's part of the calls' outputs, in the order in which the images were given."""
        rows = {
            place: row
            for places, array in zip(self.places, results, strict=True)
            for place, row in zip(places, array, strict=True)
        }
        return [rows[place] for place in range(len(rows))]


async def pixel_calls(model: Model, given: Any) -> Images:
    """The calls of one image, or of a list of them. Raises TensorCommonsError for a model without image processor."""
    if model.processor is None:
        raise TensorCommonsError(f"{model.name} has no preprocessor_config.json, which says how images become pixels")
    single = not isinstance(given, (list, tuple))
    images = [await pixels_of(image) for image in ([given] if single else given)]
    values = [model.processor(image) for image in images]
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number, value in enumerate(values):
        by_shape.setdefault(value.shape, []).append(number)
    calls: list[Inputs] = [{"pixel_values": np.stack([values[i] for i in places])} for places in by_shape.values()]
    return Images(calls, list(by_shape.values()), [(image.shape[0], image.shape[1]) for image in images], single)


async def image_feature_extraction(model: Model, given: Any, *, pool: bool = False) -> Job:
    """See ``pipeline``."""
    if pool and "pooler_output" not in model.architecture.outputs:
        raise TensorCommonsError(f"{model.name} has no pooled output: leave pool out for the features of each patch")
    images = await pixel_calls(model, given)

    def show(results: Sequence[Sequence[Array]]) -> Any:
        rows = [row[None] for row in images.in_order([arrays[0] for arrays in results])]
        return rows[0] if images.single else rows

    return Job(images.calls, ("pooler_output" if pool else "last_hidden_state",), show)


async def saliency(model: Model, given: Any) -> Job:
    """See ``pipeline``."""
    images = await pixel_calls(model, given)

    def show(results: Sequence[Sequence[Array]]) -> Any:
        assert model.processor is not None
        maps = images.in_order([arrays[0] for arrays in results])
        shown = [array[model.processor.region(*size)] for array, size in zip(maps, images.sizes, strict=True)]
        return shown[0] if images.single else shown

    return Job(images.calls, ("saliency",), show)
