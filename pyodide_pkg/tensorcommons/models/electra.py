"""ELECTRA (Clark et al., 2020, https://arxiv.org/abs/2003.10555): BERT's encoder over embeddings of their own size."""

from __future__ import annotations

from .encoder import Encoder, EncoderConfig
from .folder import Folder
from .heads import WORDS, Classes, Words, text_head
from .names import Names
from .text_model import TextModel, text_inputs

NAMES = Names(
    prefixes=("electra.",),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    tied={"generator_lm_head.weight": WORDS},
    ignored=(r"embeddings\.position_ids",),
)


def build(folder: Folder) -> TextModel:
    """The model that ``config.json`` asks for."""
    config = EncoderConfig.of(folder, defaults={"embedding_size": 128, "type_vocab_size": 2})
    words = Words("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias", "gelu")
    classes = Classes("classifier.dense", "gelu", "classifier.out_proj")
    head = text_head(folder, "Electra", config, words, classes)
    encoder = Encoder.plain(config, projects=config.width != config.hidden_size)
    return TextModel("electra", encoder, head, NAMES, text_inputs(config, head))
