"""Small classifiers on a shared encoder: an MLP on the pooled vectors of one or two sentences.

The features of two sentences are those of InferSent (Conneau et al., 2017, https://arxiv.org/abs/1705.02364):
``[u, v, |u - v|, u * v]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..errors import InvalidWeights, ShapeMismatch, quoted
from ..nn import linear
from ..nn.pooling import Pooling
from ..ops import abs, concat, multiply, relu, subtract
from ..shapes import Shape
from ..tensor import Tensor
from .heads import Labels
from .text_model import TextModel
from .weight_mapping import WeightMapping


@dataclass(frozen=True)
class MlpHeadConfig:
    """The head's ``config.json``. ``layer_sizes`` go from the features to the labels; ``base`` is the encoder."""

    base: str
    pooling: Pooling
    pair: bool
    layer_sizes: tuple[int, ...]
    output_activation: str
    labels: tuple[str, ...]

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], file: str) -> MlpHeadConfig:
        """Read a parsed ``config.json``. Raises InvalidWeights for a missing or wrong field."""
        sizes = config.get("layer_sizes")
        if not (isinstance(sizes, list) and len(sizes) > 1 and all(type(size) is int and size > 0 for size in sizes)):
            raise InvalidWeights(file, f"layer_sizes must be two or more integers from 1, not {quoted(sizes)}")
        base = config.get("base_model_name_or_path")
        if not (isinstance(base, str) and base):
            raise InvalidWeights(file, f"base_model_name_or_path must name the encoder, not {quoted(base)}")
        mode, act = config.get("pooling"), config.get("output_activation")
        if mode not in ("cls", "mean") or act not in ("softmax", "sigmoid") or config.get("hidden_act") != "relu":
            raise InvalidWeights(
                file,
                f"pooling {quoted(mode)} must be cls or mean, output_activation {quoted(act)} softmax or sigmoid, and "
                f"hidden_act {quoted(config.get('hidden_act'))} relu",
            )
        table = config.get("id2label")
        if not isinstance(table, dict) or set(table) != {str(i) for i in range(sizes[-1])}:
            raise InvalidWeights(file, f"id2label must name the {sizes[-1]} labels, not {quoted(table)}")
        labels = tuple(str(table[str(i)]) for i in range(sizes[-1]))
        pooling = Pooling(mode, bool(config.get("normalize", False)))
        return cls(base, pooling, bool(config.get("pair", False)), tuple(sizes), act, labels)


class MlpHead:
    """An MLP on the pooled output of ``base``. A head of pairs pairs the first half of the batch with the second."""

    outputs: tuple[str, ...] = ("logits",)
    defaults: tuple[str, ...] = ("logits",)
    names = WeightMapping()

    def __init__(self, config: MlpHeadConfig, base: TextModel, file: str) -> None:
        self.config = config
        self.model_type = base.model_type
        self.tasks: tuple[str, ...] = (
            ("text-classification", "zero-shot/nli") if config.pair else ("text-classification",)
        )
        self.base = base
        self.labels = Labels(config.labels, config.output_activation)
        self.inputs = replace(base.inputs, per_token=frozenset())  # logits have no sequence axis
        features = base.config.hidden_size * (4 if config.pair else 1)
        if config.layer_sizes[0] != features:
            raise InvalidWeights(
                file, f"layer_sizes must begin with the {features} features of the base, not {config.layer_sizes[0]}"
            )

    def parameters(self) -> dict[str, Shape]:
        """Return the parameters of the encoder and of the head."""
        return self.base.encoder.parameters() | self.layers()

    def layers(self) -> dict[str, Shape]:
        """Return the head's own parameters ``layers.<i>``, those in its file."""
        pairs = enumerate(pairwise(self.config.layer_sizes))
        layers = [linear.parameters(f"layers.{i}", inputs, outputs) for i, (inputs, outputs) in pairs]
        return {name: shape for layer in layers for name, shape in layer.items()}

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute logits (batch, labels), or (batch / 2, labels) for pairs, from the encoder's inputs."""
        hidden = self.base.encoder.forward(weights, inputs)
        x = self.config.pooling(hidden, inputs["attention_mask"])  # (batch, hidden)
        if self.config.pair:
            if x.shape[0] % 2:
                raise ShapeMismatch(
                    f"a head of pairs needs an even batch (first texts, then second ones), not {x.shape[0]}"
                )
            half = x.shape[0] // 2
            u, v = x[:half], x[half:]
            x = concat([u, v, abs(subtract(u, v)), multiply(u, v)], axis=1)
        last = len(self.config.layer_sizes) - 2
        for i in range(last + 1):
            x = linear.forward(weights, f"layers.{i}", x)
            x = relu(x) if i < last else x
        return {"logits": x}
