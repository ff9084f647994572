"""Models in GGUF files beside the same models in safetensors: equal numbers, shared weights, equal texts."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model, TensorSharingManager
from tensorcommons.errors import InvalidWeights, TensorCommonsError, UnsupportedModel
from tensorcommons.formats import BLOCKS
from tests.cases import Place, only, shows
from tests.cases.checkpoints import WEIGHTS, files_of, pack, tensors_of
from tests.cases.gguf_files import GOLDENS, SIZES, metadata_for, quantized, stored, tensors_for, write
from tests.cases.seeded import checkpoint
from tests.cases.support import near, raises

SIZE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 256}
KINDS: dict[str, dict[str, Any]] = {
    "llama": SIZE,
    "qwen2": SIZE,
    "qwen3": {**SIZE, "head_dim": 128, "use_sliding_window": False},
    "gemma3": {**SIZE, "head_dim": 128, "query_pre_attn_scalar": 128},
    "gpt2": {"n_embd": 256, "n_head": 4},
}
TOKENS = 7  # twice as many are fewer than the runs after which WebNN makes constants, still under way at the end
IDS = {"input_ids": np.array([[2, 17, 31, 5, 3, 80, 7]])}


def files_for(place: Place, kind: str) -> dict[str, bytes]:
    """Make the checkpoint of a tiny model whose matrices have rows of 256 numbers; of BERT, the committed one."""
    if kind == "bert":
        return files_of(place, "tiny-bert")
    return checkpoint(place, f"tiny-{kind}", **KINDS[kind])


def both(kind: str, files: dict[str, bytes], types: Any) -> tuple[bytes, dict[str, bytes]]:
    """Make a GGUF file whose matrices have ``types``, in turn, and the safetensors form of its numbers."""
    names = {theirs: ours for ours, theirs in GOLDENS["names"][kind].items()}
    config, turns, tensors, numbers = json.loads(files["config.json"]), itertools.cycle(types), {}, {}
    for number, (name, array) in enumerate(tensors_for(kind, files).items()):
        of = next(turns) if array.ndim == 2 else "F32"
        if of in ("F32", "F16", "BF16"):
            tensors[name] = stored(of, array)
            raw = np.frombuffer(tensors[name][2], {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[of])
            wide = (raw.astype(np.uint32) << 16).view(np.float32) if of == "BF16" else raw.astype(np.float32)
        else:
            blocks = quantized(of, array.shape, number)
            tensors[name] = of, array.shape, blocks
            wide = BLOCKS[of.lower()].numbers(blocks)
        numbers[names[name]] = _as_in_checkpoints(kind, name, wide.reshape(array.shape), config)
    return write(metadata_for(kind, files), tensors), {**files, WEIGHTS: pack(numbers)}


def _as_in_checkpoints(kind: str, name: str, array: Any, config: dict[str, Any]) -> Any:
    part = name.split(".")[-2]
    if kind == "llama" and part in ("attn_q", "attn_k"):
        heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
        return array.reshape(heads, -1, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
    if kind == "gpt2" and part in ("attn_qkv", "attn_output", "ffn_up", "ffn_down") and array.ndim == 2:
        return np.ascontiguousarray(array.T)
    if kind == "gemma3" and part.endswith("norm"):
        return array - np.float32(1)  # exact: these are around 2
    return array


async def _load(place: Place, manager: TensorSharingManager, files: Any, dtype: str | None = None) -> Model:
    """Load a model that computes exactly, to be compared with float32."""
    options: dict[str, Any] = {"dtype": dtype, "precision": "exact", "tokenizer": False}
    return await tc.from_pretrained(files, manager=manager, device=place.device, **options)


async def _read(model: Model, name: str) -> Any:
    return await (await model(**IDS, outputs=[name]))[name].read()


def _formats(model: Model, types: Any) -> set[str]:
    """The formats of weights in blocks, of which ``types`` the file has, that the device of ``model`` stores."""
    stored = model.device.backend.block_formats
    return {of.lower() for of in types if of.lower() in stored}


async def _compare(place: Place, kind: str, types: Any, dtype: str = "float32") -> None:
    """Load both forms: the outputs and texts are equal, and so are the weights, but for GPT-2's columns.

    Without a dtype the blocks are kept, and the outputs nearly the same.
    """
    types = list(types)
    gguf, files = both(kind, files_for(place, kind), types)
    manager = place.manager()
    first = await _load(place, manager, {"model.gguf": gguf}, dtype)
    once = manager.report().unique_weight_bytes
    second = await _load(place, manager, files, dtype)
    name = "last_hidden_state" if kind == "bert" else "logits"
    found, golden = await _read(first, name), await _read(second, name)
    assert np.isfinite(golden).all() and golden.std() > 0.01
    if kind == "gpt2":
        near(found, golden, 1e-4)
    else:
        np.testing.assert_array_equal(found, golden)
        assert manager.report().unique_weight_bytes == once, kind
    if kind != "bert":
        options: dict[str, Any] = {"max_new_tokens": TOKENS, "pad_token_id": 0}
        texts = [await model.generate(IDS["input_ids"], **options) for model in (first, second)]
        np.testing.assert_array_equal(*texts)
        assert len(set(texts[0][0, -TOKENS:].tolist())) > 1
    if dtype == "float32":
        first.unload()
        first = await _load(place, manager, {"model.gguf": gguf}, None)
        near(await _read(first, name), golden, 1e-4)
        assert set(first.weight_formats) - {"float32"} == _formats(first, types), first.weight_formats
    first.unload()
    second.unload()


@shows("llama", "GGUF, every type of tensors", "safetensors of its numbers")
async def llama_with_every_type(place: Place) -> None:
    await _compare(place, "llama", SIZES)


@shows("qwen2", "GGUF, every type of tensors", "safetensors of its numbers")
async def qwen2_with_every_type(place: Place) -> None:
    await _compare(place, "qwen2", reversed(SIZES))


@shows("qwen3", "GGUF, every type of tensors", "safetensors of its numbers")
async def qwen3_with_every_type(place: Place) -> None:
    await _compare(place, "qwen3", SIZES)


@shows("gemma3_text", "GGUF, every type of tensors", "safetensors of its numbers")
async def gemma3_with_every_type(place: Place) -> None:
    await _compare(place, "gemma3", SIZES)


@only("cpu")
async def adapters_of_gemma3_have_norms_as_differences_from_one(place: Place) -> None:
    """PEFT saves them as `transformers` has them, also where the base is a GGUF file, which has them whole."""
    gguf, files = both("gemma3", files_for(place, "gemma3"), ("F32",))
    tensors, manager = tensors_of(files), place.manager()
    norm, query = (f"model.layers.0.{part}.weight" for part in ("input_layernorm", "self_attn.q_proj"))
    changed = tensors[norm] + np.float32(0.5)
    (outputs, inputs), module = tensors[query].shape, f"base_model.model.{query.removesuffix('.weight')}"
    saved = {f"base_model.model.{norm}": changed, f"{module}.lora_A.weight": np.zeros((2, inputs), np.float32)}
    saved[f"{module}.lora_B.weight"] = np.zeros((outputs, 2), np.float32)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    config["modules_to_save"] = ["input_layernorm"]
    adapter = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": pack(saved)}
    tuned = await _load(place, manager, {**files, WEIGHTS: pack({**tensors, norm: changed})})
    golden = await _read(tuned, "logits")
    for base in ({"model.gguf": gguf}, files):
        model = await _load(place, manager, base)
        assert np.abs(await _read(model, "logits") - golden).max() > 1e-3
        await model.load_adapter(adapter, adapter_name="norms")
        out = await model(**IDS, outputs=["logits"], adapter="norms")
        near(await out["logits"].read(), golden, 1e-5)
        model.unload()


@shows("gpt2", "GGUF, K-quants", "safetensors of its numbers")
async def gpt2_with_k_quants(place: Place) -> None:
    await _compare(place, "gpt2", ("Q4_K", "Q6_K", "F16", "Q5_K", "Q8_0"))


@shows("bert", "GGUF, F32, F16 and BF16", "safetensors of its numbers")
async def bert_in_floats(place: Place) -> None:
    await _compare(place, "bert", ("F32", "F16", "BF16"))


async def in_float16(place: Place) -> None:
    for kind in ("llama", "gpt2"):
        await _compare(place, kind, ("Q5_0", "Q3_K", "F16", "IQ4_NL"), "float16")


async def bert_pools_as_its_metadata_says(place: Place) -> None:
    files = files_for(place, "bert")
    data, tensors = metadata_for("bert", files), tensors_for("bert", files)
    for pooling, expected in ((2, lambda hidden: hidden[:, 0]), (1, lambda hidden: hidden.mean(1))):
        written = write({**data, "bert.pooling_type": pooling}, {name: stored("F32", a) for name, a in tensors.items()})
        model = await _load(place, place.manager(), {"m.gguf": written})
        vector = expected(await _read(model, "last_hidden_state"))
        near(await _read(model, "sentence_embedding"), vector / np.linalg.norm(vector, axis=1, keepdims=True), 1e-4)
        model.unload()


async def blocks_of_the_device_are_kept(place: Place) -> None:
    """``dtype="int8"`` takes the blocks of Q8_0 as they are, with the rows of heads in order, and converts others."""
    gguf, files = both("llama", files_for(place, "llama"), ("Q8_0", "Q4_0"))
    manager = place.manager()
    model, dense = await _load(place, manager, {"model.gguf": gguf}, "int8"), await _load(place, manager, files)
    blocks, numbers = (manager.registry.held_by(each.name) for each in (model, dense))
    kept = converted = 0
    for name, entry in blocks.items():
        if entry.spec.dtype.name == "float32":
            continue
        words = np.frombuffer(bytes(await entry.storage.content()), np.int8)
        wanted = np.frombuffer(bytes(await numbers[name].storage.content()), np.float32)
        found = BLOCKS["q8_0"].dense(words, (len(wanted) // 256, 256)).reshape(-1)
        near(found, wanted, 0.01)
        kept, converted = kept + np.array_equal(found, wanted), converted + (not np.array_equal(found, wanted))
    assert (kept, converted) == (8, 7)
    near(await _read(model, "logits"), await _read(dense, "logits"), 0.05)


@only("webgpu")
async def a_file_of_blocks_on_every_device(place: Place) -> None:
    """It moves to devices that widen some of its formats, and comes back as it was."""
    gguf, _ = both("qwen2", files_for(place, "qwen2"), ("Q4_K", "Q8_0", "Q4_1"))
    manager = place.manager()
    model = await _load(place, manager, {"model.gguf": gguf})
    wanted, formats = await _read(model, "logits"), model.weight_formats
    identities = {row.identity for row in manager.report().tensors}
    start, *others = place.devices.opened
    for device in (*others, start):
        await model.to(device)
        near(await _read(model, "logits"), wanted, 1e-4)
        assert device.memory()["weights"] == model.weight_bytes >= sum(formats.values())
        assert set(model.weight_formats) - {"float32"} == {"q4_k", "q8_0", "q4_1"} & device.backend.block_formats
    assert model.weight_formats == formats and identities == {row.identity for row in manager.report().tensors}
    np.testing.assert_array_equal(await _read(model, "logits"), wanted)
    model.unload()


def file_with_tokens(files: dict[str, bytes]) -> tuple[bytes, list[str]]:
    """Make a GGUF file of a Llama's ``files`` that has a tokenizer and a chat template. Returns its tokens, too."""
    tensors = {name: stored("F16", array) for name, array in tensors_for("llama", files).items()}
    merges = ["t h", "th e", "\u0120 the", "a n"]
    tokens = ["<|end|>", *map(chr, range(33, 127)), "\u0120", *(merge.replace(" ", "") for merge in merges)]
    types = np.array([3, *[1] * (len(tokens) - 1)], np.int32)
    words: dict[str, Any] = {"model": "gpt2", "pre": "smollm", "tokens": tokens, "token_type": types, "merges": merges}
    words |= {"eos_token_id": 0, "padding_token_id": 0}
    data = {f"tokenizer.ggml.{key}": each for key, each in words.items()}
    data["tokenizer.chat_template"] = "{% for message in messages %}{{ message.content }}<|end|>{% endfor %}"
    return write({**metadata_for("llama", files), **data}, tensors), tokens


