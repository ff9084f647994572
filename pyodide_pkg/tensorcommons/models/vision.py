"""The pre-norm transformer over image patches of ViT, DeiT and DINOv2, and its heads.

Each patch of an image is a token; learned tokens precede them (Dosovitskiy et al., 2020,
https://arxiv.org/abs/2010.11929). Parameters have the names of DINOv2's checkpoints, those of attention the names of
BERT's; the names in other checkpoints are mapped to these (weight_mapping.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..errors import InvalidWeights, quoted
from ..nn import Attention, Conv2d, FeedForward, LayerNorm, Linear, Param, Scope, Weights
from ..ops import broadcast_to, concat, divide, interpolate, mean, multiply, permute_dims, reshape, silu
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, Activation, check_heads, read_config
from .encoder_model import EncoderModel
from .heads import Head, Labels
from .image import ImageInputs
from .weight_mapping import WeightMapping

#: Names of the layers of attention in `transformers` 5, which adapters use; those of checkpoints are older.
MODULES = {
    ".attention.q_proj.": ".attention.self.query.",
    ".attention.k_proj.": ".attention.self.key.",
    ".attention.v_proj.": ".attention.self.value.",
    ".attention.o_proj.": ".attention.output.dense.",
}


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
    hidden_act: Activation = "gelu"
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False
    pooler_output_size: int = 0
    pooler_act: Activation = "tanh"

    @classmethod
    def of(cls, folder: Checkpoint, **reading: Any) -> Self:
        """Read the configuration; ``reading`` are options of :func:`read_config`.

        Raises InvalidWeights for a field that is wrong or not supported.
        """
        config, file = read_config(cls, square_sides(folder), folder.file, **reading), folder.file
        check_heads(config.hidden_size, config.num_attention_heads, file)
        if config.patch_size > config.image_size:
            raise InvalidWeights(
                file, f"image_size {config.image_size} must be at least patch_size {config.patch_size}"
            )
        return config


def square_sides(folder: Checkpoint) -> dict[str, Any]:
    """Return the fields of ``config.json``, with one number for two equal sides of images or patches.

    Raises InvalidWeights for other sides.
    """
    given = dict(folder.config)
    for name in ("image_size", "patch_size"):
        sides = given.get(name)
        if isinstance(sides, list):
            if len(sides) != 2 or sides[0] != sides[1]:
                raise InvalidWeights(folder.file, f"{name} {quoted(sides)} must be one number, or two equal numbers")
            given[name] = sides[0]
    return given


class PatchEmbeddings:
    """The tokens of an image: learned ones, and a projection of each patch, all but the registers with a position.

    The positions are interpolated for images of another size than in training.
    """

    def __init__(self, scope: Scope, c: VisionConfig, tokens: Sequence[str]) -> None:
        size, self.side = c.hidden_size, c.image_size // c.patch_size
        self.tokens = [scope.param(token, (1, 1, size), "vector") for token in tokens]
        self.positions = scope.param("position_embeddings", (1, self.side**2 + len(tokens), size), "positions")
        self.project = Conv2d(scope / "patch_embeddings.projection", c.num_channels, size, c.patch_size, c.patch_size)
        count = c.num_register_tokens
        self.registers = scope.param("register_tokens", (1, count, size), "vector") if count else None

    def __call__(self, weights: Weights, pixels: Tensor) -> Tensor:
        """Embed pixels: (batch, channels, height, width) -> (batch, tokens, hidden)."""
        patches = self.project(weights, pixels)
        batch, size, rows, columns = patches.shape
        x = permute_dims(reshape(patches, (batch, size, rows * columns)), (0, 2, 1))

        def of_each_image(param: Param) -> Tensor:
            return broadcast_to(weights[param].tensor, (batch, *param.shape[1:]))

        x = concat([*map(of_each_image, self.tokens), x], axis=1)
        positions, count, side = weights[self.positions].float32, len(self.tokens), self.side
        if (rows, columns) != (side, side):
            grid = permute_dims(reshape(positions[:, count:], (1, side, side, size)), (0, 3, 1, 2))
            grid = permute_dims(interpolate(grid, (rows, columns), mode="bicubic"), (0, 2, 3, 1))
            positions = concat([positions[:, :count], reshape(grid, (1, rows * columns, size))], axis=1)
        x = x + positions
        return concat([x[:, :count], of_each_image(self.registers), x[:, count:]], axis=1) if self.registers else x


class VisionLayer:
    """Attention and a feed-forward part, each over normalized values, scaled and added to its input."""

    def __init__(self, scope: Scope, c: VisionConfig, mlp: int, *, scales: bool) -> None:
        size = c.hidden_size
        self.norms = [LayerNorm(scope / f"norm{n}", size, c.layer_norm_eps) for n in (1, 2)]
        attention, inner = Attention(scope / "attention", size, c.num_attention_heads, bias=c.qkv_bias), scope / "mlp"
        names, width = (("weights_in", "weights_out"), 2 * mlp) if c.use_swiglu_ffn else (("fc1", "fc2"), mlp)
        first, second = Linear(inner / names[0], size, width), Linear(inner / names[1], mlp, size)
        act = silu if c.use_swiglu_ffn else ACTIVATIONS[c.hidden_act]
        self.parts: Sequence[Callable[[Weights, Tensor], Tensor]] = (
            attention,
            FeedForward(first, act, second, is_packed=c.use_swiglu_ffn),
        )
        self.scales = [
            (scope / f"layer_scale{n}").param("lambda1", (size,), "vector") if scales else None for n in (1, 2)
        ]

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Apply the layer to (batch, tokens, hidden)."""
        for norm, part, scale in zip(self.norms, self.parts, self.scales, strict=True):
            branch = part(weights, norm(weights, x))
            x = (multiply(branch, weights[scale].tensor) if scale else branch) + x
        return x


