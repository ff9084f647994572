"""The pre-norm transformer over image patches of ViT, DeiT and DINOv2, and its heads.

Each patch of an image is a token; learned tokens precede them (Dosovitskiy et al., 2020,
https://arxiv.org/abs/2010.11929). Parameters have the names of DINOv2's checkpoints, those of attention the names of
BERT's; the names in other checkpoints are mapped to these (weight_mapping.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..errors import InvalidWeights, quoted
from ..nn import attention, layer_norm, linear
from ..nn.embedding import as_float32
from ..ops import broadcast_to, concat, conv2d, divide, interpolate, mean, multiply, permute_dims, reshape, silu
from ..shapes import Shape
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, check_heads, read_config
from .heads import HeadOutputs, Labels
from .image import ImageInputs
from .weight_mapping import WeightMapping


@dataclass(frozen=True)
class VisionConfig:
    """The fields of ``config.json`` that determine the computation; sizes in elements, of images in pixels.

    ``pooler_output_size`` 0 means ``hidden_size``.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    mlp_ratio: int = 4
    num_register_tokens: int = 0
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False
    pooler_output_size: int = 0
    pooler_act: str = "tanh"

    @classmethod
    def of(
        cls, folder: Checkpoint, defaults: Mapping[str, object] | None = None, fixed: Mapping[str, object] | None = None
    ) -> VisionConfig:
        """Read the configuration; ``defaults`` and ``fixed`` are those of :class:`EncoderConfig`.

        Raises InvalidWeights for a field that is wrong or not supported.
        """
        file, given = folder.file, {name: value for name, value in folder.config.items() if value is not None}
        for name in ("image_size", "patch_size"):
            sides = given.get(name)
            if isinstance(sides, list) and len(sides) == 2 and sides[0] == sides[1]:
                given[name] = sides[0]
            elif isinstance(sides, list):
                raise InvalidWeights(file, f"{name} {quoted(sides)} must be one number, or two equal numbers")
        check_fixed(given, file)
        config = read_config(cls, {**(defaults or {}), **given, **(fixed or {})}, file)
        check_heads(config.hidden_size, config.num_attention_heads, file)
        activation(config.hidden_act, file)
        activation(config.pooler_act, file, "pooler_act")
        if config.patch_size > config.image_size:
            raise InvalidWeights(
                file, f"image_size {config.image_size} must be at least patch_size {config.patch_size}"
            )
        return config


