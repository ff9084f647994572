"""Checkpoints in memory, made from the tiny ones of tests/goldens: renamed, changed, damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.cases import Place

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
Tensors = dict[str, np.ndarray[Any, Any]]


def files_of(place: Place, name: str) -> dict[str, bytes]:
    """Read the files of a tiny model, by name."""
    return {path.name: path.read_bytes() for path in (Path(place.goldens) / name).iterdir()}


def tensors_of(files: dict[str, bytes]) -> Tensors:
    """Read the arrays of a float32 checkpoint, in the order of its header."""
    raw = files[WEIGHTS]
    start = 8 + int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8:start])
    table.pop("__metadata__", None)
    return {
        name: np.frombuffer(raw[start + begin : start + end], np.float32).reshape(entry["shape"])
        for name, entry in table.items()
        for begin, end in [entry["data_offsets"]]
    }


def pack(tensors: Tensors, **overrides: dict[str, Any]) -> bytes:
    """Make a safetensors file; ``overrides`` replace fields of a tensor's header entry, correct or not."""
    table, data = {}, b""
    for name, array in tensors.items():
        raw = array.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        table[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets, **overrides.get(name, {})}
        data += raw
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + data


def with_config(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """Return the files with other values in ``config.json``."""
    return {**files, "config.json": json.dumps({**json.loads(files["config.json"]), **changes}).encode()}


def sharded(files: dict[str, bytes]) -> dict[str, bytes]:
    """Split a checkpoint into three files."""
    tensors = tensors_of(files)
    names = sorted(tensors)
    shards = {f"model-0000{n + 1}-of-00003.safetensors": names[n::3] for n in range(3)}
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    rest = {name: data for name, data in files.items() if name != WEIGHTS}
    packed = {file: pack({name: tensors[name] for name in held}) for file, held in shards.items()}
    return {**rest, **packed, INDEX: json.dumps(index).encode()}