class VisionEncoder:
    """An encoder from pixels to hidden states. ``tokens`` are the names of the learned tokens that have positions.

    ``mlp`` is the size between the two linear layers; with ``scales`` a learned vector scales each branch (Touvron et
    al., 2021, https://arxiv.org/abs/2103.17239). ``first_patch`` is the number of tokens before the patches.
    """

    def __init__(self, config: VisionConfig, tokens: Sequence[str], mlp: int, *, scales: bool = False) -> None:
        self.config = c = config
        self.scope = scope = Scope({})
        self.manifest = scope.manifest
        self.first_patch = len(tokens) + c.num_register_tokens
        self.embeddings = PatchEmbeddings(scope / "embeddings", c, tokens)
        layers = scope / "encoder.layer"
        self.layers = [VisionLayer(layers / i, c, mlp, scales=scales) for i in range(c.num_hidden_layers)]
        self.norm = LayerNorm(scope / "layernorm", c.hidden_size, c.layer_norm_eps)

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``pixel_values`` (batch, channels, height, width) -> (batch, tokens, hidden), normalized."""
        x = self.embeddings(weights, inputs["pixel_values"])
        for layer in self.layers:
            x = layer(weights, x)
        return self.norm(weights, x)


class ImageFeatures(Head):
    """The bare model: ``image_embedding`` is the first token.

    ``pooler_output`` (batch, pooled) is that token after ``pooler`` and its activation. Without a pooler it is the
    first token itself if ``first_token``, and does not exist otherwise.
    """

    tasks = ("image-feature-extraction",)

    def __init__(self, c: VisionConfig, pooler: Linear | None = None, *, first_token: bool = False) -> None:
        self.pooler = pooler
        self.activation = ACTIVATIONS[c.pooler_act]
        pooled = ("pooler_output",) if pooler or first_token else ()
        self.outputs = ("image_embedding", *pooled)
        self.defaults = ("last_hidden_state", *pooled)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        first = hidden[:, 0]
        pooled = self.activation(self.pooler(weights, first)) if self.pooler else first
        return {"image_embedding": first, **dict.fromkeys(self.outputs[1:], pooled)}


class ImageClassification(Head):
    """A classifier of images: ``logits`` (batch, labels) from the first token.

    ``out`` has the prefix of the classifier's weights by the name of its output; several are one classifier for each
    learned token, and ``logits`` is their mean (Touvron et al., 2020). With ``patches`` the mean of the patches' tokens
    is a second input.
    """

    tasks = ("image-classification",)

    def __init__(
        self, encoder: VisionEncoder, labels: Labels, out: Mapping[str, str], *, patches: bool = False
    ) -> None:
        self.labels = labels
        self.first_patch = encoder.first_patch if patches else None
        features = encoder.config.hidden_size * (2 if patches else 1)
        self.out = {name: Linear(encoder.scope / prefix, features, len(labels.names)) for name, prefix in out.items()}
        self.outputs = self.defaults = ("logits", *(name for name in out if name != "logits"))

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        result = {}
        for token, (name, classify) in enumerate(self.out.items()):
            x = hidden[:, token]
            if self.first_patch is not None:
                x = concat([x, mean(hidden[:, self.first_patch :], axis=1)], axis=1)
            result[name] = classify(weights, x)
        if "logits" not in result:
            first, second = result.values()
            result["logits"] = divide(first + second, 2.0)
        return result


class PatchesClassification(Head):
    """A classifier of images: ``logits`` (batch, labels) from the mean of the patches."""

    tasks = ("image-classification",)

    def __init__(self, scope: Scope, size: int, labels: Labels) -> None:
        self.labels, self.out = labels, Linear(scope, size, len(labels.names))

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        return {"logits": self.out(weights, mean(hidden[:, 1:], axis=1))}


def vision_model(folder: Checkpoint, encoder: VisionEncoder, head: Head, names: WeightMapping) -> EncoderModel:
    """Build ``encoder``, whose inputs are images, with ``head``."""
    c = encoder.config
    inputs = ImageInputs(c.num_channels, c.image_size, c.patch_size)
    return EncoderModel(folder, encoder.manifest, encoder, head, names, inputs)
