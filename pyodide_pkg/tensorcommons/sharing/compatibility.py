"""Families of architectures: which models take the same kind of tensor. Compatible by family is not proven equal."""

from __future__ import annotations

import re

# A kind of tensor, and the architectures whose tensors of that kind can stand in for each other's use: those that
# from_pretrained loads, and others whose tensors a program registers itself.
FAMILIES: dict[str, tuple[str, ...]] = {
    "text_embedding": (
        "bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "albert", "electra", "t5", "gpt2", "llama", "qwen2",
        "qwen3", "mistral", "gemma3_text", "bart", "modernbert",
    ),
    "vision_embedding": ("vit", "deit", "dino", "dinov2", "clip", "detr", "swin"),
    "audio_embedding": ("whisper", "wav2vec2", "hubert", "clap"),
    "vision_text_joint": ("clip", "blip", "llava", "xclip"),
    "audio_text_joint": ("clap", "whisper", "wav2vec2"),
}  # fmt: skip
_KNOWN = sorted({name for names in FAMILIES.values() for name in names}, key=len, reverse=True)


def architecture_of(model: str) -> str | None:
    """The architecture that a model's name begins with or contains as a word: ``bert-base-uncased`` is ``bert``.

    The longest match counts, so that ``distilbert-base`` is not ``bert``. ``None`` for names that say nothing.
    """
    lowered = model.lower().rsplit("/", 1)[-1]
    for name in _KNOWN:
        if re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z])", lowered):
            return name
    return None


def get_compatible_models_for_tensor(tensor_type: str) -> list[str]:
    """Return the architectures with tensors of ``tensor_type``, from :data:`FAMILIES`; none for an unknown type.

    >>> tc.get_compatible_models_for_tensor("text_embedding")
    [...'bert'...]
    """
    return list(FAMILIES.get(tensor_type, ()))


def families_of(model: str) -> list[str]:
    """The kinds of tensor that a model has, by its architecture."""
    architecture = architecture_of(model)
    return [kind for kind, names in FAMILIES.items() if architecture in names]