@only("webgpu", "webnn")
async def a_file_alone_writes_texts(place: Place) -> None:
    """Tokens, chats and the end of a text come from the metadata. Tokenizers run where there is JavaScript."""
    manager = place.manager()
    written, tokens = file_with_tokens(files_for(place, "llama"))
    model = await tc.from_pretrained({"m.gguf": written}, manager=manager, device=place.device)
    assert model.tokenizer is not None, model.why_no_tokenizer
    ids = model.tokenizer.encode_batch(["the an 12<|end|>"]).input_ids[0].tolist()
    assert [tokens[number] for number in ids] == ["the", "\u0120", "an", "\u0120", "1", "2", "<|end|>"]
    assert model.tokenizer.apply_chat_template([{"role": "user", "content": "the"}]) == "the<|end|>"
    write_text = await tc.pipeline("text-generation", model, manager=manager)
    text = (await write_text("the an", max_new_tokens=3))[0]["generated_text"]
    new = await model.generate(np.array([ids[:3]]), max_new_tokens=3)
    assert text == "the an" + model.tokenizer.decode(new[0, 3:].tolist())


async def generation_follows_the_metadata(place: Place) -> None:
    files = files_for(place, "llama")
    tensors = {name: stored("F32", array) for name, array in tensors_for("llama", files).items()}
    data = metadata_for("llama", files)
    model = await _load(place, place.manager(), {"m.gguf": write(data, tensors)})
    text = (await model.generate(IDS["input_ids"], max_new_tokens=TOKENS, pad_token_id=0))[
        0, IDS["input_ids"].shape[1] :
    ]
    ends = {"tokenizer.ggml.eos_token_id": int(text[3]), "tokenizer.ggml.padding_token_id": 5}
    model = await _load(place, place.manager(), {"m.gguf": write({**data, **ends}, tensors)})
    stopped = await model.generate(IDS["input_ids"], max_new_tokens=TOKENS)
    first = text.tolist().index(int(text[3]))
    assert stopped[0, IDS["input_ids"].shape[1] :].tolist() == text[: first + 1].tolist()


