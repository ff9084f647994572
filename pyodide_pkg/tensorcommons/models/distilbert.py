"""DistilBERT (Sanh et al., 2019, https://arxiv.org/abs/1910.01108): BERT with half the layers and no token types."""

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

SPELLED = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
NAMES = Names(
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
    ignored=(r"embeddings\.position_ids",),
)


def build(folder: Folder) -> TextModel:
    """The model that ``config.json`` asks for."""
    config = EncoderConfig.of(folder, SPELLED)
    size = config.hidden_size
    head = choose(
        folder,
        "DistilBert",
        {
            "Model": lambda: Embedder(size, folder.pooling),
            "ForMaskedLM": lambda: MaskedLM(
                (size, size, config.vocab_size),
                "vocab_transform",
                "vocab_layer_norm",
                "vocab_projector.bias",
                config.hidden_act,
                config.layer_norm_eps,
            ),
            "ForSequenceClassification": lambda: SequenceClassification(
                size, Labels.of(folder), "pre_classifier", "relu", "classifier"
            ),
            "ForTokenClassification": lambda: TokenClassification(size, Labels.of(folder)),
            "ForQuestionAnswering": lambda: QuestionAnswering(size),
        },
    )
    return TextModel("distilbert", Encoder.plain(config), head, NAMES, text_inputs(config, head))
