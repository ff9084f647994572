"""DINOv2 (Oquab et al., 2023, https://arxiv.org/abs/2304.07193), also with registers (Darcet et al., 2023,
https://arxiv.org/abs/2309.16588): learned tokens without a position, for global information.
"""

from __future__ import annotations

from collections.abc import Callable

from .checkpoint import Checkpoint
from .encoder_model import EncoderModel
from .heads import Head, Labels, by_class
from .vision import MODULES, ImageClassification, ImageFeatures, VisionConfig, VisionEncoder, vision_model
from .weight_mapping import WeightMapping

CLASSES = {"dinov2": "Dinov2", "dinov2_with_registers": "Dinov2WithRegisters"}


def encoder_of(folder: Checkpoint) -> VisionEncoder:
    """Build the encoder of ``config.json``."""
    defaults: dict[str, object] = {"layer_norm_eps": 1e-6, "num_register_tokens": 4}
    fixed: dict[str, object] = {"intermediate_size": 1, "pooler_output_size": 0, "pooler_act": "tanh"}  # not read
    if folder.config.get("model_type") != "dinov2_with_registers":
        defaults["patch_size"], fixed["num_register_tokens"] = 14, 0
    config = VisionConfig.of(folder, defaults=defaults, fixed=fixed)
    mlp = config.hidden_size * config.mlp_ratio
    if config.use_swiglu_ffn:
        mlp = (mlp * 2 // 3 + 7) // 8 * 8
    return VisionEncoder(config, ("cls_token",), mlp, scales=True)


def names_of(*prefixes: str) -> WeightMapping:
    """Map the names in checkpoints, after one of ``prefixes``, to the parameters."""
    return WeightMapping(
        prefixes=prefixes,
        renamed={**MODULES, ".attention.attention.": ".attention.self."},
        ignored=(r"embeddings\.mask_token",),
    )


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``."""
    kind = str(folder.config["model_type"])
    encoder = encoder_of(folder)
    heads: dict[str, Callable[[], Head]] = {
        "Model": lambda: ImageFeatures(encoder.config, first_token=True),
        "ForImageClassification": lambda: ImageClassification(
            encoder, Labels.of(folder), {"logits": "classifier"}, patches=True
        ),
    }
    return vision_model(folder, encoder, by_class(folder, CLASSES[kind], heads), names_of(f"{kind}."))
