"""Checkpoints of any size with random weights, made by rule: any range of a file is computed when it is read.

A recipe is text: a preset of :data:`PRESETS`, then options, as in ``llama-1b,dtype=F32,shards=2,seed=7``:

- ``dtype``: F32, F16 or BF16; ``shards``: the number of weights files; ``layers``: the depth, under the name that the
  architecture has for it
- ``seed``: other weights; with ``own=TEXT`` only those whose names contain it differ from seed 0, so that two
  checkpoints have the rest in common
- ``deviation``: of the weights from 0; those of norms lie around 1
- any other name is a field of ``config.json``

A tensor is a part of one block of noise, from an offset on that no other tensor of the checkpoint has, and begins again
where the block ends. The length of the block is a prime number, so no two rows of a matrix are equal.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from scripts import paths

if str(paths.PACKAGE.parent) not in sys.path:  # run as a program, the package is not installed
    sys.path.insert(0, str(paths.PACKAGE.parent))

from tensorcommons.models.checkpoint import Checkpoint
from tensorcommons.models.registry import FAMILIES

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
CHUNK = 1 << 20  # bytes that are made at a time
PERIOD = 4_194_301  # elements of the block, a prime number
STEP = 1_598_017  # elements between the offsets of two tensors; another prime number
SEED_STEP = 2_654_435_761  # elements between the offsets of two seeds
ITEMSIZE = {"F32": 4, "F16": 2, "BF16": 2}
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers")  # the field that ``layers`` sets: the first of the config

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
XLM_ROBERTA = {
    **BERT,
    "architectures": ["XLMRobertaModel"],
    "model_type": "xlm-roberta",
    "vocab_size": 250_002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 50_257,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
}
VIT = {
    "architectures": ["ViTModel"],
    "model_type": "vit",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
}
T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 32_128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
SMALL = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 64}
LLAMA_1B = {
    **LLAMA,
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
LLAMA_3B = {
    **LLAMA_1B,
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
}
BERT_LARGE = {
    **BERT,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
DEEP: dict[str, Any] = {"num_hidden_layers": 200}


@dataclass(frozen=True)
class Preset:
    """A configuration with the options that a recipe may change."""

    config: Mapping[str, Any]
    dtype: str = "F32"
    shards: int = 1
    deviation: float = 0.02


PRESETS = {
    "bert-178mb": Preset(
        {**BERT, "hidden_size": 512, "num_hidden_layers": 9, "num_attention_heads": 8} | {"intermediate_size": 2048}
    ),
    "smollm2-135m": Preset(LLAMA, "F16"),  # 269 MB
    "bert-base": Preset(BERT),  # 438 MB
    "smollm2-360m": Preset(  # 724 MB
        {**LLAMA, "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32}
        | {"num_attention_heads": 15, "num_key_value_heads": 5},
        "F16",
    ),
    "xlm-roberta-base": Preset(XLM_ROBERTA),  # 1.1 GB
    "bert-large": Preset(BERT_LARGE),  # 1.3 GB
    "llama-1b": Preset(LLAMA_1B, "F16"),  # 2.5 GB
    "llama-3b": Preset(LLAMA_3B, "F16", shards=3),  # 6.4 GB
    "gpt2": Preset(GPT2),
    "vit-base": Preset(VIT),
    "t5-small": Preset(T5),
    "deep-bert": Preset({**BERT, **SMALL, **DEEP, "max_position_embeddings": 64}, deviation=0.3),
    "deep-llama": Preset({**LLAMA, **SMALL, **DEEP, "num_key_value_heads": 1}, deviation=0.3),
    "deep-gpt2": Preset(
        {**GPT2, "vocab_size": 64, "n_embd": 8, "n_head": 2, "n_layer": 200, "n_positions": 64}, deviation=0.3
    ),
    "deep-t5": Preset(
        {**T5, "vocab_size": 64, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 200}, deviation=0.3
    ),
    "deep-vit": Preset({**VIT, **SMALL, **DEEP, "image_size": 8, "patch_size": 4}, deviation=0.3),
}


@dataclass(frozen=True)
class Recipe:
    """Configuration and options of a checkpoint."""

    config: Mapping[str, Any]
    dtype: str
    shards: int
    deviation: float
    seed: int = 0
    own: str = ""

    @classmethod
    def of(cls, text: str) -> Recipe:
        """Read a recipe. Raises ValueError for a preset that is not known, or an option that is not ``name=value``."""
        name, *given = text.split(",")
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}: the presets are {', '.join(PRESETS)}")
        preset = PRESETS[name]
        config = dict(preset.config)
        options: dict[str, Any] = {"dtype": preset.dtype, "shards": preset.shards, "deviation": preset.deviation}
        for each in given:
            key, equals, value = each.partition("=")
            if not equals:
                raise ValueError(f"{each!r} is not an option: options are name=value")
            if key in ("dtype", "own"):
                options[key] = value
            elif key in ("shards", "seed", "deviation"):
                options[key] = float(value) if key == "deviation" else int(value)
            elif key == "layers":
                config[next(depth for depth in DEPTHS if depth in config)] = int(value)
            else:
                config[key] = _value(value)
        if options["dtype"] not in ITEMSIZE:
            raise ValueError(f"dtype {options['dtype']!r} is not one of {', '.join(ITEMSIZE)}")
        if options["shards"] < 1:
            raise ValueError(f"shards={options['shards']}: a checkpoint has at least one file")
        return cls(config, **options)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class _Tensor:
    """Bytes ``start`` to ``stop`` of a file, from element ``offset`` of a block on."""

    start: int
    stop: int
    offset: int
    mean: float


@dataclass
class _File:
    head: bytes
    tensors: list[_Tensor] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.tensors[-1].stop if self.tensors else len(self.head)


class RandomCheckpoint:
    """The files of a recipe: ``config.json``, one weights file, or several and their index."""

    def __init__(self, recipe: str | Recipe) -> None:
        self.recipe = Recipe.of(recipe) if isinstance(recipe, str) else recipe
        config = dict(self.recipe.config)
        architecture = FAMILIES[config["model_type"]](Checkpoint(config, CONFIG))
        self.shapes = architecture.parameters()
        self._files = {CONFIG: _File(json.dumps(config, indent=1).encode())}
        self._add_weights()

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return list(self._files)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights, without headers."""
        return sum(map(math.prod, self.shapes.values())) * ITEMSIZE[self.recipe.dtype]

    def size(self, file: str) -> int:
        """Bytes of a file. Raises KeyError for one that is not in the folder."""
        return self._files[file].size

    def etag(self, file: str) -> str:
        """A strong validator: another content has another one."""
        return f'"{hashlib.sha256(repr((self.recipe, file)).encode()).hexdigest()[:20]}"'

    def read(self, file: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes ``start`` to ``stop`` of a file; to its end without ``stop``."""
        return b"".join(self.pieces(file, start, stop))

    def pieces(self, file: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The same in pieces of at most :data:`CHUNK` bytes."""
        made = self._files[file]
        stop = made.size if stop is None else min(stop, made.size)
        if start < min(stop, len(made.head)):
            yield made.head[start:stop]
        at = max(start, len(made.head))
        number = max(bisect_right(made.starts, at) - 1, 0)
        small: list[bytes] = []  # tensors that are shorter than a piece go together
        waiting = 0
        while at < stop:
            tensor = made.tensors[number]
            end = min(tensor.stop, stop, at + CHUNK)
            if waiting + end - at > CHUNK:
                yield b"".join(small)
                small, waiting = [], 0
            small.append(self._bytes(tensor, at, end))
            waiting += end - at
            at = end
            number += at == tensor.stop
        if small:
            yield b"".join(small)

    def files(self) -> dict[str, bytes]:
        """All files in memory, as ``from_pretrained`` takes them."""
        return {name: self.read(name) for name in self._files}

    def _add_weights(self) -> None:
        names = list(self.shapes)
        sizes = [math.prod(self.shapes[name]) * ITEMSIZE[self.recipe.dtype] for name in names]
        total, count, filled = sum(sizes), self.recipe.shards, 0
        shards: list[list[int]] = [[] for _ in range(count)]
        for number, size in enumerate(sizes):
            shards[min(filled * count // max(total, 1), count - 1)].append(number)
            filled += size
        table: dict[str, str] = {}
        for i, numbers in enumerate(shards):
            file = "model.safetensors" if count == 1 else f"model-{i + 1:05}-of-{count:05}.safetensors"
            self._files[file] = self._weights([(number, names[number], sizes[number]) for number in numbers])
            table |= {names[number]: file for number in numbers}
        if count > 1:
            index = {"metadata": {"total_size": total}, "weight_map": table}
            self._files[INDEX] = _File(json.dumps(index).encode())

    def _weights(self, tensors: list[tuple[int, str, int]]) -> _File:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for _, name, nbytes in tensors:
            offsets = [end, end + nbytes]
            header[name] = {"dtype": self.recipe.dtype, "shape": list(self.shapes[name]), "data_offsets": offsets}
            end += nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        file = _File(struct.pack("<Q", len(text)) + text)
        start = len(file.head)
        for number, name, nbytes in tensors:
            is_norm = len(self.shapes[name]) == 1 and name.endswith(("weight", "lambda1"))
            seed = self.recipe.seed if self.recipe.own in name else 0
            offset = (number * STEP + seed * SEED_STEP) % PERIOD
            file.tensors.append(_Tensor(start, start + nbytes, offset, float(is_norm)))
            file.starts.append(start)
            start += nbytes
        return file

    def _bytes(self, tensor: _Tensor, start: int, stop: int) -> bytes:
        """At most :data:`CHUNK` bytes of the file, all of this tensor."""
        item = ITEMSIZE[self.recipe.dtype]
        first, skipped = divmod(start - tensor.start, item)
        place = (tensor.offset + first) % PERIOD * item + skipped
        return bytes(_noise(self.recipe.dtype, tensor.mean, self.recipe.deviation)[place : place + stop - start])


@lru_cache(maxsize=4)
def _noise(dtype: str, mean: float, deviation: float) -> memoryview:
    """The block of normal numbers as bytes, with so much of its beginning behind it that a piece never has to wrap."""
    values = np.random.default_rng(20).standard_normal(PERIOD, np.float32) * np.float32(deviation) + np.float32(mean)
    item = ITEMSIZE[dtype]
    values = np.concatenate([values, values[: CHUNK // item + 1]])
    if dtype == "F16":
        return memoryview(values.astype(np.float16).view(np.uint8))
    if dtype == "BF16":
        return memoryview((values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8))
    return memoryview(values.view(np.uint8))
