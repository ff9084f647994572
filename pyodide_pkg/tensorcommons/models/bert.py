"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805): the encoder, and the heads of its checkpoints."""

from __future__ import annotations

from .encoder import Encoder, EncoderConfig
from .folder import Folder
from .heads import (
    WORDS,
    Embedder,
    Labels,
    MaskedLM,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
    choose,
)
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
    pooler = "pooler.dense" if folder.has("pooler.dense.weight") else ""
    size, transform = config.hidden_size, "cls.predictions.transform"
    head = choose(
        folder,
        "Bert",
        {
            "Model": lambda: Embedder(size, folder.pooling, pooler),
            "ForMaskedLM": lambda: MaskedLM(
                (size, size, config.vocab_size),
                f"{transform}.dense",
                f"{transform}.LayerNorm",
                "cls.predictions.bias",
                config.hidden_act,
                config.layer_norm_eps,
            ),
            "ForSequenceClassification": lambda: SequenceClassification(
                size, Labels.of(folder), "pooler.dense", "tanh", "classifier"
            ),
            "ForTokenClassification": lambda: TokenClassification(size, Labels.of(folder)),
            "ForQuestionAnswering": lambda: QuestionAnswering(size),
        },
    )
    return TextModel("bert", Encoder.plain(config), head, NAMES, text_inputs(config, head))
