"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805): the encoder, and the heads of its checkpoints."""

from __future__ import annotations

from .checkpoint import Checkpoint
from .config import check_fixed
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .weight_mapping import WeightMapping

NAMES = WeightMapping(
    prefixes=("bert.",),
    tied={"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(r"pooler\..*", r"cls\.predictions\.bias", r"cls\.seq_relationship\..*"),
)


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    check_fixed(folder.config, folder.file, is_decoder=False, add_cross_attention=False)
    config = EncoderConfig.of(folder, defaults={"type_vocab_size": 2}, fixed={"embedding_size": 0})
    out, transform = "cls.predictions", "cls.predictions.transform"
    names = f"{transform}.dense", f"{transform}.LayerNorm", f"{out}.decoder", f"{out}.bias"
    words, classes = Words(*names, config.hidden_act), Classes("pooler.dense", "tanh", "classifier")
    return text_model(folder, "Bert", Encoder(config), NAMES, words, classes, pooler="pooler.dense")
