"""Weights that nobody has to commit: random numbers of a tensor's name and shape, equal wherever they are made."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from tensorcommons.models.checkpoint import Checkpoint
from tensorcommons.models.registry import FAMILIES
from tests.cases import Place
from tests.cases.checkpoints import WEIGHTS, files_of, pack

PREFIXES = {"gpt2": "transformer.", "llama": "model.", "qwen2": "model.", "t5": ""}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """float32. The scales of norms are around 1: left at ones they would hide a mistake."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape) * (0.1 if len(shape) == 1 else 0.3)
    is_scale = len(shape) == 1 and name.endswith("weight")
    return np.asarray(1 + values if is_scale else values, np.float32)


def checkpoint(place: Place, name: str, **changes: Any) -> dict[str, bytes]:
    """The files of a tiny decoder of tests/goldens; ``changes`` are fields to replace in its ``config.json``."""
    files = files_of(place, name)
    config = {**json.loads(files["config.json"]), **changes}
    prefix = PREFIXES[config["model_type"]]
    tensors = {}
    untied = frozenset({"shared.weight", "lm_head.weight"} if config.get("tie_word_embeddings") is False else ())
    for key, shape in FAMILIES[config["model_type"]](Checkpoint(config, name, untied)).parameters().items():
        full = key if key == "lm_head.weight" else prefix + key
        tensors[full] = weight(full, shape)
    return {**files, "config.json": json.dumps(config).encode(), WEIGHTS: pack(tensors)}
