"""Refuse folders whose weights have another format than safetensors, and state what to do instead.

ONNX files hold graphs, and pickles can run any code when they are read. The model card of an exported model usually
names the model that it was made from, which can be loaded instead; pickles are converted by a command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import DownloadError, InvalidWeights
from ..hub.config import read_optional_json
from ..hub.source import Source

ONNX = "an ONNX model, which is not supported"
PICKLE = "a pickle, which can run any code when it is read"
KERAS = "a TensorFlow model, which is not supported"
#: Names that are asked for one by one, since a server does not list its files.
NAMES = {
    "pytorch_model.bin": PICKLE,
    "pytorch_model.bin.index.json": PICKLE,
    "onnx/model.onnx": ONNX,
    "model.onnx": ONNX,
    "onnx/model_quantized.onnx": ONNX,
    "tf_model.h5": KERAS,
}
ENDINGS = {".onnx": ONNX, **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt"), PICKLE), ".h5": KERAS}
NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin", "rng_state.pth")
README = "README.md"
MOST = 65_536  # bytes of the model card that are searched: its metadata are at its beginning

REPOSITORY = re.compile(r"[\w-][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
ADDRESS = re.compile(r"https?://[^/]+/([^/]+/[^/]+)/resolve/")
METADATA = re.compile(r"---\r?\n(.*?)\r?\n---", re.DOTALL)
BASE = re.compile(r"^base_model:[ \t]*(?:\r?\n[ \t]*-[ \t]*)?[\"']?([^\s\"'#]+)", re.MULTILINE)
CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}", re.ASCII)


class OtherFormatError(InvalidWeights):
    """The weights of a folder are in ``file`` of a format that is not read; ``reason`` states what to do instead."""


async def refuse_other_formats(source: Source) -> None:
    """Raise OtherFormatError if the folder ``source``, which has no safetensors, has weights of another known format.

    Raises InvalidWeights for a ``config.json`` that is damaged.
    """
    found = await _weights_of(source)
    if found is None:
        return
    file, what = found
    config = await read_optional_json(source, "config.json") or {}
    address = ADDRESS.match(source.key("config.json"))
    own = address[1] if address and REPOSITORY.fullmatch(address[1]) else None
    base = await _base_of(source, config, own)
    made = f"load {base!r}, the model that it was made from" if base else ""
    if what == PICKLE:
        remedies = [_converter(file, config, own), made]
    else:
        made = made or "load the model that it was made from (its model card may name it)"
        remedies = [made, f"if that has no safetensors either, convert it by {_through_transformers(config, base)}"]
    reason = f"the folder contains {what}; {'; or '.join(each for each in remedies if each)}"
    raise OtherFormatError(f"{source.name}/{_plain(file)}", reason)


async def _weights_of(source: Source) -> tuple[str, str] | None:
    """Return the name and the kind of a file with weights."""
    for name, what in NAMES.items():
        if await source.exists(name):
            return name, what
    for folder in ("", "onnx"):
        for name in source.files_in(folder):
            file = name.lstrip("/")
            if file not in NOT_WEIGHTS:
                for end, what in ENDINGS.items():
                    if file.lower().endswith(end):
                        return file, what
    return None


def _converter(file: str, config: Mapping[str, Any], own: str | None) -> str:
    """Return the words that convert a pickle."""
    if file.startswith("pytorch_model.bin") and config:
        return f"save it as safetensors by {_through_transformers(config, own)}"
    code = (
        "import torch, safetensors.torch as s; s.save_file({k: v.clone() for k, v in "
        "torch.load('MODEL', weights_only=True).items()}, 'model.safetensors')"
    )
    return f'save it as safetensors by python -c "{code}", with the path of {_plain(file)} as MODEL, beside config.json'


def _through_transformers(config: Mapping[str, Any], name: str | None) -> str:
    """Return a command that saves the model ``name`` as safetensors, with its tokenizer."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    kind = first if isinstance(first, str) and CLASS.fullmatch(first) else "AutoModel"
    given = name or "MODEL"
    code = (
        f"import transformers as t; t.{kind}.from_pretrained('{given}').save_pretrained('converted'); "
        f"t.AutoTokenizer.from_pretrained('{given}').save_pretrained('converted')"
    )
    where = "" if name else ", with its name or folder as MODEL"
    return f'python -c "{code}"{where}, and load the folder "converted"'


async def _base_of(source: Source, config: Mapping[str, Any], own: str | None) -> str | None:
    """Return the repository that the metadata of the model card name, or the config; None if there is none."""
    raw = bytearray()
    try:
        stream = await source.open(README, 0, MOST)
        try:
            while len(raw) < MOST and (piece := await stream.read_some(MOST - len(raw))):
                raw += piece
        finally:
            await stream.close()
    except DownloadError:  # there is none, or it cannot be read: this is only for the message
        raw.clear()
    stated = METADATA.match(raw.decode("utf-8", "replace"))
    named = BASE.search(stated[1]) if stated else None
    for name in (named[1] if named else None, config.get("_name_or_path")):
        if isinstance(name, str) and REPOSITORY.fullmatch(name) and name != own:
            return name
    return None


def _plain(file: str) -> str:
    """Return a file's name for a message: at most 80 characters."""
    return file if len(file) <= 80 else f"{file[:80]}…"
