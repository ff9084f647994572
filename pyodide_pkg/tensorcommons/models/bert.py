"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805), and the encoders with its layers.

These differ in the names of checkpoints, in defaults, and in the layers of their heads: RoBERTa (Liu et al., 2019,
https://arxiv.org/abs/1907.11692) and XLM-RoBERTa (Conneau et al., 2019, https://arxiv.org/abs/1911.02116), whose
positions start after the padding token's id; ELECTRA (Clark et al., 2020, https://arxiv.org/abs/2003.10555), whose
embeddings have another size; DistilBERT (Sanh et al., 2019, https://arxiv.org/abs/1910.01108), with half the layers and
no token types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ..errors import InvalidWeights
from .checkpoint import Checkpoint
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .weight_mapping import WeightMapping


@dataclass(frozen=True)
class Variant:
    """An encoder with BERT's layers, whose classes in `transformers` begin with ``family``.

    ``read`` reads its configuration. ``words``, ``classes`` and ``pooler`` name the layers of its heads. With
    ``counts_from_padding`` positions start after ``pad_token_id``.
    """

    family: str
    read: Callable[[Checkpoint], EncoderConfig]
    names: WeightMapping
    words: Words
    classes: Classes
    pooler: str = ""
    counts_from_padding: bool = False


encoders_only = partial(EncoderConfig.of, is_decoder=False, add_cross_attention=False)
ROBERTA = Variant(
    family="Roberta",
    read=partial(
        encoders_only,
        defaults={"pad_token_id": 1, "type_vocab_size": 2, "vocab_size": 50265},
        fixed={"embedding_size": 0},
    ),
    names=WeightMapping(
        prefixes=("roberta.",),
        tied={"lm_head.decoder.weight": WORDS, "lm_head.decoder.bias": "lm_head.bias"},
        ignored=(r"pooler\..*", r"lm_head\.bias"),
    ),
    words=Words("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", "gelu"),
    classes=Classes("classifier.dense", "tanh", "classifier.out_proj"),
    pooler="pooler.dense",
    counts_from_padding=True,
)
DISTILBERT_SPELLED = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
VARIANTS = {
    "bert": Variant(
        family="Bert",
        read=partial(encoders_only, defaults={"type_vocab_size": 2}, fixed={"embedding_size": 0}),
        names=WeightMapping(
            prefixes=("bert.",),
            tied={"cls.predictions.decoder.weight": WORDS, "cls.predictions.decoder.bias": "cls.predictions.bias"},
            ignored=(r"pooler\..*", r"cls\.predictions\.bias", r"cls\.seq_relationship\..*"),
        ),
        words=Words(
            dense="cls.predictions.transform.dense",
            norm="cls.predictions.transform.LayerNorm",
            out="cls.predictions.decoder",
            bias="cls.predictions.bias",
        ),
        classes=Classes("pooler.dense", "tanh", "classifier"),
        pooler="pooler.dense",
    ),
    "roberta": ROBERTA,
    "xlm-roberta": replace(
        ROBERTA,
        family="XLMRoberta",
        read=partial(encoders_only, defaults={"pad_token_id": 1, "type_vocab_size": 2}, fixed={"embedding_size": 0}),
    ),
    "electra": Variant(
        family="Electra",
        read=partial(
            encoders_only,
            defaults={
                "embedding_size": 128,
                "hidden_size": 256,
                "num_attention_heads": 4,
                "intermediate_size": 1024,
                "type_vocab_size": 2,
            },
        ),
        names=WeightMapping(
            prefixes=("electra.",),
            tied={"generator_lm_head.weight": WORDS},
            ignored=(r"discriminator_predictions\..*",),
        ),
        words=Words(
            dense="generator_predictions.dense",
            norm="generator_predictions.LayerNorm",
            out="generator_lm_head",
            bias="generator_lm_head.bias",
            activation="gelu",
        ),
        classes=Classes("classifier.dense", "gelu", "classifier.out_proj"),
    ),
    "distilbert": Variant(
        family="DistilBert",
        read=partial(
            EncoderConfig.of,
            spelled=DISTILBERT_SPELLED,
            aliases={name: name for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")},
            defaults={"n_layers": 6},
            fixed={"type_vocab_size": 0, "embedding_size": 0, "layer_norm_eps": 1e-12},
        ),
        names=WeightMapping(
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
        ),
        words=Words("vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"),
        classes=Classes("pre_classifier", "relu", "classifier"),
    ),
}


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    variant = VARIANTS[str(folder.config["model_type"])]
    config = variant.read(folder)
    counts_from = config.pad_token_id if variant.counts_from_padding else None
    if counts_from is not None and counts_from + 1 >= config.max_position_embeddings:
        raise InvalidWeights(
            folder.file,
            f"max_position_embeddings {config.max_position_embeddings} must be more than pad_token_id "
            f"{counts_from} + 1, from which positions count",
        )
    encoder = Encoder(config, projects=config.width != config.hidden_size)
    return text_model(
        folder,
        variant.family,
        encoder,
        variant.names,
        variant.words,
        variant.classes,
        pooler=variant.pooler,
        counts_from=counts_from,
    )
