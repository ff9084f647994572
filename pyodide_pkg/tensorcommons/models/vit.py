"""ViT (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929) and DeiT (Touvron et al., 2020,
https://arxiv.org/abs/2012.12877), which has a second learned token, trained by distillation.
"""

from __future__ import annotations

from collections.abc import Callable

from ..nn import Linear
from .checkpoint import Checkpoint
from .encoder_model import EncoderModel
from .heads import Head, Labels, by_class
from .vision import MODULES, ImageClassification, ImageFeatures, VisionConfig, VisionEncoder, vision_model
from .weight_mapping import WeightMapping

RENAMED = {
    "layers.": "encoder.layer.",  # modules of `transformers` 5, which adapters name
    **MODULES,
    ".attention.attention.": ".attention.self.",
    ".attention.output.dense.": ".attention.out.",  # protect it from the next rule
    ".output.dense.": ".mlp.fc2.",
    ".attention.out.": ".attention.output.dense.",
    ".intermediate.dense.": ".mlp.fc1.",
    ".layernorm_before.": ".norm1.",
    ".layernorm_after.": ".norm2.",
}
CLASSES = {"vit": ("ViT", ("cls_token",)), "deit": ("DeiT", ("cls_token", "distillation_token"))}


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``, with the pooler if the checkpoint has one."""
    kind = str(folder.config["model_type"])
    family, tokens = CLASSES[kind]
    fixed = {"num_register_tokens": 0, "use_swiglu_ffn": False}
    config = VisionConfig.of(folder, fixed=fixed)
    encoder = VisionEncoder(config, tokens, config.intermediate_size)

    def features() -> Head:
        sizes, scope = (config.hidden_size, config.pooler_output_size or config.hidden_size), encoder.scope
        return ImageFeatures(
            config, Linear(scope / "pooler.dense", *sizes) if folder.has("pooler.dense.weight") else None
        )

    heads: dict[str, Callable[[], Head]] = {
        "Model": features,
        "ForImageClassification": lambda: ImageClassification(encoder, Labels.of(folder), {"logits": "classifier"}),
    }
    if kind == "deit":
        both = {"cls_logits": "cls_classifier", "distillation_logits": "distillation_classifier"}
        heads["ForImageClassificationWithTeacher"] = lambda: ImageClassification(encoder, Labels.of(folder), both)
    names = WeightMapping(prefixes=(f"{kind}.",), renamed=RENAMED, ignored=(r"embeddings\.mask_token", r"pooler\..*"))
    return vision_model(folder, encoder, by_class(folder, family, heads), names)
