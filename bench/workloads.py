"""The work of the contestants: arrays by seed, sizes, and the ONNX file for those that read one.

Results are chained and read back, so that lazy evaluation skips nothing: products need the previous one, and a row
of the last is read.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench import onnx, onnx_models
from scripts.safetensors import F32Tensor, encode

Array: TypeAlias = np.ndarray[Any, Any]
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
SHARED = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
HEADS = 5
DINOV2 = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "image_size": 224,
    "patch_size": 14,
    "num_channels": 3,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "qkv_bias": True,
}


@dataclass(frozen=True)
class Work:
    """One measurement. ``amount`` is the work that a sample computes or moves, in ``unit`` (FLOP, bytes; 0 for "ms").

    A sample of the unit "token" or "image" has this many of them.

    ``exact`` computes the expected result in float64; without it, that of the first contestant is the reference.
    They must be exactly equal if ``equal``, else close. Of tokens that float16 may change, the first ``leading`` must
    be equal, and the others are counted.
    ``model`` makes the ONNX file(s), ``feeds`` names the arrays that are its inputs. Within a group, time grows
    about like ``scale``, if that is given (multiply-adds). ``has_peers``: peers take part; ``takes_arrays``: including
    those that do not read ONNX files.

    ``variants`` are modes of ours that take part, too, and ``against`` is the name of earlier work whose time ours and
    the peers' are compared with. A sample reads at least ``nbytes`` and does ``flops``. ``prompts`` gives the tokens of
    each sample. Work with ``missing``, the reason, is only reported.
    """

    group: str
    name: str
    kind: str
    params: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(repr=False)
    model: Callable[[], bytes | list[bytes] | onnx.Model] | None = field(repr=False)
    feeds: Sequence[str]
    steps: int = 1
    amount: float = 0.0
    unit: str = "ms"
    exact: Callable[[], Array] | None = field(default=None, repr=False)
    folder: str = ""
    scale: float = 0.0
    has_peers: bool = True
    equal: bool = False
    leading: int = 0
    takes_arrays: bool = True
    variants: Sequence[str] = ()
    against: str = ""
    nbytes: float = 0.0
    flops: float = 0.0
    prompts: Callable[[int], Array] | None = field(default=None, repr=False)
    missing: str = ""


def matmuls(software: bool) -> Iterator[Work]:
    """Build chained square products: in float32, and on a GPU in float16, without the peers."""
    sizes = ((512, 4),) if software else ((1024, 256), (2048, 64), (4096, 16))
    for dtype, (n, steps) in itertools.product(("float32",) if software else ("float32", "float16"), sizes):
        rng = np.random.default_rng(n)
        x = rng.standard_normal((n, n), np.float32).astype(dtype)
        b = (rng.standard_normal((n, n), np.float32) / np.float32(n**0.5)).astype(
            dtype
        )  # products with it keep the magnitude

        def exact(x: Array = x, b: Array = b, steps: int = steps) -> Array:
            row, wide = x[:1].astype(np.float64), b.astype(np.float64)
            for _ in range(steps):
                row = row @ wide
            return row

        yield Work(
            *("matmul", f"matmul {n} × {n}, {dtype}", "matmul", {"steps": steps}, {"x": x, "b": b}),
            *(lambda n=n, steps=steps: onnx.matmul_chain(n, steps), ("x", "b"), steps, 2.0 * n**3 * steps, "FLOP"),
            exact=exact,
            has_peers=dtype == "float32",
        )


def bandwidth(software: bool) -> Iterator[Work]:
    """Build the work that only moves bytes: each is read and written once per step (add: two read, one written)."""
    rows, columns, steps = (1024, 1024, 4) if software else (16384, 1024, 128)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, columns), np.float32)
    size = f"{x.nbytes >> 20} MiB"
    vectors = {name: rng.standard_normal(columns, np.float32) for name in ("weight", "bias")}
    for kind, arrays, touched in (
        ("add", {"x": x, "y": x[::-1].copy()}, 3),
        ("softmax", {"x": x}, 2),
        ("layer_norm", {"x": x, **vectors}, 2),
    ):
        yield Work(
            *("bandwidth", f"{kind} over {size}", kind, {"steps": steps}, arrays),
            *(lambda kind=kind, arrays=arrays: onnx.chain(kind, arrays, steps), tuple(arrays), steps),
            *(float(touched * x.nbytes * steps), "byte"),
        )


def encoders(software: bool, folders: Mapping[str, Path]) -> Iterator[Work]:
    """Build forwards of BERT encoders, with the last hidden state read back."""
    shapes = [("MiniLM", 1, 16), ("MiniLM", 1, 128), ("MiniLM", 8, 128)]
    if software:
        shapes.insert(2, ("MiniLM", 1, 256))
    else:
        shapes += [("MiniLM", 32, 128), ("BERT-base", 1, 128), ("BERT-base", 32, 128)]
    for name, batch, length in shapes:
        yield encoder(name, batch, length, folders[name])


def encoder(name: str, batch: int, length: int, folder: Path) -> Work:
    """Build one forward of the model in ``folder``."""
    config, weights = read_model(folder)
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, length)).astype(np.int32)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    params = {
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "epsilon": float(config.get("layer_norm_eps", 1e-12)),
        "config": config,
    }
    return Work(
        *("encoder", f"{name} {batch} × {length}", "encoder", params, {**weights, **feeds}),
        *(lambda: onnx.bert(config, weights, batch, length), tuple(feeds)),
        folder=str(folder),
        scale=float(batch * length * sum(array.size for name, array in weights.items() if "encoder.layer" in name)),
    )


def sentences(folder: Path) -> Iterator[Work]:
    """Build embeddings of texts that differ each time, from the text to the vector, each of words of one token."""
    files = {
        name: (folder / name).read_text("utf-8") for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    }
    words = [word for word in json.loads(files["tokenizer.json"])["model"]["vocab"] if len(word) > 3 and word.isalpha()]
    rng = np.random.default_rng(0)
    for length in (16, 128):
        texts = [" ".join(rng.choice(words, length - 2)) for _ in range(64)]
        yield replace(
            encoder("", 1, length, folder),
            group="sentences",
            name=f"a text of {length} tokens to its embedding",
            kind="sentences",
            params={"texts": texts, "files": files},
            arrays={},
            model=partial(onnx.bert, *read_model(folder), 1, length, "int64"),
            feeds=(),
            takes_arrays=False,
        )


def heads(software: bool, folders: Mapping[str, Path]) -> Iterator[Work]:
    """Build five classifiers on one backbone, all for the same texts."""
    for batch, length in ((1, 16), (1, 128)) if software else ((1, 128), (32, 128)):
        base = encoder("", batch, length, folders["MiniLM"])
        yield Work(
            *("heads", f"{HEADS} heads on one MiniLM, {batch} × {length}", "heads", {}),
            *({name: base.arrays[name] for name in base.feeds}, _head_models(folders, batch, length), base.feeds),
            folder=str(folders["MiniLM"].parent),
            scale=base.scale * HEADS,
        )


def _head_models(folders: Mapping[str, Path], batch: int, length: int) -> Callable[[], list[bytes]]:
    """Make the ONNX files of the classifiers, each with the backbone inside, as published."""

    def build() -> list[bytes]:
        config, weights = read_model(folders["MiniLM"])
        models = [read_model(folders["MiniLM"].parent / f"head-{i}")[1] for i in range(HEADS)]
        return [onnx.classifier(config, weights, head, batch, length) for head in models]

    return build


def images(software: bool, folder: Path) -> Iterator[Work]:
    """Build DINOv2-small on images of 224 x 224, with the last hidden state read back."""
    config, weights = read_model(folder)
    for batch in (1, 8) if software else (1, 8, 32):
        side = config["image_size"]
        pixels = np.random.default_rng(0).standard_normal((batch, 3, side, side), np.float32)
        yield Work(
            *("images", f"DINOv2-small, {batch} × {side}²", "encoder", {}, {"pixel_values": pixels}),
            *(lambda batch=batch: onnx_models.dinov2(config, weights, batch), ("pixel_values",), 1),
            *(float(batch), "image"),
            folder=str(folder),
            scale=float(batch),
            takes_arrays=False,
        )


def loads(url: str) -> Iterator[Work]:
    """Build loads of MiniLM from a server to its first result, with an empty and a filled storage of the browser.

    The peers fetch the ONNX file that ``bench/browser.py`` makes from the same weights, and store it in a cache of the
    page, like transformers.js.
    """
    ids = np.random.default_rng(0).integers(1000, 20000, (1, 16)).astype(np.int32)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    for kind in ("cold", "from the cache"):
        yield Work(
            *("load", f"MiniLM over HTTP to its first answer, {kind}", "load"),
            {"url": f"{url}bench/MiniLM/onnx/model.onnx", "site": f"{url}bench/", "cold": kind == "cold"},
            *(feeds, lambda: b"", tuple(feeds)),
            folder=f"{url}models/all-MiniLM-L6-v2",
            takes_arrays=False,
        )


# --- folders of models, in the layout of from_pretrained ---


@lru_cache(maxsize=1)  # all work of a model shares its bytes
def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read the config and the float32 tensors of a folder with safetensors."""
    raw = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    weights = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if entry.get("dtype") == "F32":
            start = 8 + size + entry["data_offsets"][0]
            count = int(np.prod(entry["shape"]))
            weights[name] = np.frombuffer(raw, np.float32, count, start).reshape(entry["shape"])
    return json.loads((folder / "config.json").read_text()), weights