@only("cpu")
async def files_that_are_not_supported_are_refused_by_name(place: Place) -> None:
    files = files_for(place, "llama")
    tensors = {name: stored("F32", array) for name, array in tensors_for("llama", files).items()}
    data = metadata_for("llama", files)

    def changed(**values: Any) -> bytes:
        table = {**data, **{key.replace("__", "."): each for key, each in values.items()}}
        return write({key: each for key, each in table.items() if each is not None}, tensors)

    cases: dict[str, tuple[type[TensorCommonsError], bytes]] = {
        "'mamba' is not supported; supported: bert, gemma3, gpt2, llama": (
            UnsupportedModel,
            changed(general__architecture="mamba"),
        ),
        "general.architecture": (InvalidWeights, changed(general__architecture=None)),
        "llama-gguf-split --merge": (InvalidWeights, changed(split__count=3)),
        "general.type is 'adapter'": (InvalidWeights, changed(general__type="adapter")),
        "llama.block_count is missing": (InvalidWeights, changed(llama__block_count=None)),
        "llama.embedding_length must be an integer, not 'x'": (InvalidWeights, changed(llama__embedding_length="x")),
        "llama.feed_forward_length must be an integer, not an array of 2": (
            InvalidWeights,
            changed(llama__feed_forward_length=np.array([1, 2])),
        ),
        "tokenizer.ggml.eos_token_id must be an integer, not an array of 2": (
            InvalidWeights,
            changed(tokenizer__ggml__eos_token_id=np.array([1, 2])),
        ),
        "general.sampling.temp must be a number, not an array of 2": (
            InvalidWeights,
            changed(general__sampling__temp=np.array([1.0, 2.0], np.float32)),
        ),
        "split.count must be an integer, not an array of 2": (InvalidWeights, changed(split__count=np.array([1, 2]))),
        "general.type must be a string, not an array of 1": (InvalidWeights, changed(general__type=np.array([1]))),
        "llama.attention.causal False is not supported": (InvalidWeights, changed(llama__attention__causal=False)),
        "llama.expert_count 8 is not supported": (InvalidWeights, changed(llama__expert_count=8)),
        "llama.rope.scaling.type 'yarn' is not supported": (InvalidWeights, changed(llama__rope__scaling__type="yarn")),
        "llama.rope.dimension_count 4 is not supported": (InvalidWeights, changed(llama__rope__dimension_count=4)),
        "has no pairs of rows for 0 heads": (InvalidWeights, changed(llama__attention__head_count_kv=0)),
        "rope_freqs.weight must be F32 of shape (32,)": (
            InvalidWeights,
            write(data, {**tensors, "rope_freqs.weight": stored("F32", np.ones(8, np.float32))}),
        ),
        "rope_freqs.weight has the value 0.0": (
            InvalidWeights,
            write(data, {**tensors, "rope_freqs.weight": stored("F32", np.zeros(32, np.float32))}),
        ),
        "tensor 'blk.0.attn_x.weight' is not one of a llama": (
            InvalidWeights,
            write(data, {**tensors, "blk.0.attn_x.weight": stored("F32", np.ones(8, np.float32))}),
        ),
        "token_embd.weight": (
            InvalidWeights,
            write(data, {k: v for k, v in tensors.items() if k != "token_embd.weight"}),
        ),
        "are missing: layers.1.mlp.up_proj.weight": (
            InvalidWeights,
            write(data, {k: v for k, v in tensors.items() if k != "blk.1.ffn_up.weight"}),
        ),
    }
    manager = place.manager()
    for reason, (kind, raw) in cases.items():
        await raises(kind, _load(place, manager, {"model.gguf": raw}), reason)
        assert not manager.models and not manager.report().unique_weight_bytes
    others: dict[str, dict[str, bytes]] = {
        "one of 3 files of a model: merge them": {"m-00001-of-00003.gguf": changed()},
        "not GGUF: a web page": {"m.gguf": b"<!doctype html>" + bytes(99)},
        "a GGUF file: pass its own address": {**files, WEIGHTS: changed()},
    }
    for reason, given in others.items():
        await raises(InvalidWeights, _load(place, manager, given), reason)


