"""LoRA adapters beside `peft`: of encoders, decoders and vision models, one for a call or one for each row."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model, TensorSharingManager
from tensorcommons.backends.base import BlockSpec, Spec
from tensorcommons.errors import ShapeMismatch, TensorCommonsError
from tensorcommons.formats import BLOCKS
from tests.cases import Place, shows
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of
from tests.cases.golden_models import INPUTS, checkpoint_of, load_goldens
from tests.cases.published_files import both
from tests.cases.random_weights import values_of
from tests.cases.seeded import checkpoint
from tests.cases.support import near, raises

IDS = np.array([[2, 17, 31, 5, 3, 40, 7], [2, 9, 30, 3, 44, 1, 6], [8, 9, 30, 31, 44, 6, 1], [2, 17, 31, 5, 3, 40, 7]])


def files_for(place: Place, name: str, **changes: Any) -> dict[str, bytes]:
    """Make the files of the adapter of a golden; ``changes`` replace fields of its config."""
    entry = load_goldens(place.goldens, "adapters")[0][name]
    tensors = {key: values_of(key, tuple(shape)) for key, shape in entry["adapter_tensors"].items()}
    return adapter_files({**entry["adapter"], **changes}, tensors)


def adapter_files(config: dict[str, Any], tensors: dict[str, Any]) -> dict[str, bytes]:
    """Make the two files of an adapter."""
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": pack(tensors)}


async def base_of(place: Place, manager: TensorSharingManager, name: str, dtype: str | None = None) -> Model:
    """Load the base model of a golden."""
    files: Any = f"{place.models}/all-MiniLM-L6-v2"
    if name != "minilm":
        files = checkpoint_of(load_goldens(place.goldens, "adapters")[0][name])
    options: dict[str, Any] = {"dtype": dtype, "precision": "exact", "tokenizer": False}
    return await tc.from_pretrained(files, manager=manager, device=place.device, **options)


async def read(model: Model, name: str, **inputs: Any) -> Any:
    """Return one output of a call."""
    return await (await model(**inputs, outputs=[name]))[name].read()


async def _agree(place: Place, name: str, model: Model | None = None) -> None:
    """Compare every output with `peft`, also of the merged model; the base stays as it is."""
    manager = place.manager()
    model = await base_of(place, manager, name) if model is None else model
    golden = {key.partition(".")[2]: array for key, array in load_goldens(place.goldens, "adapters")[1].items()
              if key.partition(".")[0] == name}  # fmt: skip
    inputs = {key: golden.pop(key) for key in INPUTS if key in golden}
    generated = golden.pop("generated", None)
    outputs = list(golden)
    before = {key: await read(model, key, **inputs) for key in outputs}
    adapter = await model.load_adapter(files_for(place, name), "one")
    assert model.adapters == ["one"]
    merged = None
    if name in ("llama head", "llama words", "bert words"):
        await raises(TensorCommonsError, adapter.merge(), "in common")
    else:
        merged = await adapter.merge()
    is_decoder = generated is not None and "decoder_input_ids" not in inputs
    mask = None if is_decoder is False and generated is not None else inputs.get("attention_mask")
    counts = None if mask is None else mask == 1
    for each, chosen in ((model, {"adapter": "one"}), (merged, {})):
        if each is None:
            continue
        found = await each(**inputs, outputs=outputs, **chosen)
        for key, wanted in golden.items():
            given = await found[key].read()
            if counts is not None and wanted.shape[:2] == counts.shape:
                given, wanted = given[counts], wanted[counts]  # values at padding are undefined
            near(given, wanted, 1e-4)
    again = await model(**inputs, outputs=outputs)
    for key, tensor in again.items():
        np.testing.assert_array_equal(await tensor.read(), before[key])
    if generated is not None:
        options: dict[str, Any] = {"max_new_tokens": 6, "pad_token_id": 0, "do_sample": False}
        tokens = await model.generate(inputs["input_ids"][:1], inputs["attention_mask"][:1], adapter="one", **options)
        np.testing.assert_array_equal(tokens, generated)
    if merged is not None:
        merged.unload()
    adapter.unload()
    assert model.adapters == []
    model.unload()
    assert not len(manager.registry)
    manager.close()


@shows("bert", "LoRA: query and value; other layers, scaled by the root of the rank", "peft")
async def bert(place: Place) -> None:
    await _agree(place, "bert")
    await _agree(place, "bert other")


@shows("bert", "LoRA: tables, biases, heads to save, patterns of names, some layers", "peft")
async def bert_settings(place: Place) -> None:
    for name in (
        "labels",
        "other labels",
        "words",
        "positions",
        "biases",
        "own biases",
        "patterns",
        "layers",
        "one layer",
    ):
        await _agree(place, f"bert {name}")


@shows("distilbert", "LoRA", "peft")
@shows("albert", "LoRA", "peft")
@shows("mpnet", "LoRA", "peft")
@shows("modernbert", "LoRA", "peft")
async def encoders(place: Place) -> None:
    for name in ("distilbert", "albert", "mpnet", "modernbert"):
        await _agree(place, name)


@shows("llama", "LoRA: every projection, embeddings, tied and saved heads, greedy tokens", "peft")
async def llama(place: Place) -> None:
    for name in ("llama", "llama other", "llama words", "llama head", "llama saved"):
        await _agree(place, name)


@shows("qwen3", "LoRA, greedy tokens", "peft")
@shows("gpt2", "LoRA, greedy tokens", "peft")
@shows("t5", "LoRA, greedy tokens", "peft")
@shows("bart", "LoRA, greedy tokens", "peft")
async def decoders(place: Place) -> None:
    for name in ("qwen3", "gpt2", "t5", "bart"):
        await _agree(place, name)


@shows("vit", "LoRA: attention, patches, a saved classifier", "peft")
@shows("dinov2", "LoRA", "peft")
@shows("clip", "LoRA in both towers", "peft")
async def vision(place: Place) -> None:
    for name in ("vit", "dinov2", "clip"):
        await _agree(place, name)


@shows("bert", "all-MiniLM-L6-v2 with LoRA of rank 16", "peft")
async def minilm(place: Place) -> None:
    await _agree(place, "minilm")


async def rows_with_different_adapters(place: Place) -> None:
    """Rows of one batch have the values that they have with their adapter alone, for other ranks and scales, too."""
    manager = place.manager()
    model = await base_of(place, manager, "bert")
    await model.load_adapter(files_for(place, "bert"), "one")
    await model.load_adapter(files_for(place, "bert other"), "two")
    await model.load_adapter(files_for(place, "bert patterns"), "three")
    await _rows_agree(model, "last_hidden_state", ["one", None, "two", "three"])
    await _rows_agree(model, "last_hidden_state", ["three", "one", "one", None])
    assert manager.last_run["js_calls"] <= 1
    await raises(ShapeMismatch, model(input_ids=IDS, adapter=["one"]), "1 entries", "4 rows")
    await raises(TensorCommonsError, model(input_ids=IDS, adapter="four"), "'four'", "one, two, three")
    await raises(TensorCommonsError, model(input_ids=IDS, adapter=4), "must be a name")
    await model.load_adapter(files_for(place, "bert own biases"), "biases")
    await model.load_adapter(files_for(place, "bert positions"), "positions")
    for name in ("biases", "positions"):
        await raises(
            TensorCommonsError, model(input_ids=IDS, adapter=["one", None, name, None]), f"'{name}'", "all rows"
        )


async def rows_with_different_heads(place: Place) -> None:
    """Rows of one batch have classifiers of their own, and tables of words."""
    manager = place.manager()
    model = await base_of(place, manager, "bert labels")
    await model.load_adapter(files_for(place, "bert labels"), "one")
    await model.load_adapter(files_for(place, "bert other labels"), "two")
    await _rows_agree(model, "logits", ["one", None, "two", "one"])
    model = await base_of(place, manager, "bert words")
    await model.load_adapter(files_for(place, "bert words"), "words")
    await _rows_agree(model, "logits", ["words", None, None, "words"])


async def rows_of_images(place: Place) -> None:
    """Images of one batch have different adapters; one that changes a convolution applies to all rows."""
    manager = place.manager()
    model = await base_of(place, manager, "dinov2")
    await model.load_adapter(files_for(place, "dinov2"), "one")
    pixels = load_goldens(place.goldens, "adapters")[1]["dinov2.pixel_values"]
    await _rows_agree(model, "last_hidden_state", ["one", None], pixel_values=pixels)
    model = await base_of(place, manager, "vit")
    await model.load_adapter(files_for(place, "vit"), "one")
    await raises(TensorCommonsError, model(pixel_values=pixels, adapter=["one", None]), "projection", "all rows")


async def _rows_agree(model: Model, output: str, adapters: list[str | None], **inputs: Any) -> None:
    inputs = inputs or {"input_ids": IDS}
    alone = {name: await read(model, output, **inputs, adapter=name) for name in dict.fromkeys(adapters)}
    assert len({array.tobytes() for array in alone.values()}) == len(alone)
    found = await read(model, output, **inputs, adapter=adapters)
    for row, name in enumerate(adapters):
        near(found[row], alone[name][row], 1e-5)


async def generated_rows(place: Place) -> None:
    """Rows of one generation have different adapters, also beams, samples, and the rows of prompts that begin alike."""
    manager = place.manager()
    model = await base_of(place, manager, "llama")
    await model.load_adapter(files_for(place, "llama"), "one")
    await model.load_adapter(files_for(place, "llama other"), "two")
    prompts = np.concatenate([np.tile(IDS[:1], (4, 2)), np.tile(IDS[2:3], (1, 2))])[:, :12]
    adapters = ["one", None, "two", "one", None]
    for options in ({}, {"num_beams": 2, "num_return_sequences": 2}, {"do_sample": True, "seed": 7, "top_k": 5}):
        own: dict[str, Any] = {"max_new_tokens": 7, "pad_token_id": 0, "eos_token_id": -1, **options}
        alone = {each: await model.generate(prompts, adapter=each, **own) for each in ("one", "two", None)}
        assert len({tokens.tobytes() for tokens in alone.values()}) == 3
        found = await model.generate(prompts, adapter=adapters, **own)
        each = len(found) // len(prompts)
        for row, name in enumerate(adapters):
            if not options.get("do_sample") or row == 0:
                rows = slice(row * each, (row + 1) * each)
                np.testing.assert_array_equal(found[rows], alone[name][rows], err_msg=f"{row} {name} {options}")
    await raises(ShapeMismatch, model.generate(prompts, adapter=["one", None]), "2 entries", "5 rows")


async def pages_of_adapters(place: Place) -> None:
    """Keys and values that were computed with an adapter are found with it again, and by nothing else."""
    manager = place.manager()
    model = await base_of(place, manager, "llama int8")
    await model.load_adapter(files_for(place, "llama int8"), "one")
    prompt = np.tile(IDS[:1], (1, 3))[:, :17]
    options: dict[str, Any] = {"max_new_tokens": 2, "pad_token_id": 0, "eos_token_id": -1}

    async def reused(adapter: Any) -> tuple[int, bytes]:
        before = manager.get_stats()["generation"]["reused_tokens"]
        tokens = await model.generate(prompt, adapter=adapter, **options)
        return manager.get_stats()["generation"]["reused_tokens"] - before, tokens.tobytes()

    assert [(await reused(None))[0], (await reused("one"))[0]] == [0, 0]
    first = [await reused(None), await reused("one")]
    assert [count for count, _ in first] == [16, 16]
    assert first == [await reused(None), await reused("one")]
    both = [model.generate(prompt, adapter=each, **options) for each in (None, "one", None, "one")]
    found = [tokens.tobytes() for tokens in await asyncio.gather(*both)]
    assert found == [first[0][1], first[1][1]] * 2


@shows("bert", "LoRA over int8 weights", "float32 weights of their numbers, with the adapter")
@shows("llama", "LoRA over int8 weights", "float32 weights of their numbers, with the adapter")
async def over_int8(place: Place) -> None:
    """An adapter of a quantised base equals one of a float base with its numbers; merged, changed matrices are wide."""
    for name, output in (("bert int8", "last_hidden_state"), ("llama int8", "logits")):
        manager = place.manager()
        model = await base_of(place, manager, name, "int8")
        wide = await tc.from_pretrained(
            widened(place, name, model), manager=manager, device=place.device, tokenizer=False
        )
        files = files_for(place, name)
        adapter = await model.load_adapter(files, "one")
        await wide.load_adapter(files, "one")
        assert manager.registry.held_by(wide.name).keys() >= {
            key for key in model.specs if key.startswith("adapter one")
        }
        wanted = await read(wide, output, input_ids=IDS, adapter="one")
        near(await read(model, output, input_ids=IDS, adapter="one"), wanted, 1e-4)
        mixed = await read(model, output, input_ids=IDS, adapter=["one", None, None, "one"])
        near(mixed[[0, 3]], wanted[[0, 3]], 1e-4)
        near(mixed[[1, 2]], (await read(wide, output, input_ids=IDS))[[1, 2]], 1e-4)
        merged = await adapter.merge()
        near(await read(merged, output, input_ids=IDS), wanted, 1e-4)
        changed = {place[0] for place in adapter.layout.changes}
        assert {merged.specs[param.name] for param in changed} == {
            Spec(param.shape, tc.dtypes.float32) for param in changed
        }
        assert merged.weight_formats["q8_0"] < model.weight_formats["q8_0"]
        manager.close()


def widened(place: Place, name: str, model: Model) -> dict[str, bytes]:
    """Make the checkpoint whose numbers are those of the int8 weights of ``model``."""
    files = checkpoint_of(load_goldens(place.goldens, "adapters")[0][name])
    mapping, specs, form = model.architecture.names[0], model.specs, BLOCKS["q8_0"]
    tensors = {}
    for key, array in tensors_of(files).items():
        spec = specs[mapping.canonical(key)]
        is_packed = isinstance(spec, BlockSpec)
        words = np.frombuffer(form.pack(form.quantize(array)), np.int8) if is_packed else None
        tensors[key] = array if words is None else form.dense(words, array.shape)
    return {**files, WEIGHTS: pack(tensors)}


async def _merged_is_called(model: Model, adapter: dict[str, bytes], output: str) -> None:
    """Compare a merged model with a call with the adapter, which changes the output."""
    loaded = await model.load_adapter(adapter, "merging")
    wanted = await read(model, output, input_ids=IDS, adapter="merging")
    merged = await loaded.merge()
    near(await read(merged, output, input_ids=IDS), wanted, 1e-4)
    assert np.abs(wanted - await read(model, output, input_ids=IDS)).max() > 0.1
    merged.unload()
    model.unload()


def _low_rank(
    module: str, inputs: int, outputs: int, name: str = "lora_{}.weight", **settings: Any
) -> dict[str, bytes]:
    rng = np.random.default_rng(inputs)
    down, up = rng.normal(size=(4, inputs)), rng.normal(size=(outputs, 4)) / 10
    tensors = {f"base_model.model.{module}.{name.format(part)}": each for part, each in (("A", down), ("B", up))}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": [module.rpartition(".")[2]], **settings}
    return adapter_files(config, {name: each.astype(np.float32) for name, each in tensors.items()})


@shows("gpt2", "LoRA merged into a square matrix, which is stored as columns", "calls with the adapter")
async def merged_into_columns(place: Place) -> None:
    files = checkpoint(place, "tiny-gpt2", n_embd=64, n_head=4)
    model = await tc.from_pretrained(files, manager=place.manager(), device=place.device, tokenizer=False)
    adapter = _low_rank("transformer.h.0.attn.c_proj", 64, 64, fan_in_fan_out=True)
    await _merged_is_called(model, adapter, "logits")


@shows("llama", "LoRA merged into a square table", "calls with the adapter")
async def merged_into_a_table(place: Place) -> None:
    sizes = {"hidden_size": 64, "vocab_size": 64, "num_hidden_layers": 1, "tie_word_embeddings": False}
    files = checkpoint(place, "tiny-llama", **sizes)
    model = await tc.from_pretrained(files, manager=place.manager(), device=place.device, tokenizer=False)
    await _merged_is_called(model, _low_rank("model.embed_tokens", 64, 64, "lora_embedding_{}"), "logits")


@shows("llama", "LoRA merged into GPTQ, act-order", "calls with the adapter")
async def merged_into_a_matrix_in_another_order(place: Place) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
    files, _ = both(checkpoint(place, "tiny-llama", **sizes), {"layout": "gptq", "group": 32, "ordered": True})
    options: dict[str, Any] = {"precision": "exact", "tokenizer": False}
    model = await tc.from_pretrained(files, manager=place.manager(), device=place.device, **options)
    await _merged_is_called(model, _low_rank("model.layers.0.self_attn.q_proj", 128, 128), "logits")
