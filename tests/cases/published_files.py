"""Checkpoints as GPTQ, AWQ, compressed-tensors and FP8 write them, from random quants, with the numbers they stand for.

Everything is written number by number from the published formulas, without the package:

    GPTQ                  scales[g, o] * (q[i, o] - (zeros[g, o] + 1)), g = g_idx[i]; "gptq_v2" without the 1
    AWQ                   scales[g, o] * (q[i, o] - zeros[g, o]), g = i // group; 8 columns of a word in another order
    compressed-tensors    scale[o, g] * (q[o, i] - zero_point[o, g])
    FP8                   e4m3[o, i] * scale[o // rows, i // columns]
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import numpy as np

from tests.cases.checkpoints import WEIGHTS, pack, tensors_of

#: Layouts with what is special about them, and the format of their matrices.
GPTQ: dict[str, Any] = {"layout": "gptq"}
AWQ: dict[str, Any] = {"layout": "awq"}
PACKED: dict[str, Any] = {"layout": "packed"}
PLAIN: dict[str, Any] = {"layout": "plain", "bits": 8}
CHANNELS: dict[str, Any] = {"layout": "fp8", "name": "weight_scale"}
BLOCKS: dict[str, Any] = {"layout": "fp8", "name": "weight_scale_inv"}
EVERY: list[tuple[dict[str, Any], str]] = [
    ({**GPTQ, "group": 128}, "int4_g128"),
    ({**GPTQ, "group": 0, "symmetric": True}, "int4_g128"),
    ({**GPTQ, "group": 64, "scale": "BF16", "offset": 0}, "int4_g64_bf16"),
    ({**GPTQ, "group": 32, "ordered": True}, "int4_g32"),
    ({**GPTQ, "group": 64, "bits": 8, "ordered": True}, "int8_g64"),
    ({**GPTQ, "group": 16, "ordered": True}, "float32"),
    ({**AWQ, "group": 64}, "int4_g64"),
    ({**AWQ, "group": 128}, "int4_g128"),
    ({**PACKED, "group": 32, "symmetric": True}, "q4_0"),
    ({**PACKED, "group": 128, "symmetric": True, "scale": "BF16"}, "int4_g128_bf16"),
    ({**PACKED, "group": 64, "ordered": True, "scale": "F32"}, "int4_g64_f32"),
    ({**PACKED, "bits": 8, "group": 32, "symmetric": True}, "q8_0"),
    ({**PACKED, "bits": 8, "group": 32, "symmetric": True, "ordered": True}, "q8_0"),
    ({**PLAIN, "symmetric": True, "scale": "BF16"}, "int8_g128_bf16"),
    ({**PLAIN, "group": 64}, "int8_g64"),
    ({**PLAIN, "symmetric": True, "tensor": True, "scale": "F32"}, "int8_g128_f32"),
    ({**CHANNELS, "scale": "BF16"}, "fp8_g128_bf16"),
    ({**CHANNELS, "scale": "F32", "tensor": True, "scale shape": ()}, "fp8_g128_f32"),
    ({**BLOCKS, "scale": "BF16", "block": (128, 128)}, "fp8_g128_bf16"),
    ({**BLOCKS, "scale": "F32", "block": (48, 64)}, "fp8_g64_f32"),
]

Stored = dict[str, tuple[str, Any]]  # dtype of the file, and array


def packed(values: Any, bits: int, order: tuple[int, ...] | None = None) -> Any:
    """Pack unsigned integers along the last axis into int32, the first in the lowest bits; ``order`` of each word."""
    per = 32 // bits
    values = np.concatenate([values, np.zeros((*values.shape[:-1], -values.shape[-1] % per), values.dtype)], axis=-1)
    words = np.zeros((*values.shape[:-1], values.shape[-1] // per), np.uint32)
    for at in range(per):
        column = at if order is None else order[at]
        words |= values[..., column::per].astype(np.uint32) << np.uint32(bits * at)
    return words.view(np.int32)


def rounded(scales: Any, dtype: str) -> tuple[Any, Any]:
    """Return scales as ``dtype`` stores them, and their numbers."""
    if dtype == "F16":
        return scales.astype(np.float16), scales.astype(np.float16).astype(np.float32)
    if dtype == "BF16":
        bits = (scales.view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    return scales, scales


def e4m3() -> Any:
    """The numbers of the 256 bytes."""
    found = []
    for bits in range(256):
        sign, exponent, mantissa = -1 if bits & 128 else 1, bits >> 3 & 15, bits & 7
        size = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
        found.append(np.nan if exponent == 15 and mantissa == 7 else sign * size)
    return np.array(found, np.float32)


def quantized(name: str, shape: tuple[int, int], how: dict[str, Any]) -> tuple[Stored, Any]:
    """Return the tensors of the matrix ``name``.weight (outputs, inputs), and its numbers.

    ``how``: layout, bits, group (0: a row), scale (F16, BF16 or F32), offset, symmetric, ordered, block.
    """
    rng = np.random.default_rng(zlib.crc32(json.dumps([name.split(".")[-1] in "q_proj k_proj v_proj", name]).encode()))
    (rows, columns), bits, layout = shape, how.get("bits", 4), how["layout"]
    group, kind = how.get("group") or columns, how.get("scale", "F16")
    across, per = -(-columns // group), 32 // bits
    high = (1 << bits) - 1
    size = (1, 1) if how.get("tensor") else (rows, across)
    scales, numbers = rounded((rng.uniform(0.5, 1, size) * 2 / (high + 1) / columns**0.5).astype(np.float32), kind)
    if layout == "fp8":
        table = e4m3()
        quants = rng.integers(0, 256, shape, np.uint8)
        quants[(quants & 127) > 0x5F] -= 0x20  # at most 16
        block = how.get("block") or (1, group)
        size = -(-rows // block[0]), -(-columns // block[1])
        size = (1, 1) if how.get("tensor") else size
        scales, numbers = rounded((rng.uniform(0.5, 1, size) / columns**0.5 / 4).astype(np.float32), kind)
        wide = (
            numbers
            if how.get("tensor")
            else np.repeat(np.repeat(numbers, block[0], 0)[:rows], block[1], 1)[:, :columns]
        )
        stored = scales.reshape(how["scale shape"]) if "scale shape" in how else scales
        tensors = {f"{name}.weight": ("F8_E4M3", quants), f"{name}.{how['name']}": (kind, stored)}
        return tensors, table[quants] * wide
    quants = rng.integers(0, high + 1, shape)
    zeros = np.full(size, (high + 1) // 2) if how.get("symmetric") else rng.integers(1, high, size)
    which = np.arange(columns) // group
    if how.get("ordered"):
        seed = zlib.crc32(name.rsplit(".", 1)[0].encode())  # q, k and v have one order
        which = np.random.default_rng(seed).permutation(which)
    dense = np.empty(shape, np.float32)
    for column in range(columns):
        g = 0 if how.get("tensor") else which[column]
        dense[:, column] = numbers[:, g] * (quants[:, column] - zeros[:, g]).astype(np.float32)
    half = (high + 1) // 2
    if layout == "gptq":
        return {
            f"{name}.g_idx": ("I32", which.astype(np.int32)),
            f"{name}.qweight": ("I32", np.ascontiguousarray(packed(quants, bits).T)),
            f"{name}.qzeros": ("I32", packed(np.ascontiguousarray(zeros.T) - how.get("offset", 1), bits)),
            f"{name}.scales": (kind, np.ascontiguousarray(scales.T)),
        }, dense
    if layout == "awq":
        order = (0, 2, 4, 6, 1, 3, 5, 7)
        return {
            f"{name}.qweight": ("I32", packed(np.ascontiguousarray(quants.T), 4, order)),
            f"{name}.qzeros": ("I32", packed(np.ascontiguousarray(zeros.T), 4, order)),
            f"{name}.scales": (kind, np.ascontiguousarray(scales.T)),
        }, dense
    if layout == "packed":
        assert columns % per == 0
        tensors = {
            f"{name}.weight_packed": ("I32", packed(quants, bits)),
            f"{name}.weight_scale": (kind, scales),
            f"{name}.weight_shape": ("I64", np.array(shape, np.int64)),
        }
        if not how.get("symmetric"):
            points = np.ascontiguousarray(packed(np.ascontiguousarray(zeros.T), bits).T)
            tensors[f"{name}.weight_zero_point"] = ("I32", points)
        if how.get("ordered"):
            tensors[f"{name}.weight_g_idx"] = ("I32", which.astype(np.int32))
        return tensors, dense
    tensors = {f"{name}.weight": ("I8", (quants - half).astype(np.int8)), f"{name}.weight_scale": (kind, scales)}
    if not how.get("symmetric"):
        tensors[f"{name}.weight_zero_point"] = ("I8", (zeros - half).astype(np.int8))
    return tensors, dense


def config_of(how: dict[str, Any]) -> dict[str, Any]:
    """The ``quantization_config`` of such a checkpoint."""
    layout, bits, group = how["layout"], how.get("bits", 4), how.get("group") or -1
    if layout == "gptq":
        form = "gptq" if how.get("offset", 1) else "gptq_v2"
        return {
            "quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": bool(how.get("ordered")),
            "sym": bool(how.get("symmetric")), "checkpoint_format": form, "lm_head": False,
        }  # fmt: skip
    if layout == "awq":
        return {
            "quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": ["lm_head"],
        }  # fmt: skip
    if layout == "fp8" and how["name"] == "weight_scale_inv":
        block = how.get("block")
        return {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": block and list(block)}
    strategy = "tensor" if how.get("tensor") else "group" if how.get("group") else "channel"
    strategy = "block" if how.get("block") else strategy
    weights = {
        "num_bits": 8 if layout == "fp8" else bits, "type": "float" if layout == "fp8" else "int", "strategy": strategy,
        "symmetric": bool(how.get("symmetric", layout == "fp8")), "group_size": how.get("group"), "dynamic": False,
        "actorder": "group" if how.get("ordered") else None, "block_structure": how.get("block") and list(how["block"]),
    }  # fmt: skip
    form = {"packed": "pack-quantized", "plain": "int-quantized", "fp8": "float-quantized"}[layout]
    return {
        "quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
        "ignore": ["lm_head"], "kv_cache_scheme": None,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
    }  # fmt: skip


def both(files: dict[str, bytes], how: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return a checkpoint whose projections are quantised, and the float32 form of its numbers."""
    tensors, dense = {}, {}
    for name, array in tensors_of(files).items():
        stem = name.removesuffix(".weight")
        if not stem.endswith("_proj"):
            tensors[name], dense[name] = ("F32", array), array
            continue
        parts, dense[name] = quantized(stem, array.shape, how)
        tensors.update(parts)
    tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1][1].itemsize, item[0])))  # as safetensors writes
    config = {**json.loads(files["config.json"]), "quantization_config": config_of(how)}
    kinds = {name: {"dtype": dtype} for name, (dtype, _) in tensors.items()}
    weights = pack({name: array for name, (_, array) in tensors.items()}, **kinds)
    return {**files, "config.json": json.dumps(config).encode(), WEIGHTS: weights}, {**files, WEIGHTS: pack(dense)}


