"""CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020): images and texts in one space of features.

Two pre-norm transformers, one over the patches of an image, one over the tokens of a text, each of which attends to
earlier ones. An image's vector is that of the learned first token, a text's that of its end token. Projected to one
size, their cosines are the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidWeights, quoted
from ..nn import Conv2d, Embedding, FeedForward, LayerNorm, Linear, Scope, Weights, pooling
from ..nn.attention import FAIRSEQ, Attention
from ..ops import argmax, astype, broadcast_to, concat, equal, exp, matmul, multiply, permute_dims, reshape
from ..tensor import Tensor
from .architecture import Architecture
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, check_heads, read_config
from .decoder import KVState
from .encoder_model import EncoderModel
from .heads import Head, Labels, by_class
from .image import ImageInputs
from .text import TextInputs
from .text_image import TextImageInputs
from .vision import PatchesClassification, square_sides
from .weight_mapping import WeightMapping

LARGEST_ID = 2  # as eos_token_id: in files from before 2023, the end token is the largest of a text


@dataclass(frozen=True)
class TowerConfig:
    """The fields that both towers have; sizes in elements."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @classmethod
    def of(cls, folder: Checkpoint) -> Any:
        """Read the configuration. Raises InvalidWeights for a field that is wrong or not supported."""
        check_fixed(folder.config, folder.file)
        config = read_config(cls, square_sides(folder), folder.file)
        check_heads(config.hidden_size, config.num_attention_heads, folder.file)
        activation(config.hidden_act, folder.file)
        return config


@dataclass(frozen=True)
class TextConfig(TowerConfig):
    """The fields of the text tower."""

    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclass(frozen=True)
class ImageConfig(TowerConfig):
    """The fields of the image tower; sides in pixels."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32


class Layer:
    """Attention and a feed-forward part, each over normalized values and added to its input."""

    def __init__(self, scope: Scope, c: TowerConfig) -> None:
        size, act = c.hidden_size, ACTIVATIONS[c.hidden_act]
        self.attention_norm = LayerNorm(scope / "layer_norm1", size, c.layer_norm_eps)
        self.attention = Attention(scope / "self_attn", size, c.num_attention_heads, names=FAIRSEQ)
        self.norm = LayerNorm(scope / "layer_norm2", size, c.layer_norm_eps)
        first, second = (size, c.intermediate_size), (c.intermediate_size, size)
        self.feed_forward = FeedForward(Linear(scope / "mlp.fc1", *first), act, Linear(scope / "mlp.fc2", *second))

    def __call__(self, weights: Weights, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply the layer to (batch, sequence, size)."""
        x = x + self.attention(weights, self.attention_norm(weights, x), mask)
        return x + self.feed_forward(weights, self.norm(weights, x))


