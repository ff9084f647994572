"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805): the encoder, and the heads of its checkpoints."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .config import check_fixed
from .encoder import Encoder, EncoderConfig
from .heads import WORDS, Classes, Words, text_head
from .text_model import TextModel, text_inputs
from .weight_mapping import WeightMapping

NAMES = WeightMapping(
    prefixes=("bert.",),
    tied={"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(r"pooler\..*", r"cls\.predictions\.bias", r"cls\.seq_relationship\..*"),
)


def build(folder: Checkpoint) -> TextModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    check_fixed(folder.config, folder.file, is_decoder=False, add_cross_attention=False)
    config = EncoderConfig.of(folder, defaults={"type_vocab_size": 2}, fixed={"embedding_size": 0})
    layers = "cls.predictions"
    words = Words(f"{layers}.transform.dense", f"{layers}.transform.LayerNorm", f"{layers}.decoder", f"{layers}.bias")
    classes = Classes("pooler.dense", "tanh", "classifier")
    head = text_head(folder, "Bert", config, words, classes, config.hidden_act, pooler="pooler.dense")
    return TextModel("bert", Encoder.plain(config), head, NAMES, text_inputs(config, head))