def write_encoder(folder: Path, sizes: Mapping[str, int], seed: int = 0) -> None:
    """Write a BERT encoder with random weights, normal with deviation 0.02 like its initialization for training."""
    from tensorcommons.models.bert import build
    from tensorcommons.models.checkpoint import Checkpoint

    config = {**SHARED, **sizes}
    bert = build(Checkpoint(config, "config.json", frozenset()))
    write_model(folder, config, {name: param.shape for name, param in bert.manifest.items()}, seed)


def write_random(folder: Path, config: Mapping[str, Any], deviation: float = 0.02) -> None:
    """Write the model of ``config`` with random weights."""
    from tensorcommons.models.checkpoint import Checkpoint
    from tensorcommons.models.registry import FAMILIES

    model = FAMILIES[config["model_type"]].build(Checkpoint(config, "config.json", frozenset()))
    write_model(folder, config, {name: param.shape for name, param in model.manifest.items()}, 0, deviation)


def write_heads(folder: Path, base: str, hidden: int) -> None:
    """Write the classifiers ``head-0`` … beside the encoder ``base``."""
    for i in range(HEADS):
        sizes = [hidden, 128, 4]
        config = {
            "model_type": "mlp-head",
            "base_model_name_or_path": base,
            "pooling": "mean",
            "normalize": False,
            "pair": False,
            "layer_sizes": sizes,
            "hidden_act": "relu",
            "output_activation": "softmax",
            "id2label": {str(label): f"label {label}" for label in range(sizes[-1])},
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(len(sizes) - 1):
            shapes |= {
                f"layers.{layer}.weight": (sizes[layer + 1], sizes[layer]),
                f"layers.{layer}.bias": (sizes[layer + 1],),
            }
        write_model(folder / f"head-{i}", config, shapes, seed=100 + i)


def write_model(
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    seed: int,
    deviation: float = 0.02,
) -> None:
    """Write a folder with config.json and random model.safetensors."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, np.float32) * np.float32(deviation)
        is_norm = "norm" in name.lower() or "ln_" in name
        if name.endswith("lambda1") or (is_norm and name.endswith("weight")):
            values += 1
        tensors[name] = F32Tensor(shape, values.tobytes())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(encode(tensors))
