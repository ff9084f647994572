"""ALBERT (Lan et al., 2019, https://arxiv.org/abs/1909.11942): all layers of a group share one set of weights."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidWeights
from .checkpoint import Checkpoint
from .config import LAYERS, read_config
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .weight_mapping import WeightMapping

NAMES = WeightMapping(
    prefixes=("albert.",),
    renamed={
        "encoder.embedding_hidden_mapping_in.": "embeddings_project.",
        ".attention.query.": ".attention.self.query.",
        ".attention.key.": ".attention.self.key.",
        ".attention.value.": ".attention.self.value.",
        ".attention.dense.": ".attention.output.dense.",
        ".attention.LayerNorm.": ".attention.output.LayerNorm.",
        ".ffn.": ".intermediate.dense.",
        ".ffn_output.": ".output.dense.",
        ".full_layer_layer_norm.": ".output.LayerNorm.",
    },
    tied={"predictions.decoder.weight": WORDS, "predictions.decoder.bias": "predictions.bias"},
    ignored=(r"pooler\..*", r"predictions\.bias", r"sop_classifier\..*"),
)


DEFAULTS = {
    "vocab_size": 30000,
    "embedding_size": 128,
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "intermediate_size": 16384,
    "hidden_act": "gelu_new",
    "type_vocab_size": 2,
}


@dataclass(frozen=True)
class Groups:
    """Sharing of weights: the layers of a group share those of ``inner_group_num`` inner layers, run in turn."""

    num_hidden_groups: int = 1
    inner_group_num: int = 1


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    config = EncoderConfig.of(folder, defaults=DEFAULTS)
    groups = read_config(Groups, folder.config, folder.file)
    if config.num_hidden_layers * groups.inner_group_num > LAYERS:
        raise InvalidWeights(
            folder.file,
            f"inner_group_num {groups.inner_group_num} times num_hidden_layers {config.num_hidden_layers} "
            f"must be at most {LAYERS:,}",
        )
    words = Words("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias")
    classes = Classes("pooler", "tanh", "classifier")
    layers = [
        f"encoder.albert_layer_groups.{int(i / (config.num_hidden_layers / groups.num_hidden_groups))}"
        f".albert_layers.{inner}"
        for i in range(config.num_hidden_layers)
        for inner in range(groups.inner_group_num)
    ]
    encoder = Encoder(config, layers, projects=True)
    return text_model(folder, "Albert", encoder, NAMES, words, classes, pooler="pooler")
