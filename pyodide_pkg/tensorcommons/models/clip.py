"""CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020): images and texts in one space of features.

Two pre-norm transformers, one over the patches of an image, one over the tokens of a text, each of which attends to
earlier ones. An image's vector is that of the learned first token, a text's that of its end token. Projected to one
size, their cosines are the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import TensorCommonsError
from ..nn import Conv2d, Embedding, FeedForward, LayerNorm, Linear, PreNormLayer, Scope, Weights, pooling
from ..nn.attention import FAIRSEQ, Attention
from ..ops import argmax, astype, broadcast_to, concat, equal, exp, matmul, multiply, permute_dims, reshape
from ..shapes import Shape
from ..tensor import Tensor
from .architecture import Architecture, Prepared
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, check_fixed
from .decoder import KVState
from .encoder import EncoderConfig
from .encoder_model import EncoderModel
from .heads import Head, Labels, by_class
from .image import ImageInputs
from .text import TextInputs
from .vision import PatchesClassification, VisionConfig
from .weight_mapping import WeightMapping

LARGEST_ID = 2  # as eos_token_id: in files from before 2023, the end token is the largest of a text
TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
}
IMAGE_DEFAULTS = {"patch_size": 32, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}
NOT_READ = {"pad_token_id": 1, "position_embedding_type": "absolute", "pooler_act": "tanh"}


@dataclass(frozen=True)
class TextConfig(EncoderConfig):
    """The fields of the text tower."""

    eos_token_id: int = 49407
    projection_dim: int = 512


@dataclass(frozen=True)
class ImageConfig(VisionConfig):
    """The fields of the image tower; sides in pixels."""

    projection_dim: int = 512


text_config = partial(TextConfig.of, defaults=TEXT_DEFAULTS, fixed=NOT_READ)
image_config = partial(ImageConfig.of, defaults=IMAGE_DEFAULTS, fixed=NOT_READ)


def _layers(scope: Scope, c: TextConfig | ImageConfig) -> list[PreNormLayer]:
    size, inner, act = c.hidden_size, c.intermediate_size, ACTIVATIONS[c.hidden_act]
    return [
        PreNormLayer(
            LayerNorm(layer / "layer_norm1", size, c.layer_norm_eps),
            Attention(layer / "self_attn", size, c.num_attention_heads, names=FAIRSEQ),
            LayerNorm(layer / "layer_norm2", size, c.layer_norm_eps),
            FeedForward(Linear(layer / "mlp.fc1", size, inner), act, Linear(layer / "mlp.fc2", inner, size)),
        )
        for layer in (scope / "encoder.layers" / i for i in range(c.num_hidden_layers))
    ]


class TextTower:
    """An encoder of texts, each of whose tokens attends to itself and to earlier ones."""

    kind, prefix, projection = "text", "text_model", "text_projection"
    tasks: tuple[str, ...] = ()

    def __init__(self, scope: Scope, c: TextConfig) -> None:
        self.config, self.manifest, size, tables = c, scope.manifest, c.hidden_size, scope / "embeddings"
        self.words = Embedding(tables / "token_embedding", c.vocab_size, size)
        self.positions = tables.param("position_embedding.weight", (c.max_position_embeddings, size), "positions")
        self.layers = _layers(scope, c)
        self.norm = LayerNorm(scope / "final_layer_norm", size, c.layer_norm_eps)
        self.inputs = TextInputs(c.vocab_size, c.max_position_embeddings, per_token=frozenset({"last_hidden_state"}))

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``input_ids`` and ``attention_mask``, int32 (batch, sequence) -> (batch, sequence, size)."""
        ids = inputs["input_ids"]
        mask = KVState.whole(ids, inputs["attention_mask"]).mask
        x = self.words(weights, ids) + weights[self.positions].float32[: ids.shape[1]]
        for layer in self.layers:
            x = layer(weights, x, mask)
        return self.norm(weights, x)

    def pool(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the vector of each text's end token, (batch, size)."""
        ids, end = inputs["input_ids"], self.config.eos_token_id
        ends = ids if end == LARGEST_ID else astype(equal(ids, end), "int32")
        return pooling.token_at(hidden, argmax(ends, axis=1))


class ImageTower:
    """An encoder of images, as a learned token and one for each patch."""

    kind, prefix, projection = "image", "vision_model", "visual_projection"
    tasks: tuple[str, ...] = ("image-feature-extraction",)

    def __init__(self, scope: Scope, c: ImageConfig) -> None:
        self.config, self.manifest, size, tables = c, scope.manifest, c.hidden_size, scope / "embeddings"
        patches = (c.image_size // c.patch_size) ** 2
        self.first = tables.param("class_embedding", (size,), "vector")
        self.project = Conv2d(tables / "patch_embedding", c.num_channels, size, c.patch_size, c.patch_size, bias=False)
        self.positions = tables.param("position_embedding.weight", (patches + 1, size), "positions")
        self.first_norm = LayerNorm(scope / "pre_layrnorm", size, c.layer_norm_eps)
        self.layers = _layers(scope, c)
        self.norm = LayerNorm(scope / "post_layernorm", size, c.layer_norm_eps)
        self.inputs = ImageInputs(c.num_channels, c.image_size, c.patch_size, is_fixed=True)

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``pixel_values`` (batch, channels, height, width) -> (batch, 1 + patches, size)."""
        patches = self.project(weights, inputs["pixel_values"])
        batch, size, rows, columns = patches.shape
        patches = permute_dims(reshape(patches, (batch, size, rows * columns)), (0, 2, 1))
        first = broadcast_to(weights[self.first].tensor, (batch, 1, size))
        x = self.first_norm(weights, concat([first, patches], axis=1) + weights[self.positions].float32)
        for layer in self.layers:
            x = layer(weights, x)
        return x

    def pool(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the normalized vector of each image's first token, (batch, size)."""
        return self.norm(weights, hidden[:, 0])


class Features(Head):
    """The vectors of a tower, ``pooler_output``; with the ``scope`` of its projection, the projected vectors."""

    def __init__(self, tower: TextTower | ImageTower, scope: Scope | None = None) -> None:
        self.tower, c = tower, tower.config
        self.project = Linear(scope / tower.projection, c.hidden_size, c.projection_dim, bias=False) if scope else None
        self.outputs = (f"{tower.kind}_embeds" if scope else "pooler_output",)
        self.tasks, self.defaults = tower.tasks, ("last_hidden_state", *self.outputs)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        pooled = self.tower.pool(weights, hidden, inputs)
        return {self.outputs[0]: self.project(weights, pooled) if self.project else pooled}


@dataclass(frozen=True)
class TextImageInputs:
    """The inputs of both towers. A call may leave out those of one, and gets the features of the other."""

    text: TextInputs
    image: ImageInputs

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that a call may pass."""
        return (*self.text.names, *self.image.names)

    @property
    def size(self) -> int:
        """The side of an image in pixels."""
        return self.image.size

    @property
    def patch(self) -> int:
        """The side of a patch in pixels."""
        return self.image.patch

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """See :class:`TextInputs` and :class:`ImageInputs`. Raises TensorCommonsError if both have no input."""
        prepared = Prepared({})
        for part in (self.text, self.image):
            given = {name: inputs[name] for name in part.names if inputs.get(name) is not None}
            if given:
                prepared = Prepared({**prepared.arrays, **part.prepare(given, model).arrays})
        if not prepared.arrays:
            raise TensorCommonsError(f"{model} needs an input; inputs: {', '.join(self.names)}")
        return prepared

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Create a text and an image; ``shape`` is (batch, sequence) of texts."""
        return {**self.text.example(shape), **self.image.example()}


class Clip:
    """Both towers.

    ``text_features`` (texts, size) and ``image_features`` (images, size) are the projected vectors, ``text_embeds`` and
    ``image_embeds`` the same of length 1; ``logits_per_image`` (images, texts) are their scaled cosines.
    """

    model_type = "clip"
    tasks: tuple[str, ...] = ("zero-shot-image-classification",)
    defaults: tuple[str, ...] = ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")
    outputs: tuple[str, ...] = (*defaults, "text_features", "image_features")

    def __init__(self, scope: Scope, texts: TextConfig, images: ImageConfig) -> None:
        self.config, self.manifest, self.names = texts, scope.manifest, (WeightMapping(),)
        text, image = TextTower(scope / TextTower.prefix, texts), ImageTower(scope / ImageTower.prefix, images)
        self.heads = Features(text, scope), Features(image, scope)
        self.scale = scope.param("logit_scale", (), "vector")
        self.inputs = TextImageInputs(text.inputs, image.inputs)

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs for which there are inputs."""
        result: dict[str, Tensor] = {}
        for head in self.heads:
            tower = head.tower
            if tower.inputs.names[0] in inputs:
                (features,) = head(weights, tower(weights, inputs), inputs).values()
                result |= {f"{tower.kind}_features": features, f"{tower.kind}_embeds": pooling.normalize(features)}
        if len(result) == 4:
            cosines = matmul(result["text_embeds"], permute_dims(result["image_embeds"], (1, 0)))
            logits = multiply(cosines, exp(weights[self.scale].tensor))
            result |= {"logits_per_text": logits, "logits_per_image": permute_dims(logits, (1, 0))}
        return result


def build(folder: Checkpoint) -> Architecture:
    """Build both towers, or the only one of the type "clip_text_model" or "clip_vision_model"."""
    scope, kind = Scope({}), str(folder.config["model_type"])
    if kind == "clip_text_model":
        return _alone(folder, "CLIPText", TextTower(scope, text_config(folder)))
    if kind == "clip_vision_model":
        return _alone(folder, "CLIPVision", ImageTower(scope, image_config(folder)))
    check_fixed(folder.config, folder.file)

    def part(name: str) -> Checkpoint:  # "text_config_dict" precedes "text_config"
        named = f"{name}_config" if folder.config.get(f"{name}_config_dict") is None else f"{name}_config_dict"
        return folder.part(named, projection_dim=folder.config.get("projection_dim"))

    texts, images = text_config(part("text")), image_config(part("vision"))
    kinds: dict[str, Callable[[], Clip | EncoderModel]] = {
        "Model": lambda: Clip(scope, texts, images),
        "ForImageClassification": lambda: _with_head(
            folder,
            ImageTower(scope, images),
            PatchesClassification(scope / "classifier", images.hidden_size, Labels.of(folder)),
        ),
    }
    return by_class(folder, "CLIP", kinds)


def _alone(folder: Checkpoint, family: str, tower: TextTower | ImageTower) -> EncoderModel:
    """Build a model of one tower, with or without its projection."""
    heads = {"Model": lambda: Features(tower), "ModelWithProjection": lambda: Features(tower, Scope(tower.manifest))}
    return _with_head(folder, tower, by_class(folder, family, heads))


def _with_head(folder: Checkpoint, tower: TextTower | ImageTower, head: Head) -> EncoderModel:
    names = WeightMapping(prefixes=(f"{tower.prefix}.",))
    return EncoderModel(folder, tower.manifest, tower, head, names, tower.inputs)