@only("cpu")
async def linear_scaling_of_positions_is_the_configs(place: Place) -> None:
    files = checkpoint(place, "tiny-llama", **SIZE, rope_scaling={"rope_type": "linear", "factor": 4.0})
    tensors = {name: stored("F32", array) for name, array in tensors_for("llama", files).items()}
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    manager = place.manager()
    model = await _load(place, manager, write({**metadata_for("llama", files), **scaling}, tensors))
    golden = await _read(await _load(place, manager, files), "logits")
    np.testing.assert_array_equal(await _read(model, "logits"), golden)
    plain = await _load(place, manager, write(metadata_for("llama", files), tensors))
    assert np.abs(await _read(plain, "logits") - golden).max() > 1e-3


@only("cpu")
async def divisors_of_angles_are_llama_3s(place: Place) -> None:
    """llama.cpp stores the divisors that follow from the config, wherever among the tensors."""
    scaling = {"rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 64}
    files = checkpoint(place, "tiny-llama", **SIZE, rope_parameters={"rope_type": "llama3", **scaling})
    waves = 2 * np.pi * 100.0 ** (np.arange(0, 64, 2) / 64)  # tokens of a turn
    smooth = (64 / waves - 1) / (4 - 1)
    between = 1 / ((1 - smooth) / 8 + smooth)
    divisors = np.where(waves < 64 / 4, 1, np.where(waves > 64 / 1, 8, between)).astype(np.float32)
    assert len(set(divisors.tolist())) > 5
    tensors = {name: stored("F32", array) for name, array in tensors_for("llama", files).items()}
    extra, manager = {"rope_freqs.weight": stored("F32", divisors)}, place.manager()
    golden = await _read(await _load(place, manager, files), "logits")
    for order in ({**extra, **tensors}, {**tensors, **extra}):
        near(await _read(await _load(place, manager, write(metadata_for("llama", files), order)), "logits"), golden)
    plain = await _load(place, manager, write(metadata_for("llama", files), tensors))
    assert np.abs(await _read(plain, "logits") - golden).max() > 1e-3
