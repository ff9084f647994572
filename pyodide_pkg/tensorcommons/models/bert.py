"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805), and the encoders with its layers.

These differ in the names of checkpoints, in defaults, and in the layers of their heads: RoBERTa (Liu et al., 2019,
https://arxiv.org/abs/1907.11692) and XLM-RoBERTa (Conneau et al., 2019, https://arxiv.org/abs/1911.02116), whose
positions start after the padding token's id; ELECTRA (Clark et al., 2020, https://arxiv.org/abs/2003.10555), whose
embeddings have another size; DistilBERT (Sanh et al., 2019, https://arxiv.org/abs/1910.01108), with half the layers and
no token types; ALBERT (Lan et al., 2019, https://arxiv.org/abs/1909.11942), where all layers of a group share one set
of weights; MPNet (Song et al., 2020, https://arxiv.org/abs/2004.09297), whose attention has a bias by relative
position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import InvalidWeights
from ..nn.relative import buckets
from .architecture import Prepared
from .checkpoint import Checkpoint
from .config import LAYERS, read_config
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .text import TextInputs
from .weight_mapping import WeightMapping

BUCKETS = 32  # of relative positions in MPNet, whatever the size of the table


@dataclass(frozen=True)
class Variant:
    """An encoder with BERT's layers, whose classes in `transformers` begin with ``family``.

    ``read`` reads its configuration, from which ``encoder`` is built. ``words``, ``classes`` and ``pooler`` name the
    layers of its heads. ``counts_from`` returns the padding token's id if positions start after that.
    """

    family: str
    read: Callable[[Checkpoint], EncoderConfig]
    names: WeightMapping
    words: Words
    classes: Classes
    pooler: str = ""
    encoder: Callable[[Checkpoint, EncoderConfig], Encoder] = lambda folder, config: Encoder(config)
    counts_from: Callable[[Checkpoint, EncoderConfig], int | None] = lambda folder, config: None
    inputs: type[TextInputs] = TextInputs


def _after_padding(folder: Checkpoint, config: EncoderConfig) -> int:
    """Return RoBERTa's padding token's id. Raises InvalidWeights if it leaves no positions."""
    if config.pad_token_id + 1 >= config.max_position_embeddings:
        raise InvalidWeights(
            folder.file,
            f"max_position_embeddings {config.max_position_embeddings} must be more than pad_token_id "
            f"{config.pad_token_id} + 1, from which positions count",
        )
    return config.pad_token_id


@dataclass(frozen=True)
class Groups:
    """ALBERT's sharing: the layers of a group share the weights of ``inner_group_num`` inner layers, run in turn."""

    num_hidden_groups: int = 1
    inner_group_num: int = 1


def _with_groups(folder: Checkpoint, config: EncoderConfig) -> Encoder:
    """Build ALBERT's encoder. Raises InvalidWeights for too many layers."""
    groups = read_config(Groups, folder.config, folder.file)
    if config.num_hidden_layers * groups.inner_group_num > LAYERS:
        raise InvalidWeights(
            folder.file,
            f"inner_group_num {groups.inner_group_num} times num_hidden_layers {config.num_hidden_layers} "
            f"must be at most {LAYERS:,}",
        )
    layers = [
        f"encoder.albert_layer_groups.{int(i / (config.num_hidden_layers / groups.num_hidden_groups))}"
        f".albert_layers.{inner}"
        for i in range(config.num_hidden_layers)
        for inner in range(groups.inner_group_num)
    ]
    return Encoder(config, layers, projects=True)


@dataclass(frozen=True)
class Buckets:
    """The number of rows in MPNet's table of attention biases."""

    relative_attention_num_buckets: int = BUCKETS


def _with_buckets(folder: Checkpoint, config: EncoderConfig) -> Encoder:
    """Build MPNet's encoder. Raises InvalidWeights for a table that is too small."""
    rows = read_config(Buckets, folder.config, folder.file).relative_attention_num_buckets
    if rows < BUCKETS:
        raise InvalidWeights(folder.file, f"relative_attention_num_buckets {rows} must be at least {BUCKETS}")
    return Encoder(config, buckets=rows)


@dataclass(frozen=True)
class MPNetInputs(TextInputs):
    """Adds ``relative_buckets`` (sequence, sequence) to the forward's inputs: a row of the bias table for each pair."""

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """See :class:`TextInputs`."""
        prepared = super().prepare(inputs, model)
        length = prepared.arrays["input_ids"].shape[1]
        return replace(prepared, arrays={**prepared.arrays, "relative_buckets": buckets(length, length)})


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
    counts_from=_after_padding,
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
    "albert": Variant(
        family="Albert",
        read=partial(
            EncoderConfig.of,
            defaults={
                "vocab_size": 30000,
                "embedding_size": 128,
                "hidden_size": 4096,
                "num_attention_heads": 64,
                "intermediate_size": 16384,
                "hidden_act": "gelu_new",
                "type_vocab_size": 2,
            },
        ),
        names=WeightMapping(
            prefixes=("albert.",),
            renamed={
                "encoder.embedding_hidden_mapping_in.": "embeddings_project.",
                ".attention.query.": ".attention.self.query.",
                ".attention.key.": ".attention.self.key.",
                ".attention.value.": ".attention.self.value.",
                ".attention.dense.": ".attention.output.dense.",
                ".attention.LayerNorm.": ".attention.output.LayerNorm.",
                ".ffn.": ".intermediate.dense.",
                ".ffn_output.": ".output.dense.",
                ".full_layer_layer_norm.": ".output.LayerNorm.",
            },
            tied={"predictions.decoder.weight": WORDS, "predictions.decoder.bias": "predictions.bias"},
            ignored=(r"pooler\..*", r"predictions\.bias", r"sop_classifier\..*"),
        ),
        words=Words("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias"),
        classes=Classes("pooler", "tanh", "classifier"),
        pooler="pooler",
        encoder=_with_groups,
    ),
    "mpnet": Variant(
        family="MPNet",
        read=partial(
            EncoderConfig.of,
            defaults={"vocab_size": 30527, "pad_token_id": 1},
            fixed={"type_vocab_size": 0, "embedding_size": 0},
        ),
        names=WeightMapping(
            prefixes=("mpnet.",),
            renamed={
                ".attention.attn.q.": ".attention.self.query.",
                ".attention.attn.k.": ".attention.self.key.",
                ".attention.attn.v.": ".attention.self.value.",
                ".attention.attn.o.": ".attention.output.dense.",
                ".attention.LayerNorm.": ".attention.output.LayerNorm.",
            },
            tied={"lm_head.decoder.weight": WORDS, "lm_head.decoder.bias": "lm_head.bias"},
            ignored=(r"pooler\..*", r"lm_head\.bias"),
        ),
        words=Words("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", "gelu"),
        classes=Classes("classifier.dense", "tanh", "classifier.out_proj"),
        pooler="pooler.dense",
        encoder=_with_buckets,
        counts_from=lambda folder, config: 1,  # whatever the config says, as in `transformers`
        inputs=MPNetInputs,
    ),
}


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    variant = VARIANTS[str(folder.config["model_type"])]
    config = variant.read(folder)
    return text_model(
        folder,
        variant.family,
        variant.encoder(folder, config),
        variant.names,
        variant.words,
        variant.classes,
        pooler=variant.pooler,
        counts_from=variant.counts_from(folder, config),
        inputs=variant.inputs,
    )
