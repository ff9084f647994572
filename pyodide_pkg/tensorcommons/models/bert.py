"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805): the encoder, and the heads of its checkpoints."""

from __future__ import annotations

from .encoder import Encoder, EncoderConfig
from .folder import Folder
from .heads import WORDS, Classes, Words, text_head
from .names import Names
from .text_model import TextModel, text_inputs

NAMES = Names(
    prefixes=("bert.",),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    tied={"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(r"embeddings\.position_ids", r"pooler\..*", r"cls\.seq_relationship\..*"),
)


def build(folder: Folder) -> TextModel:
    """The model that ``config.json`` asks for; the pooler if the checkpoint has one."""
    config = EncoderConfig.of(folder)
    transform = "cls.predictions.transform"
    words = Words(f"{transform}.dense", f"{transform}.LayerNorm", "cls.predictions.bias", config.hidden_act)
    classes = Classes("pooler.dense", "tanh", "classifier")
    head = text_head(folder, "Bert", config, words, classes, pooler="pooler.dense")
    return TextModel("bert", Encoder.plain(config), head, NAMES, text_inputs(config, head))
