"""Small classifiers on a shared encoder: an MLP on the pooled vectors of one or two sentences.

The features of two sentences are those of InferSent (Conneau et al., 2017, https://arxiv.org/abs/1705.02364):
``[u, v, |u - v|, u * v]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..errors import InvalidWeights, ShapeMismatch, UnsupportedModel, quoted
from ..nn import Linear, Scope, Weights
from ..ops import abs, concat, multiply, relu, subtract
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .encoder_model import EncoderModel
from .heads import Labels
from .sentence import Sentence, SentenceLayers
from .text import TextInputs
from .weight_mapping import WeightMapping


@dataclass(frozen=True)
class MlpHeadConfig:
    """The head's ``config.json``. ``layer_sizes`` go from the features to the labels; ``base`` is the encoder."""

    base: str
    sentence: Sentence
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
        sentence = Sentence((mode,), (None,) if config.get("normalize") else ())
        return cls(base, sentence, bool(config.get("pair", False)), tuple(sizes), act, labels)


class MlpHead:
    """An MLP on the pooled output of the encoder ``base``, whose weights are in another folder (the checkpoint 0).

    A head of pairs pairs the first half of the batch with the second.
    """

    outputs: tuple[str, ...] = ("logits",)
    defaults: tuple[str, ...] = ("logits",)

    def __init__(self, config: MlpHeadConfig, base: EncoderModel, file: str) -> None:
        self.config = config
        self.model_type = base.model_type
        pairs: tuple[str, ...] = ("zero-shot/nli",) if config.pair else ()
        self.tasks = ("text-classification", *pairs)
        self.encoder = base.encoder
        self.pool = SentenceLayers(Scope({}), config.sentence, base.config.hidden_size, file)
        self.labels = Labels(config.labels, config.output_activation)
        self.names = (replace(base.names[0], is_base=True), WeightMapping())
        assert isinstance(base.inputs, TextInputs)
        self.inputs = replace(base.inputs, per_token=frozenset())  # logits have no sequence axis
        features = base.config.hidden_size * (4 if config.pair else 1)
        if config.layer_sizes[0] != features:
            raise InvalidWeights(
                file, f"layer_sizes must begin with the {features} features of the base, not {config.layer_sizes[0]}"
            )
        scope = Scope(dict(base.encoder.manifest), "layers.", checkpoint=1)
        self.manifest = scope.manifest
        self.layers = [Linear(scope / i, *sizes) for i, sizes in enumerate(pairwise(config.layer_sizes))]

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute logits (batch, labels), or (batch / 2, labels) for pairs, from the encoder's inputs."""
        hidden = self.encoder(weights, inputs)
        x = self.pool(weights, hidden, inputs["attention_mask"])  # (batch, hidden)
        if self.config.pair:
            if x.shape[0] % 2:
                raise ShapeMismatch(
                    f"a head of pairs needs an even batch (first texts, then second ones), not {x.shape[0]}"
                )
            half = x.shape[0] // 2
            u, v = x[:half], x[half:]
            x = concat([u, v, abs(subtract(u, v)), multiply(u, v)], axis=1)
        *hidden_layers, last = self.layers
        for layer in hidden_layers:
            x = relu(layer(weights, x))
        return {"logits": last(weights, x)}


def base_of(config: Mapping[str, Any], file: str) -> str:
    """Return the address of the encoder's folder. Raises InvalidWeights for a missing or wrong field."""
    return MlpHeadConfig.from_dict(config, file).base


def build(folder: Checkpoint, families: Mapping[str, Callable[[Checkpoint], EncoderModel]]) -> MlpHead:
    """Build the head on the encoder of ``folder.base``, which is one of ``families``.

    Raises:
        UnsupportedModel: the family is not supported.
    """
    assert folder.base is not None
    kind = folder.base.config.get("model_type")
    if str(kind) not in families:
        raise UnsupportedModel(f"mlp-head on {kind}", [f"mlp-head on {each}" for each in families])
    return MlpHead(MlpHeadConfig.from_dict(folder.config, folder.file), families[str(kind)](folder.base), folder.file)
