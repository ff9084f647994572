"""MPNet (Song et al., 2020, https://arxiv.org/abs/2004.09297): attention knows how far apart two tokens are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..nn.relative import buckets
from .architecture import Prepared
from .encoder import Encoder, EncoderConfig
from .folder import Folder
from .heads import WORDS, Classes, Words, text_head
from .names import Names
from .text import TextInputs
from .text_model import TextModel, text_inputs

PADDING = 1  # whatever the config says, as in `transformers`
NAMES = Names(
    prefixes=("mpnet.",),
    renamed={
        ".attention.attn.q.": ".attention.self.query.",
        ".attention.attn.k.": ".attention.self.key.",
        ".attention.attn.v.": ".attention.self.value.",
        ".attention.attn.o.": ".attention.output.dense.",
        ".attention.LayerNorm.": ".attention.output.LayerNorm.",
    },
    tied={"lm_head.decoder.weight": WORDS, "lm_head.decoder.bias": "lm_head.bias"},
    ignored=(r"embeddings\.position_ids", r"pooler\..*"),
)


@dataclass(frozen=True)
class MPNetInputs(TextInputs):
    """The forward also gets ``relative_buckets``, (sequence, sequence): the row of the bias table for each pair."""

    rows: int = 32

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """See :class:`TextInputs`."""
        prepared = super().prepare(inputs, model)
        length = prepared.arrays["input_ids"].shape[1]
        return replace(prepared, arrays={**prepared.arrays, "relative_buckets": buckets(length, length, self.rows)})


def build(folder: Folder) -> TextModel:
    """The model that ``config.json`` asks for; the pooler if the checkpoint has one."""
    config = EncoderConfig.of(folder)
    words = Words("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "gelu")
    classes = Classes("classifier.dense", "tanh", "classifier.out_proj")
    head = text_head(folder, "MPNet", config, words, classes, pooler="pooler.dense")
    plain = text_inputs(config, head, counts_from=PADDING)
    inputs = MPNetInputs(plain.vocab_size, plain.max_length, 0, plain.per_token, PADDING)
    return TextModel("mpnet", Encoder.plain(config, buckets=inputs.rows), head, NAMES, inputs)
