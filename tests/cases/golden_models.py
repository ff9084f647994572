"""Goldens of many cases: a table ``NAME.json`` and arrays ``NAME.npz``; tiny models are made from table entries."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.cases.checkpoints import WEIGHTS, pack
from tests.cases.random_weights import values_of

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "decoder_input_ids")


@cache
def load_goldens(folder: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the table of the cases, and the arrays of their inputs and outputs."""
    with np.load(Path(folder) / f"{name}.npz") as arrays:
        return json.loads((Path(folder) / f"{name}.json").read_text()), dict(arrays)


def checkpoint_of(entry: dict[str, Any]) -> dict[str, bytes]:
    """Make the files of one entry of the table; the weights are made from their names."""
    tensors = {name: values_of(name, tuple(shape)) for name, shape in entry["tensors"].items()}
    return {"config.json": json.dumps(entry["config"]).encode(), WEIGHTS: pack(tensors)}
