"""Which file of this folder builds which ``model_type``."""

from __future__ import annotations

from collections.abc import Callable

from . import bert, gpt2, llama, t5
from .architecture import Architecture
from .folder import Folder

FAMILIES: dict[str, Callable[[Folder], Architecture]] = {
    "bert": bert.build,
    "gpt2": gpt2.build,
    "llama": llama.build,
    "qwen2": llama.build,
    "t5": t5.build,
}
WRITERS = ("gpt2", "llama", "qwen2", "t5")  # come with a generation_config.json
