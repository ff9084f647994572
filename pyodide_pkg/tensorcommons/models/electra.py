"""ELECTRA (Clark et al., 2020, https://arxiv.org/abs/2003.10555): BERT's encoder over embeddings of another size."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .config import check_fixed
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .weight_mapping import WeightMapping

NAMES = WeightMapping(
    prefixes=("electra.",),
    tied={"generator_lm_head.weight": WORDS},
    ignored=(r"discriminator_predictions\..*",),
)
DEFAULTS = {
    "embedding_size": 128,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "type_vocab_size": 2,
}


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``."""
    check_fixed(folder.config, folder.file, is_decoder=False, add_cross_attention=False)
    config = EncoderConfig.of(folder, defaults=DEFAULTS)
    dense, norm = "generator_predictions.dense", "generator_predictions.LayerNorm"
    words = Words(dense, norm, "generator_lm_head", "generator_lm_head.bias", "gelu")
    classes = Classes("classifier.dense", "gelu", "classifier.out_proj")
    encoder = Encoder(config, projects=config.width != config.hidden_size)
    return text_model(folder, "Electra", encoder, NAMES, words, classes)
