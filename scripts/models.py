"""Assembly of .cache/models/<id>/ in the Hugging Face layout: files as published, heads converted to safetensors."""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts import onnx_saliency, paths, pip
from scripts.console import SetupError, say
from scripts.convert import ConversionError, checkpoint_head, layer_sizes, mlp_json_head
from scripts.safetensors import encode
from scripts.stamps import Stamp, key_of, write_atomically
from scripts.tools import run_quietly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scripts.pins import FilePin

MODELS_FILE = paths.ROOT / "scripts" / "models.toml"
CONVERTER_LOCK = paths.ROOT / "scripts" / "converter.lock"
_CODE = [paths.ROOT / "scripts" / name for name in ("models.py", "convert.py", "safetensors.py", "onnx_saliency.py")]


@dataclass(frozen=True)
class Head:
    """A head: how it reads its backbone, and its published name."""

    source: str
    pooling: str
    normalize: bool
    pair: bool
    output_activation: str
    labels: tuple[str, ...]
    key: str | None = None


@dataclass(frozen=True)
class SampleModel:
    """One model folder. The page loads it with ``dtype``; a ``large`` one may be left out of a site."""

    id: str
    title: str
    task: str
    base: str | None = None
    dtype: str | None = None
    large: bool = False
    head: Head | None = None


def load_models(path: Path = MODELS_FILE) -> list[SampleModel]:
    """Read the sample models, in the order of the page."""
    models = []
    for entry in tomllib.loads(path.read_text())["models"]:
        head = entry.pop("head", None)
        if head is not None:
            head = Head(**{**head, "labels": tuple(head["labels"])})
        models.append(SampleModel(**entry, head=head))
    return models


def head_files(model: SampleModel, downloads: Path) -> dict[str, bytes]:
    """Make config.json and model.safetensors of a head from its published form.

    Raises:
        ConversionError: the published form cannot be read.
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
    """Make .cache/models again, unless it matches pins, converters and downloads."""
    ensure_converted(downloads)
    stamp = Stamp(paths.STAMPS / "models.json", paths.CACHE)
    key = key_of(MODELS_FILE, paths.STAMPS / "converted.json", *_CODE, *(f"{pin.path} {pin.sha256}" for pin in pins))
    if stamp.is_fresh(key):
        return
    say(f"Models → {paths.MODELS.relative_to(paths.ROOT)}")
    stamp.clear()
    fresh = paths.CACHE / "models.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for pin in pins:
        if pin.path.startswith("models/"):
            link_or_copy(downloads / pin.path, fresh / pin.path.removeprefix("models/"))
    for path in sorted(path for path in paths.CONVERTED.rglob("*") if path.is_file()):
        link_or_copy(path, fresh / path.relative_to(paths.CONVERTED))
    for entry in tomllib.loads(MODELS_FILE.read_text())["onnx"]:
        try:
            onnx_saliency.convert(downloads / entry["source"], fresh / entry["id"])
        except ConversionError as error:
            raise SetupError(f"converting {entry['id']} failed: {error}; correct scripts/models.toml.") from error
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


def ensure_converted(downloads: Path) -> None:
    """Convert the GGUF models below .cache/converted, unless that was done; removes the packages for it afterwards."""
    stamp = Stamp(paths.STAMPS / "converted.json", paths.CACHE)
    models = tomllib.loads(MODELS_FILE.read_text())["gguf"]
    code = [paths.ROOT / "scripts" / name for name in ("gguf_llama.py", "safetensors.py")]
    key = key_of(CONVERTER_LOCK, *code, *(downloads / model["source"] for model in models))
    if stamp.is_fresh(key):
        return
    stamp.clear()
    shutil.rmtree(paths.CONVERTED, ignore_errors=True)
    packages = paths.CACHE / "converter"
    pip.install_into(packages, CONVERTER_LOCK)
    for model in models:
        say(f"{model['id']} → {paths.CONVERTED.relative_to(paths.ROOT)}")
        run_quietly(
            [
                paths.venv_python(),
                "-m",
                "scripts.gguf_llama",
                downloads / model["source"],
                paths.CONVERTED / model["id"],
            ],
            what=f"converting {model['id']}",
            remedy="the lines above say why.",
            cwd=paths.ROOT,
            env={"PYTHONPATH": str(packages)},
        )
    shutil.rmtree(packages)
    stamp.write(key, sorted(path for path in paths.CONVERTED.rglob("*") if path.is_file()))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
