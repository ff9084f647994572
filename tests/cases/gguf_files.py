"""GGUF files in memory: a writer, and the tiny decoders and encoders of tests/goldens as llama.cpp converts them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.cases.blocks import BYTES
from tests.cases.checkpoints import Tensors, tensors_of

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "gguf.json").read_text("utf-8"))
TYPES: dict[str, int] = GOLDENS["types"]
SIZES: dict[str, list[int]] = GOLDENS["sizes"]  # elements and bytes of a block
Stored = tuple[str, tuple[int, ...], bytes]
"""A tensor of a file: type, shape as in NumPy, bytes."""


def string(text: str | bytes) -> bytes:
    """Pack a string."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(given: Any) -> bytes:
    """Pack a value of metadata after its type: int32 for a whole number of NumPy, else uint32 for a whole number."""
    if isinstance(given, bool):
        return struct.pack("<I?", 7, given)
    if isinstance(given, int):
        return struct.pack("<II", 4, given)
    if isinstance(given, float):
        return struct.pack("<If", 6, given)
    if isinstance(given, str):
        return struct.pack("<I", 8) + string(given)
    if isinstance(given, np.ndarray):
        kind = {"f": 6, "i": 5, "b": 7}[given.dtype.kind]
        return (
            struct.pack("<IIQ", 9, kind, len(given))
            + given.astype(["<f4", "<i4", "?"][[6, 5, 7].index(kind)]).tobytes()
        )
    return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(string, given))


def listed(name: str | bytes, kind: int, extents: tuple[int, ...], offset: int) -> bytes:
    """Pack an entry of the list of tensors; ``extents`` are in the file's order."""
    return string(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind, offset)


def write(metadata: Mapping[str, Any], tensors: Mapping[str, Stored], version: int = 3) -> bytes:
    """Write a file. The alignment is that of the metadata."""
    alignment = metadata.get("general.alignment", 32)
    entries, data = b"", b""
    for name, (kind, shape, raw) in tensors.items():
        data += bytes(-len(data) % alignment)
        entries += listed(name, TYPES[kind], shape[::-1], len(data))
        data += raw
    pairs = b"".join(string(key) + value(given) for key, given in metadata.items())
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata)) + pairs + entries
    return head + bytes(-len(head) % alignment) + data if tensors else head


def quantized(kind: str, shape: tuple[int, ...], seed: int) -> bytes:
    """Return random blocks of a type whose scales are small, so that the numbers are those of weights."""
    elements, nbytes = SIZES[kind]
    count = int(np.prod(shape)) // elements
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, nbytes), np.uint8)
    for at in BYTES[kind.lower()][1:]:
        blocks[:, at : at + 2] = (rng.uniform(0.5, 1, (count, 1)) * SCALE[kind]).astype(np.float16).view(np.uint8)
    return blocks.tobytes()


#: Scales with which the numbers of each type are about 0.3 at most.
SCALE = {"Q4_0": 0.03, "Q4_1": 0.02, "Q5_0": 0.02, "Q5_1": 0.01, "Q8_0": 0.002, "Q2_K": 0.006, "Q3_K": 0.002}
SCALE |= {"Q4_K": 3e-4, "Q5_K": 2e-4, "Q6_K": 7e-5, "IQ4_NL": 0.002}


def stored(kind: str, array: Any) -> Stored:
    """Return float32 numbers as a tensor of a dense type."""
    if kind == "BF16":
        raw = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        raw = array.astype({"F32": "<f4", "F16": "<f2"}[kind]).tobytes()
    return kind, array.shape, raw


def in_pairs(array: Any, heads: int) -> Any:
    """Reorder the rows of each head from halves to pairs, as ``LlamaModel.permute`` of convert_hf_to_gguf.py."""
    return array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def tensors_for(kind: str, files: dict[str, bytes]) -> Tensors:
    """Return the tensors of a checkpoint with the names, orders and shapes of llama.cpp."""
    config, names = json.loads(files["config.json"]), GOLDENS["names"][kind]
    heads = {"attn_q": config.get("num_attention_heads"), "attn_k": config.get("num_key_value_heads")}
    found: Tensors = {}
    for name, array in tensors_of(files).items():
        theirs = names.get(name)
        if theirs is None:
            continue
        part = theirs.split(".")[-2]
        if kind == "llama" and part in heads:
            array = in_pairs(array, heads[part])
        if kind == "gpt2" and array.ndim == 2 and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
            array = np.ascontiguousarray(array.T)
        if kind == "gemma3" and part.endswith("norm"):
            array = array + np.float32(1)
        found[theirs] = array
    return found


def metadata_for(kind: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Return the metadata of the architecture, as llama.cpp writes it."""
    c = json.loads(files["config.json"])
    if kind == "gpt2":
        own = {"context_length": c["n_positions"], "embedding_length": c["n_embd"], "block_count": c["n_layer"]}
        own |= {"feed_forward_length": 4 * c["n_embd"], "attention.head_count": c["n_head"]}
        own |= {"attention.layer_norm_epsilon": 1e-5}
    else:
        own = {"context_length": c["max_position_embeddings"], "embedding_length": c["hidden_size"]}
        own |= {"block_count": c["num_hidden_layers"], "feed_forward_length": c["intermediate_size"]}
        own |= {"attention.head_count": c["num_attention_heads"]}
    if kind == "bert":
        own |= {"attention.layer_norm_epsilon": c["layer_norm_eps"], "attention.causal": False, "pooling_type": 2}
    elif kind != "gpt2":
        own |= {"attention.head_count_kv": c["num_key_value_heads"]}
        own |= {"attention.layer_norm_rms_epsilon": c.get("rms_norm_eps", 1e-6)}
        ropes = c["rope_parameters"]
        if kind == "gemma3":
            own |= {"attention.sliding_window": c["sliding_window"], "attention.sliding_window_pattern": 2}
            own |= {"rope.freq_base_swa": ropes["sliding_attention"]["rope_theta"]}
            own |= {"final_logit_softcapping": c["final_logit_softcapping"]}
            ropes = ropes["full_attention"]
            own |= {"rope.scaling.type": "linear", "rope.scaling.factor": ropes["factor"]}
        own |= {"rope.freq_base": ropes["rope_theta"]}
        if "head_dim" in c:
            own |= {f"attention.{part}_length": c["head_dim"] for part in ("key", "value")}
            own |= {"rope.dimension_count": c["head_dim"]}
    return {"general.architecture": kind, **{f"{kind}.{key}": each for key, each in own.items()}}
