"""Registry: how to build the architecture of each ``model_type``, and which files it has beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import (
    bart,
    bert,
    clip,
    dinov2,
    gemma3,
    gpt2,
    llama,
    mlp_head,
    modernbert,
    saliency,
    t5,
    vit,
)
from .architecture import Architecture
from .checkpoint import Checkpoint
from .encoder_model import EncoderModel


@dataclass(frozen=True)
class Family:
    """An entry: ``build`` makes the architecture of a checkpoint.

    If it ``generates``, the folder may have a ``generation_config.json``. If another folder has its encoder, ``base``
    returns the address of that from the config and its address.
    """

    build: Callable[[Checkpoint], Architecture]
    generates: bool = False
    base: Callable[[Mapping[str, Any], str], str] | None = None


ENCODERS: dict[str, Callable[[Checkpoint], EncoderModel]] = {
    **dict.fromkeys(bert.VARIANTS, bert.build),
    "modernbert": modernbert.build,
}
FAMILIES: dict[str, Family] = {
    **{name: Family(build) for name, build in ENCODERS.items()},
    "bart": Family(bart.build, generates=True),
    **dict.fromkeys(("clip", "clip_text_model", "clip_vision_model"), Family(clip.build)),
    "deit": Family(vit.build),
    "dinov2": Family(dinov2.build),
    "dinov2-saliency": Family(saliency.build),
    "dinov2_with_registers": Family(dinov2.build),
    "gemma3_text": Family(gemma3.build, generates=True),
    "gpt2": Family(gpt2.build, generates=True),
    **dict.fromkeys(llama.VARIANTS, Family(llama.build, generates=True)),
    "t5": Family(t5.build, generates=True),
    "vit": Family(vit.build),
    "mlp-head": Family(lambda folder: mlp_head.build(folder, ENCODERS), base=mlp_head.base_of),
}
