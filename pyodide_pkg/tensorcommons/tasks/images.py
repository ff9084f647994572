"""Convert images to pixel values, and compute their features and saliency maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..models.model import Model
from ..models.preprocessing import ImageProcessor, pixels_of
from .base import Array, Inputs, Job, strings, tokenizer_of


@dataclass(frozen=True)
class Images:
    """The images of a call, decoded and preprocessed batch by batch. ``single`` if it got one image, not a list.

    ``sizes`` are the (height, width) before preprocessing of the images decoded so far, by number.
    """

    processor: ImageProcessor
    images: Sequence[Any]
    single: bool
    tokens: int
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def lengths(self) -> Sequence[int]:
        """The number of tokens of an image of the model's own size, for each image."""
        return [self.tokens] * len(self.images)

    async def take(self, rows: Sequence[int]) -> list[tuple[Sequence[int], Inputs]]:
        """Preprocess the images; images of one size are one call of the model."""
        by_shape: dict[tuple[int, ...], dict[int, Any]] = {}
        for row in rows:
            image = await pixels_of(self.images[row])
            self.sizes[row] = image.shape[0], image.shape[1]
            value = self.processor(image)
            by_shape.setdefault(value.shape, {})[row] = value
        return [(list(group), {"pixel_values": np.stack(list(group.values()))}) for group in by_shape.values()]

    def columns(self, row: int, width: int) -> slice:
        """Return all columns: images have no padding tokens."""
        return slice(0, width)


def images_of(model: Model, given: Any) -> Images:
    """Make the rows of one image or a list of images. Raises TensorCommonsError if the model has no image processor."""
    if model.processor is None:
        raise TensorCommonsError(
            f"{model.name} has no preprocessor_config.json to preprocess images with: add the file to its folder"
        )
    single = not isinstance(given, (list, tuple))
    inputs: Any = model.architecture.inputs
    tokens = (inputs.size // inputs.patch) ** 2 + 1
    return Images(model.processor, [given] if single else list(given), single, tokens)


async def image_feature_extraction(model: Model, given: Any, *, pool: bool = False) -> Job:
    """See ``pipeline``."""
    if pool and "pooler_output" not in model.architecture.outputs:
        raise TensorCommonsError(f"{model.name} has no pooled output: use pool=False for the features of each patch")
    images = images_of(model, given)
    output = "pooler_output" if pool else "last_hidden_state"
    return Job(images, (output,), lambda row, arrays: arrays[0][None], lambda rows: rows[0] if images.single else rows)


async def zero_shot_image_classification(
    model: Model,
    given: Any,
    *,
    candidate_labels: Sequence[str] | None = None,
    hypothesis_template: str = "This is a photo of {}.",
) -> Job:
    """See ``pipeline``."""
    if not isinstance(candidate_labels, (list, tuple)) or not candidate_labels:
        raise TensorCommonsError(f"candidate_labels must be a list of labels, not {quoted(candidate_labels)}")
    labels, images = strings(candidate_labels), images_of(model, given)
    before, place, after = hypothesis_template.partition("{}") if isinstance(hypothesis_template, str) else ("",) * 3
    if not place or set("{}") & set(before + after):
        raise TensorCommonsError(
            "hypothesis_template must contain {} once, in place of the label, and no other braces, "
            f"not {quoted(hypothesis_template)}"
        )
    texts = [f"{before}{label}{after}" for label in labels]
    encoding = tokenizer_of(model).encode_batch(texts, truncation=False)
    words = {name: array for name, array in encoding.as_inputs().items() if name in model.input_names}

    def each(row: int, arrays: Sequence[Array]) -> list[dict[str, Any]]:
        scores = np.exp(arrays[0] - arrays[0].max())
        order = np.argsort(-scores, kind="stable")
        return [{"score": float(scores[i] / scores.sum()), "label": labels[i]} for i in order]

    rows = LabelledImages(images, words)
    return Job(rows, ("logits_per_image",), each, lambda found: found[0] if images.single else found)


@dataclass(frozen=True)
class LabelledImages:
    """Images with the same texts for each; ``words`` are the model's inputs of the texts."""

    images: Images
    words: Inputs

    @property
    def lengths(self) -> Sequence[int]:
        """See :class:`Images`."""
        return self.images.lengths

    async def take(self, rows: Sequence[int]) -> list[tuple[Sequence[int], Inputs]]:
        """See :class:`Images`."""
        return [(group, {**pixels, **self.words}) for group, pixels in await self.images.take(rows)]

    def columns(self, row: int, width: int) -> slice:
        """See :class:`Images`."""
        return self.images.columns(row, width)


async def saliency(model: Model, given: Any) -> Job:
    """See ``pipeline``."""
    images = images_of(model, given)

    def each(row: int, arrays: Sequence[Array]) -> Array:
        return arrays[0][images.processor.region(*images.sizes[row])]

    return Job(images, ("saliency",), each, lambda rows: rows[0] if images.single else rows)