@dataclass(frozen=True)
class VisionEncoder:
    """An encoder from pixels to hidden states. ``tokens`` are the names of the learned tokens that have positions.

    ``mlp`` is the size between the two linear layers; with ``scales`` a learned vector scales each branch (Touvron et
    al., 2021, https://arxiv.org/abs/2103.17239).
    """

    config: VisionConfig
    tokens: tuple[str, ...]
    mlp: int
    scales: bool = False

    @property
    def first_patch(self) -> int:
        """Number of tokens before the patches."""
        return len(self.tokens) + self.config.num_register_tokens

    def parameters(self) -> dict[str, Shape]:
        """Return the names and shapes of the weights."""
        c, size = self.config, self.config.hidden_size
        side = c.image_size // c.patch_size
        shapes: dict[str, Shape] = {f"embeddings.{token}": (1, 1, size) for token in self.tokens}
        shapes["embeddings.position_embeddings"] = (1, side * side + len(self.tokens), size)
        shapes["embeddings.patch_embeddings.projection.weight"] = (size, c.num_channels, c.patch_size, c.patch_size)
        shapes["embeddings.patch_embeddings.projection.bias"] = (size,)
        if c.num_register_tokens:
            shapes["embeddings.register_tokens"] = (1, c.num_register_tokens, size)
        first, second = ("weights_in", "weights_out") if c.use_swiglu_ffn else ("fc1", "fc2")
        for i in range(c.num_hidden_layers):
            layer = f"encoder.layer.{i}"
            shapes |= layer_norm.parameters(f"{layer}.norm1", size) | layer_norm.parameters(f"{layer}.norm2", size)
            shapes |= attention.parameters(f"{layer}.attention", size, bias=c.qkv_bias)
            shapes |= linear.parameters(f"{layer}.mlp.{first}", size, self.mlp * (2 if c.use_swiglu_ffn else 1))
            shapes |= linear.parameters(f"{layer}.mlp.{second}", self.mlp, size)
            if self.scales:
                shapes |= {f"{layer}.layer_scale{n}.lambda1": (size,) for n in (1, 2)}
        return shapes | layer_norm.parameters("layernorm", size)

    def forward(self, weights: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        """Encode pixels: (batch, channels, height, width) -> (batch, tokens, hidden), normalized."""
        c = self.config
        x = self._embed(weights, pixels)
        for i in range(c.num_hidden_layers):
            layer = f"encoder.layer.{i}"
            normed = layer_norm.forward(weights, f"{layer}.norm1", x, c.layer_norm_eps)
            attended = attention.forward(weights, f"{layer}.attention", normed, None, c.num_attention_heads)
            x = self._scaled(weights, f"{layer}.layer_scale1", attended) + x
            normed = layer_norm.forward(weights, f"{layer}.norm2", x, c.layer_norm_eps)
            x = self._scaled(weights, f"{layer}.layer_scale2", self._feed_forward(weights, f"{layer}.mlp", normed)) + x
        return layer_norm.forward(weights, "layernorm", x, c.layer_norm_eps)

    def _embed(self, weights: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
        c, batch, count = self.config, pixels.shape[0], len(self.tokens)
        kernel = as_float32(weights["embeddings.patch_embeddings.projection.weight"])
        patches = conv2d(pixels, kernel, weights["embeddings.patch_embeddings.projection.bias"], stride=c.patch_size)
        rows, columns = patches.shape[2:]
        x = permute_dims(reshape(patches, (batch, c.hidden_size, rows * columns)), (0, 2, 1))

        def of_each_image(name: str) -> Tensor:
            learned = as_float32(weights[f"embeddings.{name}"])
            return broadcast_to(learned, (batch, *learned.shape[1:]))

        x = concat([*(of_each_image(token) for token in self.tokens), x], axis=1)
        positions = as_float32(weights["embeddings.position_embeddings"])
        side = c.image_size // c.patch_size
        if (rows, columns) != (side, side):  # another size than in training: interpolate the learned positions
            grid = permute_dims(reshape(positions[:, count:], (1, side, side, c.hidden_size)), (0, 3, 1, 2))
            grid = permute_dims(interpolate(grid, (rows, columns), mode="bicubic"), (0, 2, 3, 1))
            positions = concat([positions[:, :count], reshape(grid, (1, rows * columns, c.hidden_size))], axis=1)
        x = x + positions
        if not c.num_register_tokens:
            return x
        return concat([x[:, :count], of_each_image("register_tokens"), x[:, count:]], axis=1)

    def _feed_forward(self, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
        if self.config.use_swiglu_ffn:  # Shazeer, 2020, https://arxiv.org/abs/2002.05202
            both = linear.forward(weights, f"{prefix}.weights_in", x)
            gated = multiply(silu(both[..., : self.mlp]), both[..., self.mlp :])
            return linear.forward(weights, f"{prefix}.weights_out", gated)
        inner = ACTIVATIONS[self.config.hidden_act](linear.forward(weights, f"{prefix}.fc1", x))
        return linear.forward(weights, f"{prefix}.fc2", inner)

    def _scaled(self, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
        return multiply(x, weights[f"{prefix}.lambda1"]) if self.scales else x


class VisionHead(HeadOutputs, Protocol):
    """A head on an encoder of images."""

    def forward(
        self, weights: Mapping[str, Tensor], hidden: Tensor, encoder: VisionEncoder, pixels: Tensor
    ) -> dict[str, Tensor]:
        """Compute the outputs from ``hidden`` (batch, tokens, hidden)."""


@dataclass(frozen=True)
class ImageFeatures:
    """The bare model. ``pooler_output`` (batch, pooled) is the first token after ``pooler`` and its ``activation``.

    Without a pooler it is the first token itself if ``first_token``, and does not exist otherwise.
    """

    size: int
    pooler: str = ""
    first_token: bool = False
    pooled: int = 0
    activation: str = "tanh"
    tasks: ClassVar[tuple[str, ...]] = ("image-feature-extraction",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """``image_embedding``, and ``pooler_output`` if there is one."""
        return ("image_embedding", *self.defaults[1:])

    @property
    def defaults(self) -> tuple[str, ...]:
        """The outputs of the bare model of `transformers`."""
        pooled = ("pooler_output",) if self.pooler or self.first_token else ()
        return ("last_hidden_state", *pooled)

    def parameters(self) -> dict[str, Shape]:
        """Return the parameters of the pooler."""
        return linear.parameters(self.pooler, self.size, self.pooled or self.size) if self.pooler else {}

    def forward(
        self, weights: Mapping[str, Tensor], hidden: Tensor, encoder: VisionEncoder, pixels: Tensor
    ) -> dict[str, Tensor]:
        """See :class:`VisionHead`; ``image_embedding`` is the first token."""
        first = pooled = hidden[:, 0]
        if self.pooler:
            pooled = ACTIVATIONS[self.activation](linear.forward(weights, self.pooler, first))
        return {"image_embedding": first, **({"pooler_output": pooled} if len(self.defaults) > 1 else {})}


@dataclass(frozen=True)
class ImageClassification:
    """A classifier of images: ``logits`` (batch, labels) from the first token.

    With ``patches`` the mean of the patches' tokens is a second input. Several names in ``out`` are one classifier for
    each learned token, and ``logits`` is their mean (Touvron et al., 2020).
    """

    size: int
    labels: Labels
    out: Mapping[str, str]  # the classifier's weights by the name of its output
    patches: bool = False
    tasks: ClassVar[tuple[str, ...]] = ("image-classification",)

    @property
    def outputs(self) -> tuple[str, ...]:
        """``logits``, and those of each classifier if there are several."""
        return ("logits", *(name for name in self.out if name != "logits"))

    @property
    def defaults(self) -> tuple[str, ...]:
        """All outputs."""
        return self.outputs

    def parameters(self) -> dict[str, Shape]:
        """Declare a linear layer for each classifier."""
        features, labels = self.size * (2 if self.patches else 1), len(self.labels.names)
        layers = [linear.parameters(prefix, features, labels) for prefix in self.out.values()]
        return {name: shape for layer in layers for name, shape in layer.items()}

    def forward(
        self, weights: Mapping[str, Tensor], hidden: Tensor, encoder: VisionEncoder, pixels: Tensor
    ) -> dict[str, Tensor]:
        """See :class:`VisionHead`."""
        result = {}
        for token, (name, prefix) in enumerate(self.out.items()):
            x = hidden[:, token]
            if self.patches:
                x = concat([x, mean(hidden[:, encoder.first_patch :], axis=1)], axis=1)
            result[name] = linear.forward(weights, prefix, x)
        if "logits" not in result:
            first, second = result.values()
            result["logits"] = divide(first + second, 2.0)
        return result


class VisionModel:
    """An encoder with a head. The outputs are the head's and ``last_hidden_state`` (batch, tokens, hidden)."""

    def __init__(self, model_type: str, encoder: VisionEncoder, head: VisionHead, names: WeightMapping) -> None:
        self.model_type = model_type
        self.encoder = encoder
        self.head = head
        self.names = names
        c = encoder.config
        self.inputs = ImageInputs(c.num_channels, c.image_size, c.patch_size)
        self.tasks = head.tasks
        self.outputs = ("last_hidden_state", *head.outputs)
        self.defaults = head.defaults

    @property
    def config(self) -> VisionConfig:
        """The encoder's configuration."""
        return self.encoder.config

    def parameters(self) -> dict[str, Shape]:
        """Return the parameters of the encoder and of the head."""
        return self.encoder.parameters() | self.head.parameters()

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs by name from ``pixel_values`` (batch, channels, height, width)."""
        pixels = inputs["pixel_values"]
        hidden = self.encoder.forward(weights, pixels)
        return {"last_hidden_state": hidden, **self.head.forward(weights, hidden, self.encoder, pixels)}
