"""ELECTRA (Clark et al., 2020, https://arxiv.org/abs/2003.10555): BERT's encoder over embeddings of their own size."""

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
    prefixes=("electra.",),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    tied={"generator_lm_head.weight": WORDS},
    ignored=(r"embeddings\.position_ids",),
)


def build(folder: Folder) -> TextModel:
    """The model that ``config.json`` asks for."""
    config = EncoderConfig.of(folder, defaults={"embedding_size": 128, "type_vocab_size": 2})
    size = config.hidden_size
    head = choose(
        folder,
        "Electra",
        {
            "Model": lambda: Embedder(size, folder.pooling),
            "ForMaskedLM": lambda: MaskedLM(
                (size, config.width, config.vocab_size),
                "generator_predictions.dense",
                "generator_predictions.LayerNorm",
                "generator_lm_head.bias",
                "gelu",
                config.layer_norm_eps,
            ),
            "ForSequenceClassification": lambda: SequenceClassification(
                size, Labels.of(folder), "classifier.dense", "gelu", "classifier.out_proj"
            ),
            "ForTokenClassification": lambda: TokenClassification(size, Labels.of(folder)),
            "ForQuestionAnswering": lambda: QuestionAnswering(size),
        },
    )
    encoder = Encoder.plain(config, projects=config.width != size)
    return TextModel("electra", encoder, head, NAMES, text_inputs(config, head))
