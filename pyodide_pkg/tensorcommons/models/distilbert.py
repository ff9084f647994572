"""DistilBERT (Sanh et al., 2019, https://arxiv.org/abs/1910.01108): BERT with half the layers and no token types."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .weight_mapping import WeightMapping

SPELLED = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
ALIASES = {name: name for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
FIXED = {"type_vocab_size": 0, "embedding_size": 0, "layer_norm_eps": 1e-12}
NAMES = WeightMapping(
    prefixes=("distilbert.",),
    renamed={
        "transformer.layer.": "encoder.layer.",
        ".attention.q_lin.": ".attention.self.query.",
        ".attention.k_lin.": ".attention.self.key.",
        ".attention.v_lin.": ".attention.self.value.",
        ".attention.out_lin.": ".attention.output.dense.",
        ".sa_layer_norm.": ".attention.output.LayerNorm.",
        ".ffn.lin1.": ".intermediate.dense.",
        ".ffn.lin2.": ".output.dense.",
        ".output_layer_norm.": ".output.LayerNorm.",
    },
    tied={"vocab_projector.weight": WORDS},
)


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``."""
    config = EncoderConfig.of(folder, SPELLED, aliases=ALIASES, defaults={"n_layers": 6}, fixed=FIXED)
    names = "vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"
    words = Words(*names, config.hidden_act)
    classes = Classes("pre_classifier", "relu", "classifier")
    return text_model(folder, "DistilBert", Encoder(config), NAMES, words, classes)