class TextTower:
    """An encoder of texts, each of whose tokens attends to itself and to earlier ones."""

    def __init__(self, scope: Scope, c: TextConfig) -> None:
        self.config, self.manifest, size = c, scope.manifest, c.hidden_size
        self.words = Embedding(scope / "embeddings.token_embedding", c.vocab_size, size)
        shape = c.max_position_embeddings, size
        self.positions = scope.param("embeddings.position_embedding.weight", shape, "positions")
        self.layers = [Layer(scope / "encoder.layers" / i, c) for i in range(c.num_hidden_layers)]
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

    def __init__(self, scope: Scope, c: ImageConfig) -> None:
        self.config, self.manifest, size, tables = c, scope.manifest, c.hidden_size, scope / "embeddings"
        patches = (c.image_size // c.patch_size) ** 2
        self.first = tables.param("class_embedding", (size,), "vector")
        self.project = Conv2d(tables / "patch_embedding", c.num_channels, size, c.patch_size, c.patch_size, bias=False)
        self.positions = tables.param("position_embedding.weight", (patches + 1, size), "positions")
        self.first_norm = LayerNorm(scope / "pre_layrnorm", size, c.layer_norm_eps)
        self.layers = [Layer(scope / "encoder.layers" / i, c) for i in range(c.num_hidden_layers)]
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
    """The vectors of one tower: ``pooler_output``, or the features to which ``project`` maps them, named ``name``."""

    def __init__(
        self, tower: TextTower | ImageTower, name: str = "pooler_output", project: Linear | None = None
    ) -> None:
        self.tower, self.name, self.project = tower, name, project
        self.tasks = ("image-feature-extraction",) if isinstance(tower, ImageTower) else ()
        self.outputs, self.defaults = (name,), ("last_hidden_state", name)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        pooled = self.tower.pool(weights, hidden, inputs)
        return {self.name: self.project(weights, pooled) if self.project else pooled}


class Clip:
    """Both towers.

    ``text_features`` (texts, size) and ``image_features`` (images, size) are the projected vectors, ``text_embeds`` and
    ``image_embeds`` the same of length 1; ``logits_per_image`` (images, texts) are their scaled cosines.
    """

    model_type = "clip"
    tasks: tuple[str, ...] = ("zero-shot-image-classification",)
    defaults: tuple[str, ...] = ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")
    outputs: tuple[str, ...] = (*defaults, "text_features", "image_features")

    def __init__(self, scope: Scope, text: TextConfig, image: ImageConfig, size: int) -> None:
        self.config, self.manifest, self.names = text, scope.manifest, (WeightMapping(),)
        self.text, self.image = TextTower(scope / "text_model", text), ImageTower(scope / "vision_model", image)
        self.of_text = Linear(scope / "text_projection", text.hidden_size, size, bias=False)
        self.of_image = Linear(scope / "visual_projection", image.hidden_size, size, bias=False)
        self.scale = scope.param("logit_scale", (), "vector")
        self.inputs = TextImageInputs(self.text.inputs, self.image.inputs)

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs for which there are inputs."""
        result: dict[str, Tensor] = {}
        for kind, name, tower, project in (
            ("text", "input_ids", self.text, self.of_text),
            ("image", "pixel_values", self.image, self.of_image),
        ):
            if name in inputs:
                features = project(weights, tower.pool(weights, tower(weights, inputs), inputs))
                result |= {f"{kind}_features": features, f"{kind}_embeds": pooling.normalize(features)}
        if len(result) == 4:
            cosines = matmul(result["text_embeds"], permute_dims(result["image_embeds"], (1, 0)))
            logits = multiply(cosines, exp(weights[self.scale].tensor))
            result |= {"logits_per_text": logits, "logits_per_image": permute_dims(logits, (1, 0))}
        return result


def build(folder: Checkpoint) -> Architecture:
    """Build both towers, or the only one of the type "clip_text_model" or "clip_vision_model"."""
    check_fixed(folder.config, folder.file)
    scope, kind = Scope({}), str(folder.config["model_type"])
    if kind != "clip":
        tower = (
            TextTower(scope, TextConfig.of(folder))
            if kind == "clip_text_model"
            else ImageTower(scope, ImageConfig.of(folder))
        )
        return _alone(folder, scope, tower)
    size = read_config(TowerConfig, {"projection_dim": folder.config.get("projection_dim")}, folder.file).projection_dim
    texts, images = TextConfig.of(_part(folder, "text")), ImageConfig.of(_part(folder, "vision"))

    def classifier() -> EncoderModel:
        tower, labels = ImageTower(scope, images), Labels.of(folder)
        head = PatchesClassification(scope / "classifier", images.hidden_size, labels)
        return EncoderModel(
            folder, scope.manifest, tower, head, WeightMapping(prefixes=("vision_model.",)), tower.inputs
        )

    kinds: dict[str, Callable[[], Clip | EncoderModel]] = {
        "Model": lambda: Clip(scope, texts, images, size),
        "ForImageClassification": classifier,
    }
    return by_class(folder, "CLIP", kinds)


def _alone(folder: Checkpoint, scope: Scope, tower: TextTower | ImageTower) -> EncoderModel:
    """Build a model of one tower, with or without its projection."""
    family, part, name = ("Text", "text", "text") if isinstance(tower, TextTower) else ("Vision", "visual", "image")
    sizes = tower.config.hidden_size, tower.config.projection_dim
    kinds = {
        "Model": lambda: Features(tower),
        "ModelWithProjection": lambda: Features(
            tower, f"{name}_embeds", Linear(scope / f"{part}_projection", *sizes, bias=False)
        ),
    }
    head, names = by_class(folder, f"CLIP{family}", kinds), WeightMapping(prefixes=(f"{family.lower()}_model.",))
    return EncoderModel(folder, scope.manifest, tower, head, names, tower.inputs)


def _part(folder: Checkpoint, tower: str) -> Checkpoint:
    """Return the folder with the configuration of one tower; "text_config_dict" precedes "text_config" if both are set.

    Raises InvalidWeights unless it is an object.
    """
    name = f"{tower}_config"
    given = folder.config.get(f"{name}_dict")
    given = folder.config.get(name) or {} if given is None else given
    if not isinstance(given, dict):
        raise InvalidWeights(folder.file, f"{name} must be an object, not {quoted(given)}")
    return replace(folder, config=given)