def header_of(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the bytes of its tensors."""
    start = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:start]), raw[start:]


def added(raw: bytes, name: str, array: Any, dtype: str) -> bytes:
    """The file with one more tensor."""
    return _written({**_parts_of(raw), name: ({"dtype": dtype, "shape": list(array.shape)}, array.tobytes())})


def without(raw: bytes, name: str) -> bytes:
    """The file without the tensor ``name``."""
    return _written({each: part for each, part in _parts_of(raw).items() if each != name})


def replaced(raw: bytes, name: str, array: Any = None, dtype: str | None = None) -> bytes:
    """The file with another tensor ``name``, or without it."""
    before = _parts_of(raw)[name][0]["dtype"]
    rest = without(raw, name)
    return rest if array is None else added(rest, name, array, dtype or before)


def _parts_of(raw: bytes) -> dict[str, tuple[dict[str, Any], bytes]]:
    table, data = header_of(raw)
    return {name: (entry, data[slice(*entry["data_offsets"])]) for name, entry in table.items()}


def _written(parts: dict[str, tuple[dict[str, Any], bytes]]) -> bytes:
    at, table = 0, {}
    for name, (entry, data) in parts.items():
        table[name] = {**entry, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, data in parts.values())


def key_of(how: dict[str, Any]) -> str:
    """The name of a layout in the goldens."""
    return json.dumps(how, sort_keys=True)


def digest_of(how: dict[str, Any]) -> str:
    """SHA-256 of the numbers of a matrix, as float32."""
    return hashlib.sha256(np.ascontiguousarray(quantized("x.q_proj", (256, 256), how)[1]).tobytes()).hexdigest()
