"""Registry: the function that builds the architecture of each ``model_type``."""

from __future__ import annotations

from collections.abc import Callable

from . import albert, bert, dinov2, distilbert, electra, gpt2, llama, mpnet, roberta, saliency, t5, vit
from .architecture import Architecture
from .checkpoint import Checkpoint
from .text_model import TextModel

TEXT_FAMILIES: dict[str, Callable[[Checkpoint], TextModel]] = {
    "albert": albert.build,
    "bert": bert.build,
    "distilbert": distilbert.build,
    "electra": electra.build,
    "mpnet": mpnet.build,
    "roberta": roberta.build,
    "xlm-roberta": roberta.build,
}
FAMILIES: dict[str, Callable[[Checkpoint], Architecture]] = {
    **TEXT_FAMILIES,
    "deit": vit.build,
    "dinov2": dinov2.build,
    "dinov2-saliency": saliency.build,
    "dinov2_with_registers": dinov2.build,
    "gpt2": gpt2.build,
    "llama": llama.build,
    "qwen2": llama.build,
    "t5": t5.build,
    "vit": vit.build,
}
GENERATIVE = ("gpt2", "llama", "qwen2", "t5")  # may have a generation_config.json
