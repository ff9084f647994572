"""Checkpoints quantised by GPTQ, AWQ, compressed-tensors and FP8, beside the float32 form of their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model, TensorSharingManager
from tensorcommons.errors import InvalidWeights
from tests.cases import Place, only, shows
from tests.cases.checkpoints import WEIGHTS
from tests.cases.published_files import (
    AWQ,
    BLOCKS,
    CHANNELS,
    EVERY,
    GPTQ,
    PACKED,
    PLAIN,
    added,
    both,
    config_of,
    digest_of,
    header_of,
    key_of,
    packed,
    quantized,
    replaced,
    without,
)  # fmt: skip
from tests.cases.seeded import checkpoint
from tests.cases.support import near, raises

IDS = {"input_ids": np.array([[2, 17, 31, 5, 3, 80, 7]])}
SIZE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}


async def _load(place: Place, manager: TensorSharingManager, files: Any, dtype: str | None = None) -> Model:
    options: dict[str, Any] = {"dtype": dtype, "precision": "exact", "tokenizer": False}
    return await tc.from_pretrained(files, manager=manager, device=place.device, **options)


async def _read(model: Model) -> Any:
    return await (await model(**IDS, outputs=["logits"]))["logits"].read()


def _files(place: Place, how: dict[str, Any]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    return both(checkpoint(place, "tiny-llama", **SIZE), how)


async def _compare(place: Place, how: dict[str, Any], dtype: str | None = None) -> Model:
    """Load both forms, whose outputs are equal; return the quantised one."""
    manager = place.manager()
    published, dense = _files(place, how)
    model = await _load(place, manager, published, dtype)
    wide = await _load(place, manager, dense, dtype)
    golden = await _read(wide)
    assert np.isfinite(golden).all() and golden.std() > 0.1
    near(await _read(model), golden, 1e-4)
    wide.unload()
    return model


async def _keep(place: Place, how: dict[str, Any], form: str) -> None:
    """Compare; the matrices have the format ``form`` on devices that store it, and are float32 on others."""
    model = await _compare(place, how)
    assert (form in model.weight_formats) == (form in place.device.backend.block_formats)
    model.unload()


@shows("llama", "GPTQ, 4 bits, act-order", "float32 of its numbers")
async def gptq(place: Place) -> None:
    await _keep(place, {**GPTQ, "group": 32, "ordered": True}, "int4_g32")


@shows("llama", "AWQ", "float32 of its numbers")
async def awq(place: Place) -> None:
    await _keep(place, {**AWQ, "group": 128}, "int4_g128")


@shows("llama", "compressed-tensors, 4 bits", "float32 of its numbers")
async def compressed_tensors(place: Place) -> None:
    await _keep(place, {**PACKED, "group": 128, "symmetric": True, "scale": "BF16"}, "int4_g128_bf16")


@shows("llama", "FP8 in blocks", "float32 of its numbers")
async def fp8(place: Place) -> None:
    await _keep(place, {**BLOCKS, "scale": "BF16", "block": (128, 128)}, "fp8_g128_bf16")


@only("cpu")
async def numbers_are_those_of_the_references(place: Place) -> None:
    """Those that compressed-tensors, AutoAWQ, AutoGPTQ and `transformers` make of the tensors."""
    goldens = json.loads((Path(place.goldens) / "published.json").read_text("utf-8"))
    for how, _ in EVERY:
        if key_of(how) in goldens:
            assert digest_of(how) == goldens[key_of(how)], how
    assert {"gptq", "awq", "packed", "plain", "fp8"} == {json.loads(key)["layout"] for key in goldens}
    assert len(goldens) >= len(EVERY) - 6


@only("cpu")
async def every_layout(place: Place) -> None:
    for how, form in EVERY:
        model = await _compare(place, how)
        orders = {"int32"} if how.get("ordered") and form != "float32" else set()
        assert set(model.weight_formats) == {form, "float32"} | orders, how
        header, _ = header_of(_files(place, how)[0][WEIGHTS])
        in_file = sum(np.subtract(*entry["data_offsets"][::-1]) for name, entry in header.items() if "_proj" in name)
        kept = sum(nbytes for kind, nbytes in model.weight_formats.items() if kind in (form, "int32"))
        most = 1.07 if how.get("block") == (48, 64) else 1.04  # a block has more scales than are usual
        assert form == "float32" or kept <= most * in_file, (how, kept / in_file)
        model.unload()
        (await _compare(place, how, "float32")).unload()
        if form != "q8_0":  # whose blocks are kept, while those of the dense form have other scales
            (await _compare(place, how, "int8")).unload()


@only("cpu")
async def damaged_parts_are_named(place: Place) -> None:
    """Before anything is allocated, or with nothing left; the message names the tensor."""
    manager = place.manager()
    stem = "model.layers.0.self_attn.q_proj"

    async def refuse(how: dict[str, Any], name: str, *words: str, array: Any = None, dtype: str | None = None) -> None:
        files, _ = _files(place, how)
        raw = replaced(files[WEIGHTS], f"{stem}.{name}", array, dtype)
        await raises(InvalidWeights, _load(place, manager, {**files, WEIGHTS: raw}), *words)
        assert place.device.memory()["weights"] == 0

    ordered = {**GPTQ, "group": 32, "ordered": True}
    which = np.arange(128, dtype=np.int32) // 32
    for part in ("qweight", "scales", "qzeros", "g_idx"):
        await refuse(ordered, part, "q_proj" if part == "qweight" else part)
    await refuse(ordered, "g_idx", "group 4 of 4", array=which + (which == 3))
    await refuse(ordered, "g_idx", "group -1 of 4", array=which - (which == 0))
    await refuse(ordered, "g_idx", "31 to 33 columns", array=np.sort(np.where(np.arange(128) == 0, 1, which)))
    await refuse(ordered, "g_idx", "I32 (128,)", array=which[:-1])
    await refuse(ordered, "g_idx", "I32 (128,)", array=which.astype(np.int64), dtype="I64")
    await refuse({**GPTQ, "group": 32}, "g_idx", "desc_act", array=which[::-1].copy())
    await refuse(ordered, "scales", "I32", array=np.ones((4, 128), np.int32), dtype="I32")
    await refuse(ordered, "scales", "(3, 128)", "(4, 128)", array=np.ones((3, 128), np.float16), dtype="F16")
    await refuse(ordered, "qzeros", "(4, 15)", array=np.zeros((4, 15), np.int32))
    await refuse(ordered, "qzeros", "zero point", "15", array=packed(np.full((4, 128), 15), 4))
    await refuse(ordered, "qweight", "I32 (120,)", array=np.zeros((15, 128), np.int32))
    await refuse(ordered, "qweight", "not a matrix", array=np.zeros((16,), np.int32))
    await refuse(ordered, "qweight", "I64", array=np.zeros((16, 128), np.int64), dtype="I64")
    await refuse({**AWQ, "group": 64}, "qzeros", "qzeros")
    await refuse(
        {**PACKED, "group": 64}, "weight_zero_point", "-8 to 7", array=np.full((128, 2), 8, np.int8), dtype="I8"
    )
    await refuse({**PACKED, "group": 0}, "weight_scale", "shape (1, 7)", array=np.ones((1, 7), np.float16), dtype="F16")
    await refuse({**PACKED, "group": 0}, "weight_scale", "zero_point", array=np.ones((1, 1), np.float16), dtype="F16")
    await refuse({**PACKED, "group": 0}, "weight_scale", "zero_point", array=np.ones((128,), np.float16), dtype="F16")
    await refuse({**PACKED, "group": 64}, "weight_zero_point", "weight_zero_point")
    await refuse(PLAIN, "weight_scale", "weight_scale")
    await refuse(BLOCKS, "weight_scale_inv", "weight_scale_inv")
    await refuse({**BLOCKS, "block": (64, 64)}, "weight_scale_inv", "(2, 2)", array=np.ones(3, np.float32), dtype="F32")


@only("cpu")
async def more_parts_than_expected(place: Place) -> None:
    """Names that a file has beside those of a matrix, and zero points that e4m3 does not have."""
    manager = place.manager()
    stem = "model.layers.0.self_attn.q_proj"

    async def refuse(how: dict[str, Any], name: str, array: Any, dtype: str, *words: str) -> None:
        files, _ = _files(place, how)
        raw = added(files[WEIGHTS], f"{stem}.{name}", array, dtype)
        await raises(InvalidWeights, _load(place, manager, {**files, WEIGHTS: raw}), *words)
        assert place.device.memory()["weights"] == 0

    ordered = {**GPTQ, "group": 32, "ordered": True}
    await refuse(ordered, "weight.order", np.arange(128, dtype=np.int32), "I32", "weight.order")
    await refuse(ordered, "weight.order", np.zeros(1000, np.float32), "F32", "weight.order")
    await refuse(ordered, "weight", np.zeros((128, 128), np.float32), "F32", "twice")
    await refuse(CHANNELS, "weight_zero_point", np.zeros((128, 1), np.int8), "I8", "zero points")


@only("cpu")
async def one_file_under_two_settings(place: Place) -> None:
    """The numbers depend on the config, too: a file that was read before is not taken for the same weights."""
    manager = place.manager()
    files, _ = _files(place, {**GPTQ, "group": 128})
    config = json.loads(files["config.json"])
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    changed = {**files, "config.json": json.dumps(config).encode()}
    fresh = await _load(place, place.manager(), changed)
    golden = await _read(fresh)
    fresh.unload()
    first = await _load(place, manager, files)
    second = await _load(place, manager, changed)
    np.testing.assert_array_equal(await _read(second), golden)
    assert np.abs(await _read(first) - golden).max() > 0.1
    first.unload()
    second.unload()


@only("cpu")
async def matrices_that_are_stored_as_columns_are_refused(place: Place) -> None:
    files = checkpoint(place, "tiny-gpt2", n_embd=128, n_head=4, n_layer=1)
    name = "transformer.h.0.attn.c_proj"
    parts, _ = quantized(name, (128, 128), {**GPTQ, "group": 64})
    raw = without(files[WEIGHTS], f"{name}.weight")
    for each, (dtype, array) in parts.items():
        raw = added(raw, each, array, dtype)
    config = {**json.loads(files["config.json"]), "quantization_config": config_of({**GPTQ, "group": 64})}
    broken = {**files, WEIGHTS: raw, "config.json": json.dumps(config).encode()}
    await raises(InvalidWeights, _load(place, place.manager(), broken), "c_proj", "matrices of products")


@only("cpu")
async def settings_that_are_not_supported_are_named(place: Place) -> None:
    manager = place.manager()

    async def refuse(how: dict[str, Any], changes: Any, *words: str) -> None:
        files, _ = _files(place, how)
        config = json.loads(files["config.json"])
        table = config["quantization_config"]
        if callable(changes):
            changes(table)
        else:
            table.update(changes)
        files = {**files, "config.json": json.dumps(config).encode()}
        await raises(InvalidWeights, _load(place, manager, files), *words, "quantiz" if "nf4" not in words else "nf4")

    gptq, packing = {**GPTQ, "group": 32}, {**PACKED, "group": 32}
    for key, bad in {
        "bits": (2, 3, None, "4", True, 10**30),
        "group_size": (0, -2, 1.5, "32", 2**40),
        "desc_act": (1, "yes"),
        "checkpoint_format": ("marlin", 7, ["gptq"]),
        "is_marlin_format": (True,),
        "pack_dtype": ("int8",),
        "adapter": ({"name": "lora"},),
        "rotation": ("hadamard",),
        "dynamic": ({"+:.*up.*": {"bits": 8}}, [1]),
        "quant_method": ("hqq", "quanto", "mxfp4", None, 4, ["gptq"], "x" * 10_000),
    }.items():
        for each in bad:
            await refuse(gptq, {key: each}, key)
    await refuse(gptq, {"quant_method": "bitsandbytes"}, "bitsandbytes", "nf4", "dequantize")
    await refuse(gptq, {"quant_method": None, "load_in_4bit": True}, "bitsandbytes", "nf4")
    await refuse({**AWQ, "group": 64}, {"version": "gemv"}, "gemv")
    await refuse({**AWQ, "group": 64}, {"zero_point": False}, "zero_point")
    await refuse({**BLOCKS, "block": (64, 64)}, {"weight_block_size": [64]}, "weight_block_size")
    await refuse({**BLOCKS, "block": (64, 64)}, {"fmt": "e5m2"}, "e5m2")
    for changes, word in (
        ({"format": "nvfp4-pack-quantized"}, "nvfp4"),
        ({"config_groups": {}}, "0 groups"),
        ({"config_groups": {"a": {}, "b": {}}}, "2 groups"),
        ({"config_groups": {"a": 3}}, "is not an object"),
        ({"transform_config": {"config_groups": {"R1": {}}}}, "transform_config"),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "kv_cache_scheme"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24"),
        ({"quantization_status": "initialized"}, "initialized"),
    ):
        await refuse(packing, changes, word)

    def weights(**changes: Any) -> Any:
        return lambda table: table["config_groups"]["group_0"]["weights"].update(changes)

    for key, value in (
        ("num_bits", 3), ("type", "float"), ("strategy", "token"), ("dynamic", True), ("actorder", "x"),
        ("symmetric", "no"), ("symmetric", 1), ("group_size", None), ("group_size", 0),
    ):  # fmt: skip
        await refuse(packing, weights(**{key: value}), "num_bits" if key == "type" else key)


async def quantised_copies_share_their_weights(place: Place) -> None:
    """Equal blocks are one storage, also of a file with another order of tensors; so is the order of columns."""
    manager = place.manager()
    files, _ = _files(place, {**GPTQ, "group": 32, "ordered": True})
    first = await _load(place, manager, files)
    total = place.device.memory()["weights"]
    header, data = header_of(files[WEIGHTS])
    parts = {name: (entry, data[slice(*entry["data_offsets"])]) for name, entry in reversed(header.items())}
    at, table = 0, {}
    for name, (entry, raw) in parts.items():
        table[name] = {**entry, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(table).encode()
    moved = len(text).to_bytes(8, "little") + text + b"".join(raw for _, raw in parts.values())
    second = await _load(place, manager, {**files, WEIGHTS: moved})
    assert place.device.memory()["weights"] == total
    np.testing.assert_array_equal(await _read(first), await _read(second))
    first.unload()
    second.unload()
    assert place.device.memory()["weights"] == 0
