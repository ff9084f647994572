"""MPNet (Song et al., 2020, https://arxiv.org/abs/2004.09297): attention with a bias by relative position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidWeights
from ..nn.relative import buckets
from .architecture import Prepared
from .checkpoint import Checkpoint
from .config import read_config
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .text import TextInputs
from .weight_mapping import WeightMapping

PADDING = 1  # whatever the config says, as in `transformers`
BUCKETS = 32  # of relative positions, whatever the size of the table
NAMES = WeightMapping(
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
)


@dataclass(frozen=True)
class MPNetInputs(TextInputs):
    """Adds ``relative_buckets`` (sequence, sequence) to the forward's inputs: a row of the bias table for each pair."""

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """See :class:`TextInputs`."""
        prepared = super().prepare(inputs, model)
        length = prepared.arrays["input_ids"].shape[1]
        return replace(prepared, arrays={**prepared.arrays, "relative_buckets": buckets(length, length)})


@dataclass(frozen=True)
class Buckets:
    """The number of rows in the table of attention biases."""

    relative_attention_num_buckets: int = BUCKETS


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    fixed = {"type_vocab_size": 0, "embedding_size": 0}
    config = EncoderConfig.of(folder, defaults={"vocab_size": 30527, "pad_token_id": 1}, fixed=fixed)
    rows = read_config(Buckets, folder.config, folder.file).relative_attention_num_buckets
    if rows < BUCKETS:
        raise InvalidWeights(folder.file, f"relative_attention_num_buckets {rows} must be at least {BUCKETS}")
    words = Words("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", "gelu")
    classes = Classes("classifier.dense", "tanh", "classifier.out_proj")
    encoder, pooler = Encoder(config, buckets=rows), "pooler.dense"
    return text_model(
        folder, "MPNet", encoder, NAMES, words, classes, pooler=pooler, counts_from=PADDING, inputs=MPNetInputs
    )
