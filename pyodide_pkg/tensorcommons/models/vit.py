"""ViT (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929) and DeiT (Touvron et al., 2020,
https://arxiv.org/abs/2012.12877), which has a second learned token, trained by distillation.
"""

from __future__ import annotations

from collections.abc import Callable

from .checkpoint import Checkpoint
from .heads import Labels, by_class
from .vision import ImageClassification, ImageFeatures, VisionConfig, VisionEncoder, VisionHead, VisionModel
from .weight_mapping import WeightMapping

RENAMED = {
    ".attention.attention.": ".attention.self.",
    ".attention.output.dense.": ".attention.out.",  # protect it from the next rule
    ".output.dense.": ".mlp.fc2.",
    ".attention.out.": ".attention.output.dense.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
}
CLASSES = {"vit": ("ViT", ("cls_token",)), "deit": ("DeiT", ("cls_token", "distillation_token"))}


def build(folder: Checkpoint) -> VisionModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    kind = str(folder.config["model_type"])
    family, tokens = CLASSES[kind]
    fixed = {"num_register_tokens": 0, "use_swiglu_ffn": False}
    config = VisionConfig.of(folder, fixed=fixed)
    size = config.hidden_size
    pooler = "pooler.dense" if folder.has("pooler.dense.weight") else ""
    heads: dict[str, Callable[[], VisionHead]] = {
        "Model": lambda: ImageFeatures(size, pooler, pooled=config.pooler_output_size, activation=config.pooler_act),
        "ForImageClassification": lambda: ImageClassification(size, Labels.of(folder), {"logits": "classifier"}),
    }
    if kind == "deit":
        both = {"cls_logits": "cls_classifier", "distillation_logits": "distillation_classifier"}
        heads["ForImageClassificationWithTeacher"] = lambda: ImageClassification(size, Labels.of(folder), both)
    names = WeightMapping(prefixes=(f"{kind}.",), renamed=RENAMED, ignored=(r"embeddings\.mask_token", r"pooler\..*"))
    encoder = VisionEncoder(config, tokens, config.intermediate_size)
    return VisionModel(kind, encoder, by_class(folder, family, heads), names)
