"""Weights that are not committed: random numbers by name and shape of a tensor, equal on every machine."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from tensorcommons.models.checkpoint import Checkpoint
from tensorcommons.models.registry import FAMILIES
from tests.cases import Place
from tests.cases.checkpoints import WEIGHTS, files_of, pack

PREFIXES = {"gpt2": "transformer.", "t5": ""}  # of the parameters but the head's; "model." elsewhere
#: Standard deviations with which the models do not repeat one token (tests/hub/test_goldens.py).
SCALES = {
    "model.shared.weight": 0.3,  # BART's
    "embed_positions.weight": 2.0,
    "encoder_attn.out_proj.weight": 0.02,
    "self_attn.out_proj.weight": 0.05,
    "fc2.weight": 0.4,
    "final_logits_bias": 0.1,
    "shared.weight": 0.1,
    "transformer.wte.weight": 0.1,
    "EncDecAttention.o.weight": 0.03,
    "DenseReluDense.wi.weight": 0.1,
    "relative_attention_bias.weight": 2.0,
}
T5 = ("shared.", "encoder.block.", "encoder.final_", "decoder.block.", "decoder.final_")
T5_SEED = 6  # T5 generates many distinct tokens with it


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return float32 numbers, around 1 for scales of norms: ones would hide mistakes."""
    seed = zlib.crc32(name.encode())
    rng = np.random.default_rng([seed, T5_SEED] if name.startswith(T5) else seed)
    scale = next((scale for end, scale in SCALES.items() if name.endswith(end)), 0.3)
    values = rng.standard_normal(shape) * (0.1 if len(shape) == 1 else scale)
    is_scale = len(shape) == 1 and name.endswith("weight")
    return np.asarray(1 + values if is_scale else values, np.float32)


def checkpoint(place: Place, name: str, **changes: Any) -> dict[str, bytes]:
    """Make the files of a tiny decoder of tests/goldens; ``changes`` replace fields of its ``config.json``."""
    files = files_of(place, name)
    config = {**json.loads(files["config.json"]), **changes}
    prefix = PREFIXES.get(config["model_type"], "model.")
    tensors = {}
    untied = frozenset({"shared.weight", "lm_head.weight"} if config.get("tie_word_embeddings") is False else ())
    untied |= {"final_logits_bias"}
    for key, param in FAMILIES[config["model_type"]].build(Checkpoint(config, name, untied)).manifest.items():
        full = key if key in ("lm_head.weight", "final_logits_bias") else prefix + key
        tensors[full] = weight(full, param.shape)
    return {**files, "config.json": json.dumps(config).encode(), WEIGHTS: pack(tensors)}
