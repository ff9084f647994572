"""Untrusted checkpoints and failing servers: a typed error with the file and the cause, and no leaks."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import numpy as np

import tensorcommons as tc
from tensorcommons.errors import DownloadError, InvalidWeights, TensorCommonsError, UnsupportedModel
from tensorcommons.hub.streams import FileMissingError, ShortReadError
from tests.cases import Place, only, slow
from tests.cases.checkpoints import WEIGHTS, files_of, pack, tensors_of, with_config
from tests.cases.harness import held
from tests.cases.seeded import checkpoint
from tests.cases.support import raises, refused


async def _refused(place: Place, source: Any, error: type[Exception], *words: str, tokenizer: bool = False) -> Any:
    """Assert that loading ``source`` raises ``error`` with ``words``, and does not affect a loaded model."""
    manager = place.manager()
    good = await tc.from_pretrained(
        f"{place.tiny}/tiny-bert-mlm", manager=manager, device=place.device, tokenizer=False
    )
    before, report = held(place.device), manager.report()
    load = tc.from_pretrained(source, manager=manager, device=place.device, tokenizer=tokenizer)
    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    try:
        caught = await raises(error, load, *words)
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert not told, f"the event loop reports an error that was raised: {told}"
    after = manager.report()
    assert held(place.device) == before
    assert (after.models, after.tensors) == (report.models, report.tensors)
    await good(input_ids=np.zeros((1, 3), int))
    good.unload()
    return caught


async def truncated_weights(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    raw = files[WEIGHTS]
    for size in (0, 7, 8, 100, len(raw) // 2, len(raw) - 1):
        caught = await _refused(place, {**files, WEIGHTS: raw[:size]}, InvalidWeights, WEIGHTS)
        assert caught.file.endswith(WEIGHTS)
    await _refused(place, {**files, WEIGHTS: raw + b"\0\0\0\0"}, InvalidWeights, "4 bytes after")


async def a_header_longer_than_the_file(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    for length in (len(files[WEIGHTS]), 2**40, 2**64 - 1):
        raw = length.to_bytes(8, "little") + files[WEIGHTS][8:]
        await _refused(place, {**files, WEIGHTS: raw}, InvalidWeights, WEIGHTS, f"{length:,}")


async def a_header_that_is_not_json(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    raw = bytearray(files[WEIGHTS])
    raw[8] = ord("x")
    await _refused(place, {**files, WEIGHTS: bytes(raw)}, InvalidWeights, WEIGHTS, "JSON")


async def offsets_that_lie(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    tensors = tensors_of(files)
    second = list(tensors)[1]
    size = tensors[second].nbytes
    end = sum(array.nbytes for array in tensors.values())
    for offsets, word in (([0, size], "inside"), ([end, end + size], "belong"), ([4, 0], "end before")):
        raw = pack(tensors, **{second: {"data_offsets": offsets}})
        await _refused(place, {**files, WEIGHTS: raw}, InvalidWeights, WEIGHTS, word)
    last = list(tensors)[-1]
    begin = end - tensors[last].nbytes
    raw = pack(tensors, **{last: {"data_offsets": [begin, end + 4], "shape": [tensors[last].size + 1]}})
    await _refused(place, {**files, WEIGHTS: raw}, InvalidWeights, WEIGHTS, "truncated")


async def dtypes_that_cannot_be_read(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    tensors = tensors_of(files)
    name = next(iter(tensors))
    for dtype, word in (("Q4_1", "Q4_1"), ("I32", "I32")):
        raw = pack(tensors, **{name: {"dtype": dtype}})
        await _refused(place, {**files, WEIGHTS: raw}, InvalidWeights, WEIGHTS, word, name)


async def tensors_that_do_not_match_the_config(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    tensors = tensors_of(files)
    name = "encoder.layer.1.output.dense.weight"
    await _refused(place, with_config(files, intermediate_size=51), InvalidWeights, WEIGHTS, "(50,)", "(51,)")
    await _refused(place, with_config(files, vocab_size=101), InvalidWeights, WEIGHTS, "word_embeddings", "101")
    await _refused(place, with_config(files, num_hidden_layers=3), InvalidWeights, WEIGHTS, "missing", "layer.2")
    fewer = {key: array for key, array in tensors.items() if key != name}
    await _refused(place, {**files, WEIGHTS: pack(fewer)}, InvalidWeights, WEIGHTS, "missing", name)
    turned = {**tensors, name: np.ascontiguousarray(tensors[name].T)}
    await _refused(place, {**files, WEIGHTS: pack(turned)}, InvalidWeights, WEIGHTS, name)


async def one_weight_twice_under_two_spellings(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    tensors = tensors_of(files)
    name = "embeddings.LayerNorm.weight"
    twice = {**tensors, "bert.embeddings.LayerNorm.gamma": tensors[name] + np.float32(1)}
    await _refused(place, {**files, WEIGHTS: pack(twice)}, InvalidWeights, WEIGHTS, "LayerNorm")


@slow
async def configs_that_ask_for_what_is_not_there(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    config = "config.json"
    await _refused(place, with_config(files, model_type="mamba"), UnsupportedModel, "mamba", "bert")
    await _refused(place, with_config(files, model_type=None), InvalidWeights, "model_type")
    await _refused(place, with_config(files, model_type=["bert"]), InvalidWeights, "model_type")
    await _refused(place, with_config(files, model_type={"bert": 1}), InvalidWeights, "model_type")
    await _refused(place, with_config(files, hidden_act="mish"), InvalidWeights, config, "mish")
    await _refused(place, with_config(files, num_attention_heads=5), InvalidWeights, config, "5")
    await _refused(place, with_config(files, hidden_size="big"), InvalidWeights, config, "hidden_size")
    await _refused(place, with_config(files, hidden_size=0), InvalidWeights, config, "hidden_size")
    await _refused(place, with_config(files, num_hidden_layers=True), InvalidWeights, config, "num_hidden_layers")
    for many in (10**6, 2**31, 2**70):  # refused before a name is made for each
        await _refused(place, with_config(files, num_hidden_layers=many), InvalidWeights, config, "num_hidden_layers")
    await _refused(place, with_config(files, intermediate_size=2**31), InvalidWeights, config, "intermediate_size")
    await _refused(
        place, with_config(files, position_embedding_type="relative_key"), InvalidWeights, config, "relative"
    )
    for pad in (-101, json.loads(files[config])["vocab_size"], "0"):
        await _refused(place, with_config(files, pad_token_id=pad), InvalidWeights, config, "pad_token_id", str(pad))
    await _refused(place, with_config(files, architectures=5), InvalidWeights, config, "architectures")
    await _refused(place, with_config(files, layer_norm_eps=float("nan")), InvalidWeights, config, "layer_norm_eps")
    labels = with_config(files, architectures=["BertForSequenceClassification"])
    problems: tuple[Any, ...] = ([], {}, "guessing")
    for problem in problems:
        await _refused(place, with_config(labels, problem_type=problem), InvalidWeights, config, "problem_type")
    for count in (0, 2**31, "3", True, 1.5):
        await _refused(place, with_config(labels, num_labels=count), InvalidWeights, config, "num_labels")
    for modules in ([{"type": "x.Pooling"}], [{"type": "x.Pooling", "path": 5}], ["Pooling"]):
        raw = json.dumps(modules).encode()
        pooled = {**with_config(files, architectures=["BertModel"]), "modules.json": raw}
        await _refused(place, pooled, InvalidWeights, "modules.json", "path")
    not_files: tuple[Any, ...] = ({**files, config: "{}"}, {**files, 5: b""}, {config: None})
    for wrong in not_files:
        await _refused(place, wrong, TensorCommonsError, "bytes")


async def heads_that_do_not_fit(place: Place) -> None:
    files = files_of(place, "tiny-head")
    await _refused(place, files, InvalidWeights, "config.json", "tiny-bert")  # files in memory have no siblings
    for changes, word in (
        ({"layer_sizes": [144]}, "layer_sizes"),
        ({"layer_sizes": "144"}, "layer_sizes"),
        ({"id2label": {"0": "yes"}}, "id2label"),
        ({"base_model_name_or_path": ""}, "base_model_name_or_path"),
        ({"pooling": "max"}, "max"),
        ({"hidden_act": "gelu"}, "gelu"),
    ):
        await _refused(place, with_config(files, **changes), InvalidWeights, "config.json", word)


async def configs_that_are_not_json(place: Place) -> None:
    files = files_of(place, "tiny-bert")
    for raw in (b"", b"<!doctype html>", b"{", b"\xff\xfe", b"[]", b"[" * 100_000):
        caught = await _refused(place, {**files, "config.json": raw}, InvalidWeights, "config.json")
        assert caught.file.endswith("config.json")
    deep = b"[" * 100_000  # without a limit this crashes Pyodide, which uses JavaScript's stack
    await _refused(place, {**files, WEIGHTS: len(deep).to_bytes(8, "little") + deep}, InvalidWeights, WEIGHTS, "nested")
    await _refused(place, f"{place.faulty}/page/tiny-bert", InvalidWeights, "tiny-bert/config.json", "web page")


async def files_that_are_not_there(place: Place) -> None:
    address = place.faulty
    await _refused(place, f"{address}/missing-config/tiny-bert", FileMissingError, "tiny-bert/config.json", "404")
    await _refused(
        place, f"{address}/missing-weights/tiny-bert", FileMissingError, "tiny-bert/model.safetensors", "404"
    )
    await _refused(
        place, f"{address}/missing-weights/tiny-head", FileMissingError, "tiny-bert/model.safetensors", "404"
    )
    await _refused(place, f"{place.tiny}/nothing-here", FileMissingError, "nothing-here/config.json", "404")
    await _refused(place, {"config.json": files_of(place, "tiny-bert")["config.json"]}, FileMissingError, WEIGHTS)
    await _refused(place, "not a model", DownloadError, "not a model")


async def a_connection_cut_half_way(place: Place) -> None:
    caught = await _refused(
        place, f"{place.faulty}/cut/tiny-bert", ShortReadError, "tiny-bert/model.safetensors", "cut"
    )
    # Chromium may drop the received part of a cut body, so the bytes that a reader sees vary.
    assert not caught.complete and caught.expected and 0 <= caught.received < caught.expected
    await _refused(place, f"{place.faulty}/cut/tiny-head", ShortReadError, "/model.safetensors", "cut")


@only("webgpu")
async def a_server_that_is_not_there(place: Place) -> None:
    await _refused(place, "http://127.0.0.1:9/model", DownloadError, "127.0.0.1:9/model/config.json")


@only("webgpu")
async def tokenizers_that_are_missing_or_broken(place: Place) -> None:
    manager = place.manager()
    for name in ("tiny-bert", "tiny-head"):
        address = f"{place.faulty}/missing-tokenizer/{name}"
        model = await tc.from_pretrained(address, manager=manager, device=place.device)
        task = model.architecture.tasks[0]
        await model(input_ids=np.zeros((2, 3), int))
        pipe = await tc.pipeline(task, model, manager=manager)
        text = ("a cat", "a dog") if name == "tiny-head" else "a cat"
        await raises(TensorCommonsError, pipe(text), "tiny-bert/tokenizer.json", "404")
        model.unload()
    files = files_of(place, "tiny-bert")
    for raw in (b"{}", b"<html>", b'{"model": {"type": "WordPiece"}}', b'{"model": 5, "post_processor": 7}'):
        await _refused(place, {**files, "tokenizer.json": raw}, InvalidWeights, "tokenizer.json", tokenizer=True)


async def a_private_model_opens_with_its_token(place: Place) -> None:
    address = f"{place.faulty}/private/tiny-bert"
    caught = await _refused(place, address, DownloadError, "tiny-bert/config.json", "401", "token")
    wrong = tc.from_pretrained(address, manager=place.manager(), device=place.device, token="s3cret")
    caught = await raises(DownloadError, wrong, "401")
    assert "s3cret" not in f"{caught!r} {caught} {vars(caught)}"
    for bad in ("", "two words", "line\n", 5):
        load = tc.from_pretrained(address, manager=place.manager(), device=place.device, token=bad)  # type: ignore[arg-type]
        caught = await raises(TensorCommonsError, load, "token")
        assert not bad or str(bad) not in str(caught)
    model = await tc.from_pretrained(address, manager=place.manager(), device=place.device, token="let-me-in")
    await model(input_ids=np.zeros((1, 3), int))
    assert "let-me-in" not in f"{model!r} {model.manager.report()}"
    model.unload()


async def listeners_and_caches_that_are_none(place: Place) -> None:
    """They are refused before anything runs, including the arguments that a pipeline passes to loading."""
    manager, files, wrong = place.manager(), checkpoint(place, "tiny-llama"), 5
    before = held(place.device)
    options: dict[str, Any]
    for options, word in (
        ({"progress_callback": wrong}, "progress_callback"), ({"cache": wrong}, "cache"), ({"dtype": "int3"}, "int3"),
    ):  # fmt: skip
        load = tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False, **options)
        await raises(TensorCommonsError, load, word)
        pipe = tc.pipeline("text-generation", files, manager=manager, device=place.device, **options)
        await raises(TensorCommonsError, pipe, word)
    assert held(place.device) == before and not manager.report().models
    model = await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
    ids, nobody = np.ones((1, 3), int), cast("Any", wrong)
    for call, word in (
        (model.generate(ids, on_token=nobody), "on_token"),
        (model.compile([(1, 3)], progress_callback=nobody), "progress_callback"),
        (model.compile_generation([(1, 3)], progress_callback=nobody), "progress_callback"),
        (model.to("cpu", nobody), "progress_callback"),
    ):
        await raises(TensorCommonsError, call, word)
    refused(place.device, TensorCommonsError, lambda: manager.devices.on_build(nobody))
    for options in ({"dtype": "float16"}, {"cache": None}, {"token": "hf"}, {"device": "quantum"}):
        pipe = tc.pipeline("text-generation", model, manager=manager, **options)
        await raises(TensorCommonsError, pipe, "is already loaded", next(iter(options)))
    (await tc.pipeline("text-generation", model, manager=manager, device=place.device)).close()
    model.unload()
