"""RoBERTa (Liu et al., 2019, https://arxiv.org/abs/1907.11692) and XLM-RoBERTa (Conneau et al., 2019,
https://arxiv.org/abs/1911.02116): BERT's encoder, with positions that start after the padding token's id.
"""

from __future__ import annotations

from ..errors import InvalidWeights
from .checkpoint import Checkpoint
from .config import check_fixed
from .encoder import Encoder, EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import WORDS, Classes, Words
from .weight_mapping import WeightMapping

NAMES = WeightMapping(
    prefixes=("roberta.",),
    tied={"lm_head.decoder.weight": WORDS, "lm_head.decoder.bias": "lm_head.bias"},
    ignored=(r"pooler\..*", r"lm_head\.bias"),
)
CLASSES = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta"}
VOCABULARIES = {"roberta": 50265, "xlm-roberta": 30522}  # the defaults of `transformers`


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    check_fixed(folder.config, folder.file, is_decoder=False, add_cross_attention=False)
    kind = str(folder.config["model_type"])
    defaults = {"pad_token_id": 1, "type_vocab_size": 2, "vocab_size": VOCABULARIES[kind]}
    config = EncoderConfig.of(folder, defaults=defaults, fixed={"embedding_size": 0})
    if config.pad_token_id + 1 >= config.max_position_embeddings:
        raise InvalidWeights(
            folder.file,
            f"max_position_embeddings {config.max_position_embeddings} must be more than pad_token_id "
            f"{config.pad_token_id} + 1, from which positions count",
        )
    words = Words("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", "gelu")
    classes = Classes("classifier.dense", "tanh", "classifier.out_proj")
    encoder, counts_from = Encoder(config), config.pad_token_id
    return text_model(
        folder, CLASSES[kind], encoder, NAMES, words, classes, pooler="pooler.dense", counts_from=counts_from
    )
