"""Errors about the files of a model: typed, and with at most 80 quoted characters."""

from __future__ import annotations

import copy
import json
import re

import pytest

import tensorcommons as tc
from tensorcommons.errors import DownloadError, InvalidWeights, TensorCommonsError, quoted, shown, shown_address
from tensorcommons.hub.local_sources import MemorySource
from tensorcommons.models.other_formats import OtherFormatError, refuse_other_formats
from tests.cases.checkpoints import WEIGHTS, pack, sharded, tensors_of
from tests.models.server import TINY

LONG = "x" * 500
VALUES = {
    "text": LONG,
    "list": [LONG, LONG],
    "numbers": list(range(100_000, 100_100)),
    "object": {LONG: LONG},
    "number": 10**300,
}
MODELS = ("tiny-bert", "tiny-head", "tiny-gpt2", "tiny-llama", "tiny-t5")
PLAIN = re.compile(r"x{81}|\d{81}|(?:\d{6}, ){12}")


def _folder(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (TINY / name).iterdir() if path.is_file()}


async def _load(files: dict[str, bytes]) -> None:
    manager = tc.TensorSharingManager(64, activation_cache=False)
    try:
        await tc.from_pretrained(files, manager=manager)
    except TensorCommonsError as error:
        said = f"{type(error).__name__}: {error}"
    else:
        return
    assert not PLAIN.search(said), said
    assert len(said) < 1000, said
    assert not list(manager.registry) or manager.models


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", VALUES)
async def test_errors_about_any_field_of_any_configuration(model, value, caplog):
    files = _folder(model)
    for name in [name for name in files if name.endswith(".json")]:
        table = json.loads(files[name])
        if not isinstance(table, dict) or name == "tokenizer.json":
            continue
        for field in [*table, "pad_token_id", "head_dim", "rope_scaling", "problem_type"]:
            changed = copy.deepcopy(table)
            changed[field] = VALUES[value]
            await _load({**files, name: json.dumps(changed).encode()})
    assert not PLAIN.search(caplog.text)


@pytest.mark.parametrize("value", VALUES)
async def test_errors_about_names_and_entries_of_weights(value):
    files = _folder("tiny-bert")
    tensors = tensors_of(files)
    first = next(iter(tensors))
    for field in ("dtype", "shape", "data_offsets"):
        await _load({**files, WEIGHTS: pack(tensors, **{first: {field: VALUES[value]}})})
    await _load({**files, WEIGHTS: pack({LONG + name: array for name, array in tensors.items()})})
    await _load({**files, WEIGHTS: pack({**tensors, LONG: tensors[first][:0]})})
    shards = sharded(files)
    index = json.loads(shards[f"{WEIGHTS}.index.json"])
    index["weight_map"][LONG] = next(iter(index["weight_map"].values()))
    await _load({**shards, f"{WEIGHTS}.index.json": json.dumps(index).encode()})
    index["weight_map"] = dict.fromkeys(index["weight_map"], VALUES[value])
    await _load({**shards, f"{WEIGHTS}.index.json": json.dumps(index).encode()})


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n", "Git LFS"),
        (b"GGUF\x03\0\0\0" + bytes(40), "GGUF"),
        (b"\x08\x07\x12\x07pytorch\x1a" + bytes(40), "ONNX"),
        (b"\x80\x02}q\x00(X\x05" + bytes(40), "pickle"),
        (b"PK\x03\x04" + bytes(40), "zip"),
        (b"<!DOCTYPE html><title>Sign in</title>" + bytes(40), "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(40), "gzip"),
        (b"", "empty"),
    ],
)
async def test_a_file_of_another_format_is_named(start, word):
    files = _folder("tiny-bert")
    for name in (WEIGHTS, "config.json"):
        with pytest.raises(InvalidWeights, match=f"{name}: .*{word}"):
            await tc.from_pretrained({**files, name: start}, manager=tc.TensorSharingManager(64))


@pytest.mark.parametrize(
    ("file", "word"),
    [("adapter_config.json", "adapter"), ("pytorch_model.bin", "pickle"), ("onnx/model.onnx", "ONNX")],
)
async def test_a_folder_of_another_format_is_named(file, word):
    config = _folder("tiny-bert")["config.json"]
    for files in ({file: b"1"}, {file: b"1", "config.json": config}):
        with pytest.raises(InvalidWeights, match=word):
            await tc.from_pretrained(files, manager=tc.TensorSharingManager(64))


PICKLED = {"pytorch_model.bin": b"1"}
EXPORTED = {"onnx/model.onnx": b"1"}
THROUGH = (
    "python -c \"import transformers as t; t.BertModel.from_pretrained('{0}').save_pretrained('converted'); "
    "t.AutoTokenizer.from_pretrained('{0}').save_pretrained('converted')\""
)
CARD = b"---\nlicense: mit\nbase_model: org/first\n---\nbase_model: org/text\n"


