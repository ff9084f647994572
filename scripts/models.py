"""Assembles .cache/models/<id>/ in the Hugging Face layout: files as published, heads converted to safetensors."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import SetupError, say
from scripts.convert import ConversionError, checkpoint_head, layer_sizes, mlp_json_head
from scripts.safetensors import encode
from scripts.stamps import Stamp, key_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scripts.pins import FilePin

MODELS_FILE = paths.ROOT / "scripts" / "models.toml"
_CODE = [paths.ROOT / "scripts" / name for name in ("models.py", "convert.py", "safetensors.py")]


@dataclass(frozen=True)
class Head:
    """How a head reads its backbone, and what it was published as."""

    source: str
    pooling: str
    normalize: bool
    pair: bool
    output_activation: str
    labels: tuple[str, ...]
    key: str | None = None


@dataclass(frozen=True)
class SampleModel:
    """One model folder."""

    id: str
    title: str
    task: str
    base: str | None = None
    head: Head | None = None


def load_models(path: Path = MODELS_FILE) -> list[SampleModel]:
    """The sample models, in the order the page shows them."""
    models = []
    for entry in tomllib.loads(path.read_text())["models"]:
        head = entry.pop("head", None)
        if head is not None:
            head = Head(**{**head, "labels": tuple(head["labels"])})
        models.append(SampleModel(**entry, head=head))
    return models


def head_files(model: SampleModel, downloads: Path) -> dict[str, bytes]:
    """config.json and model.safetensors of a head, from its published form.

    Raises:
        ConversionError: the published form is not readable.
    """
    head = model.head
    assert head is not None
    source = downloads / head.source
    layers = mlp_json_head(source) if head.key is None else checkpoint_head(source, head.key)
    sizes = layer_sizes(layers)
    if sizes[-1] != len(head.labels):
        raise ConversionError(f"{source.name}: {model.id} has {sizes[-1]} outputs for {len(head.labels)} labels")
    config = {
        "model_type": "mlp-head",
        "architectures": ["MlpHead"],
        "base_model_name_or_path": model.base,
        "pooling": head.pooling,
        "normalize": head.normalize,
        "pair": head.pair,
        "layer_sizes": sizes,
        "hidden_act": "relu",
        "output_activation": head.output_activation,
        "id2label": {str(index): label for index, label in enumerate(head.labels)},
        "torch_dtype": "float32",
    }
    return {"config.json": json.dumps(config, indent=2).encode() + b"\n", "model.safetensors": encode(layers)}


def ensure_models(pins: Sequence[FilePin], downloads: Path) -> None:
    """Make .cache/models anew unless it is what pins, converters and downloads say."""
    stamp = Stamp(paths.STAMPS / "models.json", paths.CACHE)
    key = key_of(MODELS_FILE, *_CODE, *(f"{pin.path} {pin.sha256}" for pin in pins))
    if stamp.is_fresh(key):
        return
    say(f"Models → {paths.MODELS.relative_to(paths.ROOT)}")
    stamp.clear()
    fresh = paths.CACHE / "models.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for pin in pins:
        if pin.path.startswith("models/"):
            link_or_copy(downloads / pin.path, fresh / pin.path.removeprefix("models/"))
    for model in load_models():
        if model.head is None:
            continue
        try:
            files = head_files(model, downloads)
        except ConversionError as error:
            raise SetupError(f"converting {model.id} failed: {error}; correct scripts/models.toml.") from error
        for name, data in files.items():
            write_atomically(fresh / model.id / name, data)
    shutil.rmtree(paths.MODELS, ignore_errors=True)
    fresh.rename(paths.MODELS)
    stamp.write(key, sorted(path for path in paths.MODELS.rglob("*") if path.is_file()))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
