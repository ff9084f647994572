"""Forms of checkpoints: several files, other dtypes, tied and shared weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model, TensorSharingManager
from tensorcommons.bridge.byte_buffer import PIECE, ByteBuffer
from tensorcommons.bridge.digest import SMALL, identity_beside, identity_of
from tensorcommons.bridge.runtime import IN_BROWSER
from tensorcommons.errors import InvalidWeights, UnsupportedModel
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.streams import FileMissingError
from tests.cases import Place, only, shows
from tests.cases.architectures import checkpoint
from tests.cases.checkpoints import INDEX, WEIGHTS, files_of, pack, sharded, tensors_of, with_config
from tests.cases.support import near, raises, warnings_of

IDS = np.arange(14).reshape(2, 7)


async def _load(place: Place, manager: TensorSharingManager, files: Any, **options: Any) -> Model:
    return await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False, **options)


async def _hidden(model: Model) -> Any:
    return await (await model(input_ids=IDS))["last_hidden_state"].read()


async def hashes_that_are_computed_beside(place: Place) -> None:
    """Hashes of a browser and of Python are equal for equal bytes, in any pieces."""
    data = np.random.default_rng(0).integers(0, 256, 2 * PIECE + 17).astype(np.uint8).tobytes()
    found = set()
    for size in (0, 1, SMALL, SMALL + 1, PIECE - 1, PIECE, PIECE + 1, len(data)):
        block = ByteBuffer.of(data[:size])
        names = {identity_of(data[:size], "label"), identity_of(block, "label"), await identity_beside(block, "label")}
        assert len(names) == 1, size
        found |= names
    changed = ByteBuffer.of(data[:-1] + bytes([data[-1] ^ 1]))
    found |= {await identity_beside(changed, "label"), await identity_beside(changed)}
    assert len(found) == 10


@shows("bert", "shards", "one file")
async def several_files(place: Place) -> None:
    manager, files = place.manager(), files_of(place, "tiny-bert")
    whole = await _load(place, manager, files)
    total = place.device.total
    events: list[dict[str, Any]] = []
    parts = await _load(place, manager, sharded(files), progress_callback=events.append)
    assert place.device.total == total, "every tensor must be loaded already"
    totals = [event for event in events if event["status"] == "progress_total"]
    assert {event["total"] for event in totals} == {events[-1]["total"]} and events[-1]["shared_bytes"] == total
    assert np.array_equal(await _hidden(whole), await _hidden(parts))
    whole.unload()
    parts.unload()


async def an_index_that_does_not_fit(place: Place) -> None:
    manager, files = place.manager(), sharded(files_of(place, "tiny-bert"))
    table = json.loads(files[INDEX])["weight_map"]
    name = min(table)
    for weight_map, words in (
        ({**table, name: "model-00002-of-00003.safetensors"}, ("1 tensors", name)),
        ({**table, "surprise": table[name]}, ("1 tensors", "surprise")),
        ({}, ("weight_map",)),
        ({name: 5}, ("weight_map",)),
    ):
        broken = {**files, INDEX: json.dumps({"weight_map": weight_map}).encode()}
        await raises(InvalidWeights, _load(place, manager, broken), *words)
    assert place.device.total == 0


@shows("bert", "F16, BF16, F64 in the file", "float32")
async def other_dtypes_in_the_file(place: Place) -> None:
    manager, files = place.manager(), files_of(place, "tiny-bert")
    tensors = tensors_of(files)
    original = await _load(place, manager, files)
    for dtype, stored in (
        ("F16", {name: array.astype(np.float16) for name, array in tensors.items()}),
        ("BF16", {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in tensors.items()}),
        ("F64", {name: array.astype(np.float64) for name, array in tensors.items()}),
    ):
        wide = {
            name: (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array.astype(np.float32)
            for name, array in stored.items()
        }
        fields = {name: {"dtype": dtype} for name in stored}
        position = {
            "embeddings.position_ids": np.arange(40, dtype=np.int64)
        }  # integers that older checkpoints have beside weights
        packed = pack({**stored, **position}, **fields, **{name: {"dtype": "I64"} for name in position})
        reference = await _load(place, manager, {**files, WEIGHTS: pack(wide)})
        total = place.device.total
        model = await _load(place, manager, {**files, WEIGHTS: packed})
        assert place.device.total == total, f"{dtype}: equal numbers must be equal weights"
        assert np.array_equal(await _hidden(model), await _hidden(reference))
        model.unload()
        reference.unload()
    original.unload()
    whole = {**tensors, "pooler.dense.bias": np.zeros(36, np.int32)}
    packed = pack(whole, **{"pooler.dense.bias": {"dtype": "I32"}})
    await raises(InvalidWeights, _load(place, manager, {**files, WEIGHTS: packed}), "pooler.dense.bias", "I32")


@shows("bert", "tied weights are one storage under either name", "itself")
async def tied_weights_under_either_name(place: Place) -> None:
    manager, files = place.manager(), files_of(place, "tiny-bert-mlm")
    tensors, decoder = tensors_of(files), "cls.predictions.decoder.weight"
    words = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    model = await _load(place, manager, files)
    total = place.device.memory()["weights"]
    outputs = [await (await model(input_ids=IDS))["logits"].read()]
    for held in ({**tensors, decoder: tensors[words]}, {decoder: tensors[words], **tensors}):
        for left_out in (set(), {words}):
            kept = {name: array for name, array in held.items() if name not in left_out}
            other = await _load(place, manager, {**files, WEIGHTS: pack(kept)})
            assert place.device.memory()["weights"] == total, "one storage under different names"
            outputs.append(await (await other(input_ids=IDS))["logits"].read())
            other.unload()
    assert all(np.array_equal(output, outputs[0]) for output in outputs)
    model.unload()


@shows("bert", "surplus tensors are listed in one warning, and a bare model loads from a file with a head", "itself")
async def what_a_file_holds_beside_the_parameters(place: Place) -> None:
    """One warning lists unused tensors; constants of older files are ignored silently."""
    manager, bare = place.manager(), checkpoint(place, "BertModel")
    model = await _load(place, manager, bare)
    wanted = await _hidden(model)
    tensors = tensors_of(bare)
    first = next(iter(tensors.values()))
    silent = dict.fromkeys(("embeddings.position_ids", "bert.embeddings.token_type_ids"), first)
    for more, words in (
        (silent, ()),
        ({"loss_fct.weight": first, **silent}, ("loss_fct.weight",)),
        ({f"surprise.{n}": first for n in range(9)}, ("surprise.0", "4 more")),
        ({"x" * 200: first}, ("x" * 77 + "...",)),
    ):
        with warnings_of("tensorcommons") as warned:
            other = await _load(place, manager, {**bare, WEIGHTS: pack({**tensors, **more})})
        assert len(warned) == bool(words) and all(word in warned[0] for word in words), warned
        assert all(len(line) < 400 for line in warned)
        assert np.array_equal(await _hidden(other), wanted)
        other.unload()
    model.unload()
    for case in ("BertForMaskedLM", "BertForQuestionAnswering", "RobertaForTokenClassification", "ElectraForMaskedLM"):
        files = checkpoint(place, case)
        whole = await _load(place, manager, files)
        with warnings_of("tensorcommons") as warned:
            base = await _load(place, manager, with_config(files, architectures=[f"{case.partition('For')[0]}Model"]))
        assert len(warned) == 1, warned
        out = await whole(input_ids=IDS, outputs=["last_hidden_state"])
        assert np.array_equal(await _hidden(base), await out["last_hidden_state"].read()), case
        whole.unload()
        base.unload()


@shows("albert", "all layers are one storage", "itself")
async def layers_that_are_one_storage(place: Place) -> None:
    files = checkpoint(place, "AlbertModel")
    model = await _load(place, place.manager(), files)
    assert place.device.memory()["weights"] == sum(array.nbytes for array in tensors_of(files).values())
    twice = await _load(place, model.manager, with_config(files, num_hidden_layers=8))
    assert place.device.memory()["weights"] == sum(array.nbytes for array in tensors_of(files).values())
    assert not np.allclose(await _hidden(model), await _hidden(twice))
    model.unload()
    twice.unload()


@shows("bert", "a fine-tune beside its base shares the equal tensors, computes equal layers once", "itself")
async def a_fine_tune_beside_its_base(place: Place) -> None:
    """Frozen embeddings and a frozen first layer are shared, and computed once."""
    manager, files = place.manager(activation_cache=False), files_of(place, "tiny-bert")
    tensors = tensors_of(files)
    tuned = {name: array if ".layer.1." not in name else array + np.float32(0.01) for name, array in tensors.items()}
    changed = sum(array.nbytes for name, array in tensors.items() if ".layer.1." in name)
    base = await _load(place, manager, files)
    alone = place.device.memory()["weights"]
    other = await _load(place, manager, {**files, WEIGHTS: pack(tuned)})
    assert place.device.memory()["weights"] == alone + changed, "exactly the differing tensors must be loaded"
    usage = manager.get_model_memory_usage()
    assert usage[other.name]["shared_bytes"] == alone - changed, usage[other.name]
    first = {name: array for name, array in tensors.items() if ".layer.1." not in name}
    short = await _load(place, manager, with_config({**files, WEIGHTS: pack(first)}, num_hidden_layers=1))
    names = ["last_hidden_state"]
    nodes, apart = [], []
    for model in (base, other, short):
        apart.append(await (await model(input_ids=IDS, outputs=names))["last_hidden_state"].read())
        nodes.append(manager.last_run["nodes"])
    calls: list[Any] = [(model, {"input_ids": IDS}) for model in (base, other)]
    together = await manager.run_together(calls, [names, names])
    run = manager.last_run
    once = run[
        "reused_in_run"
    ]  # embeddings and layer 0, and the nodes of layer 1 that use none of its weights, such as two views
    assert nodes[0] == nodes[1] and 0 <= once - nodes[2] <= 2 < nodes[0] - nodes[2], f"{nodes}: {run}"
    assert run["executed"] == nodes[0] + nodes[1] - once, run
    for out, wanted in zip(together, apart, strict=False):
        near(await out["last_hidden_state"].read(), wanted, 1e-6)
    for model in (base, other, short):
        model.unload()


async def heads_and_poolings_that_are_not_there(place: Place) -> None:
    manager, files = place.manager(), checkpoint(place, "BertModel")
    for name, other_name in (("BertForMultipleChoice", "BertForMaskedLM"), ("RobertaModel", "RobertaModel")):
        loading = _load(place, manager, with_config(files, architectures=[name]))
        await raises(UnsupportedModel, loading, name, other_name)
    labels = checkpoint(place, "BertForSequenceClassification")
    await raises(InvalidWeights, _load(place, manager, with_config(labels, problem_type="guessing")), "guessing")
    await raises(InvalidWeights, _load(place, manager, with_config(labels, id2label={"1": "a"})), "id2label")
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    for kind in ("CNN", "LSTM", "Router", "WeightedLayerPooling", "LayerNorm"):
        other = json.dumps([*modules, {"type": f"sentence_transformers.models.{kind}", "path": "2_X"}]).encode()
        await raises(InvalidWeights, _load(place, manager, {**files, "modules.json": other}), kind)
    pooled = json.dumps([*modules, {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]).encode()
    for settings, words in (
        ({"pooling_mode_median": True}, ("median", "lasttoken")),
        ({"pooling_mode": "median"}, ("median", "lasttoken")),
        ({"pooling_mode": ["mean", 5]}, ("5", "lasttoken")),
        ({"pooling_mode": "mean", "include_prompt": 1}, ("include_prompt",)),
    ):
        odd = {**files, "modules.json": pooled, "1_Pooling/config.json": json.dumps(settings).encode()}
        await raises(InvalidWeights, _load(place, manager, odd), *words)


@shows("bert", "cls, mean and max pooling by modules.json", "its formula")
async def poolings_of_a_sentence_encoder(place: Place) -> None:
    manager, files = place.manager(), checkpoint(place, "BertModel")
    modules = [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
    ]
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3])
    for key, meaning in (
        ("pooling_mode_cls_token", lambda hidden: hidden[:, 0]),
        ("pooling_mode_mean_tokens", lambda hidden: (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]),
        ("pooling_mode_max_tokens", lambda hidden: np.where(mask[..., None] == 1, hidden, -np.inf).max(1)),
    ):
        sentence = {
            "modules.json": json.dumps(modules).encode(),
            "1_Pooling/config.json": json.dumps({key: True}).encode(),
        }
        model = await _load(place, manager, {**files, **sentence})
        names = ["last_hidden_state", "sentence_embedding"]
        out = await model(input_ids=IDS, attention_mask=mask, outputs=names)
        wanted = meaning(await out["last_hidden_state"].read())
        near(await out["sentence_embedding"].read(), wanted, 1e-5)
        model.unload()


@only("webgpu")
async def a_path_with_a_dot_is_relative_to_the_page_and_a_name_is_of_the_hub(place: Place) -> None:
    if IN_BROWSER:
        assert open_source("../models/bert/").key("config.json") == f"{place.models}/bert/config.json"
        assert open_source("./a b").key("config.json").endswith("/lab/a%20b/config.json")
    source = open_source("models/minilm", place.models)  # organisation and name
    assert source.key("config.json") == f"{place.models}/models/minilm/resolve/main/config.json"
    await raises(FileMissingError, source.read("config.json"), '"./models/minilm"')