@pytest.mark.parametrize(
    ("files", "fields", "words"),
    [
        (PICKLED, {}, ["save it as safetensors by", THROUGH.format("MODEL"), "with its name or folder as MODEL"]),
        (PICKLED, {"architectures": ["x'); import os"]}, ["t.AutoModel.from_pretrained('MODEL')"]),
        (
            PICKLED,
            {"_name_or_path": "org/first"},
            [THROUGH.format("MODEL"), "; or load 'org/first', the model that it"],
        ),
        (
            EXPORTED,
            {"_name_or_path": "./local"},
            ["load the model that it was made from (its", THROUGH.format("MODEL")],
        ),
        (EXPORTED, {"_name_or_path": "org/first"}, ["load 'org/first', the model", THROUGH.format("org/first")]),
        (EXPORTED | {"README.md": CARD}, {"_name_or_path": "org/other"}, ["load 'org/first', the model"]),
        (
            EXPORTED | {"README.md": b'---\nbase_model:\r\n  - "org/first"\n  - org/second\n---\n'},
            {},
            ["load 'org/first', the model"],
        ),
        (EXPORTED | {"README.md": CARD[4:]}, {}, ["(its model card may name it)"]),
        (EXPORTED | {"README.md": b"---\nbase_model: ../x/y\n---"}, {}, ["(its model card may name it)"]),
        (EXPORTED | {"README.md": b"---\nx: " + bytes(200_000) + CARD}, {}, ["(its model card may name it)"]),
        (
            {"net.pt": b"1", "training_args.bin": b"1"},
            {},
            ["net.pt: the folder", "torch.load('MODEL', weights_only=True)"],
        ),
        ({"onnx/model_q4.onnx": b"1"}, {}, ["onnx/model_q4.onnx: the folder contains an ONNX model"]),
    ],
)
async def test_a_folder_of_another_format_is_refused_with_a_remedy(files, fields, words):
    config = json.loads(_folder("tiny-bert")["config.json"]) | fields
    given = {**files, "config.json": json.dumps(config).encode()}
    with pytest.raises(OtherFormatError) as caught:
        await tc.from_pretrained(given, manager=tc.TensorSharingManager(64))
    for each in words:
        assert each in str(caught.value)


async def test_a_folder_with_files_of_training_alone_lacks_its_weights():
    files = {"config.json": _folder("tiny-bert")["config.json"], "training_args.bin": b"1"}
    with pytest.raises(DownloadError, match=r"model\.safetensors"):
        await tc.from_pretrained(files, manager=tc.TensorSharingManager(64))


async def test_the_command_names_a_repository():
    class Repository(MemorySource):
        def key(self, file: str) -> str:
            return f"https://hub.example/org/name/resolve/main/{file}"

    config = json.loads(_folder("tiny-bert")["config.json"]) | {"_name_or_path": "org/name"}
    with pytest.raises(OtherFormatError) as caught:
        await refuse_other_formats(Repository({**PICKLED, "config.json": json.dumps(config).encode()}))
    assert str(caught.value).endswith(
        f'save it as safetensors by {THROUGH.format("org/name")}, and load the folder "converted"'
    )


async def test_a_config_without_a_model_type_and_a_file_in_place_of_a_folder(tmp_path):
    with pytest.raises(InvalidWeights, match="model_type, the name of the architecture, is missing"):
        await tc.from_pretrained({"config.json": b'{"architectures": []}'}, manager=tc.TensorSharingManager(64))
    (tmp_path / "model.onnx").write_bytes(b"GGUF")
    with pytest.raises(InvalidWeights, match="name of a file"):
        await tc.from_pretrained(tmp_path / "model.onnx", manager=tc.TensorSharingManager(64))
    (tmp_path / "config.json").mkdir()
    with pytest.raises(DownloadError, match="directory"):
        await tc.from_pretrained(tmp_path, manager=tc.TensorSharingManager(64))


async def test_a_header_of_a_million_tensors_is_refused_before_it_is_parsed():
    entry = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(b'"t%d":' % n + entry for n in range(100_001)) + b"}"
    files = _folder("tiny-bert") | {WEIGHTS: len(header).to_bytes(8, "little") + header}
    with pytest.raises(InvalidWeights, match="100,001 tensors are over the limit"):
        await tc.from_pretrained(files, manager=tc.TensorSharingManager(64))
    deep = b'{"a":' + b"[{}," * 2_000_001
    with pytest.raises(InvalidWeights, match="more than 4,000,000 values"):
        await tc.from_pretrained({"config.json": deep[: 8 << 20]}, manager=tc.TensorSharingManager(64))


def test_quotes_are_shortened():
    assert quoted("a" * 78) == repr("a" * 78)
    for value in ("a" * 10**7, ["a" * 90], 10**5000, {"a": list(range(99))}, "\0" * 79):
        assert len(quoted(value)) <= 80
    assert shown("fine-name.json") == "fine-name.json" and shown("a\nb") == "a\\nb"
    text = "no https://me:pw@host/a/b?token=5#x (and http://host/?v=1): gone, 3 @ 4?"
    assert shown_address(text) == "no https://host/a/b (and http://host/): gone, 3 @ 4?"
