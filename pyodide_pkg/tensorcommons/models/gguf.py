"""Models in GGUF files: the config, the names of checkpoints and the order of rows, from llama.cpp's.

llama.cpp converts a checkpoint of `transformers` to names of its own and few metadata. This file reverses that, so that
an architecture is built from the same fields and names whichever file its weights come from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import InvalidWeights, UnsupportedModel, quoted
from ..hub.gguf_source import MERGE, GgufSource
from ..hub.gguf_tokenizer import GgufTokenizer
from ..hub.safetensors import TensorEntry
from ..hub.weights import WeightsFile

BLOCK = re.compile(r"blk\.(\d{1,5})\.(.+)")
ROPE_FACTORS = "rope_freqs.weight"
ENDS = ("bos_token_id", "eos_token_id")
KINDS = {int: "an integer", float: "a number", str: "a string", bool: "a boolean"}


@dataclass(frozen=True)
class Metadata:
    """The metadata of the GGUF file ``file``, whose architecture is ``kind``."""

    values: Mapping[str, Any]
    file: str
    kind: str

    def own(self, name: str, *kinds: type, default: Any = None) -> Any:
        """Return the value of ``<architecture>.<name>``, of one of ``kinds``.

        Raises InvalidWeights for another kind, or if there is none and no default.
        """
        return self.get(f"{self.kind}.{name}", *kinds, default=default)

    def get(self, key: str, *kinds: type, default: Any = None) -> Any:
        """Return the value of ``key``, as :meth:`own` does."""
        value = self.values.get(key, default)
        if type(value) not in kinds and (value is not default or default is None):
            wrong = "is missing" if value is None else f"must be {KINDS[kinds[-1]]}, not {_shown(value)}"
            raise InvalidWeights(self.file, f"metadata {key} {wrong}")
        return value

    def optional(self, key: str, *kinds: type) -> Any:
        """Return the value of ``key``, None if there is none. Raises InvalidWeights for another kind."""
        return self.get(key, *kinds) if key in self.values else None

    def count(self, name: str, default: int | None = None) -> int:
        """Return an integer of the architecture."""
        number: int = self.own(name, int, default=default)
        return number

    def number(self, name: str, default: float | None = None) -> float:
        """Return a number of the architecture. A float32 becomes the shortest decimal number that rounds to it."""
        value = self.own(name, int, float, default=default)
        return float(str(np.float32(value))) if type(value) is float and value != default else value

    def refuse(self, **allowed: Any) -> None:
        """Raise InvalidWeights for a setting of the architecture that has another value than the ``allowed`` one.

        In the names "." is "__".
        """
        for name, only in allowed.items():
            key = f"{self.kind}.{name.replace('__', '.')}"
            value = self.values.get(key, only)
            if isinstance(value, (list, np.ndarray)) or value != only:
                raise InvalidWeights(
                    self.file,
                    f"metadata {key} {_shown(value)} is not supported, only {quoted(only)}: load the model from its "
                    "safetensors files, if its architecture is supported",
                )


def _shown(value: Any) -> str:
    return f"an array of {len(value):,}" if isinstance(value, (list, np.ndarray)) else quoted(value)


@dataclass(frozen=True)
class Layout:
    """An architecture of llama.cpp: ``config`` makes its ``config.json`` from metadata and the tensors by name.

    ``names`` maps the names of tensors, without ".weight" and ".bias", to those of checkpoints; ``blocks`` those below
    "blk.<i>", to names below ``block``. ``pairs`` are the tensors below "blk.<i>" whose rows are pairs, with the field
    of the config that has their number of heads. ``tokenizers`` are the models of its tokenizer that are supported.
    """

    config: Callable[[Metadata, Mapping[str, TensorEntry]], dict[str, Any]]
    names: Mapping[str, str]
    block: str
    blocks: Mapping[str, str]
    tokenizers: tuple[str, ...]
    pairs: Mapping[str, str] = field(default_factory=dict)

    def name(self, name: str) -> str | None:
        """Return a tensor's name in checkpoints; None if this architecture does not have it."""
        stem, _, end = name.rpartition(".")
        if end not in ("weight", "bias"):
            return None
        found = BLOCK.fullmatch(stem)
        if found is None:
            return f"{self.names[stem]}.{end}" if stem in self.names else None
        return f"{self.block}.{int(found[1])}.{self.blocks[found[2]]}.{end}" if found[2] in self.blocks else None


def _decoder(data: Metadata, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    """Return the config of a decoder with Llama's layers."""
    data.refuse(
        attention__causal=True,
        attention__scale=0.0,
        rope__scaling__attn_factor=1.0,
        rope__scale_linear=1.0,
        expert_count=0,
        use_parallel_residual=False,
        logit_scale=0.0,
    )
    size, heads = data.count("embedding_length"), data.count("attention.head_count")
    width = data.count("attention.key_length", default=size // max(heads, 1))
    data.refuse(attention__value_length=width, rope__dimension_count=width)
    config = {
        **_common(data, tensors),
        "hidden_size": size,
        "intermediate_size": data.count("feed_forward_length"),
        "num_hidden_layers": data.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": data.count("attention.head_count_kv", default=heads),
        "head_dim": width,
        "max_position_embeddings": data.count("context_length"),
        "rms_norm_eps": data.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": data.number("rope.freq_base", default=10000.0),
        "hidden_act": "silu",
    }
    scaling = data.own("rope.scaling.type", str, default="none")
    if scaling == "linear":
        config["rope_scaling"] = {"rope_type": "linear", "factor": data.number("rope.scaling.factor")}
    elif scaling != "none":
        data.refuse(rope__scaling__type="none")
    return config


def _llama(data: Metadata, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    biases = {name: f"blk.0.{part}.bias" in tensors for name, part in (("attention", "attn_q"), ("mlp", "ffn_up"))}
    return {**_decoder(data, tensors), **{f"{name}_bias": has for name, has in biases.items()}}


def _gemma3(data: Metadata, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    """Return the config of Gemma 3's text models. llama.cpp has the numbers that its metadata do not state."""
    config = _decoder(data, tensors)
    size, layers, heads = (config[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    window = data.count("attention.sliding_window", default=0)
    return {
        **config,
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": size / heads if layers == GEMMA3_27B and heads else config["head_dim"],
        "sliding_window": window or 1,
        "sliding_window_pattern": data.count("attention.sliding_window_pattern", default=6) if window else 1,
        "rope_local_base_freq": data.number("rope.freq_base_swa", default=10000.0),
        "final_logit_softcapping": data.number("final_logit_softcapping", default=0.0),
    }


def _gpt2(data: Metadata, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    return {
        **_common(data, tensors),
        "n_embd": data.count("embedding_length"),
        "n_inner": data.count("feed_forward_length"),
        "n_layer": data.count("block_count"),
        "n_head": data.count("attention.head_count"),
        "n_positions": data.count("context_length"),
        "layer_norm_epsilon": data.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


def _bert(data: Metadata, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    data.refuse(attention__causal=False)
    types = tensors.get("token_types.weight")
    return {
        **_common(data, tensors),
        "hidden_size": data.count("embedding_length"),
        "intermediate_size": data.count("feed_forward_length"),
        "num_hidden_layers": data.count("block_count"),
        "num_attention_heads": data.count("attention.head_count"),
        "max_position_embeddings": data.count("context_length"),
        "layer_norm_eps": data.number("attention.layer_norm_epsilon"),
        "type_vocab_size": types.shape[0] if types is not None and types.shape else 0,
        "hidden_act": "gelu",
    }


def _common(data: Metadata, tensors: Mapping[str, TensorEntry]) -> dict[str, Any]:
    """Return what all configs have: the sizes of the vocabulary, and the special tokens."""
    words = tensors.get("token_embd.weight")
    if words is None or len(words.shape) != 2:
        raise InvalidWeights(data.file, "token_embd.weight, the table of the tokens, is missing or not a matrix")
    pad = data.optional("tokenizer.ggml.padding_token_id", int)
    return {
        "vocab_size": words.shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        **{name: data.optional(f"tokenizer.ggml.{name}", int) for name in ENDS},
        **({} if pad is None else {"pad_token_id": pad}),
    }


ATTENTION = {f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"} | {"attn_output": "self_attn.o_proj"}
FEED_FORWARD = {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
QK_NORMS = {f"attn_{part}_norm": f"self_attn.{part}_norm" for part in "qk"}
GEMMA3_NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GEMMA3_27B = 62  # layers of the only model whose scores are scaled by another number than the size of a head
DECODER = Layout(
    config=_decoder,
    names={"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
    block="model.layers",
    blocks={**ATTENTION, **FEED_FORWARD, **NORMS},
    tokenizers=("gpt2", "llama"),
)
LAYOUTS: dict[str, Layout] = {
    "llama": replace(DECODER, config=_llama, pairs={"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}),
    "qwen2": DECODER,
    "qwen3": replace(DECODER, blocks={**DECODER.blocks, **QK_NORMS}),
    "gemma3": replace(
        DECODER,
        config=_gemma3,
        blocks={**ATTENTION, **FEED_FORWARD, **QK_NORMS, **GEMMA3_NORMS},
        tokenizers=("llama",),
    ),
    "gpt2": Layout(
        config=_gpt2,
        names={"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"},
        block="h",
        blocks={
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        tokenizers=("gpt2",),
    ),
    "bert": Layout(
        config=_bert,
        names={
            "token_embd": "embeddings.word_embeddings",
            "position_embd": "embeddings.position_embeddings",
            "token_types": "embeddings.token_type_embeddings",
            "token_embd_norm": "embeddings.LayerNorm",
        },
        block="encoder.layer",
        blocks={
            **{f"attn_{part[0]}": f"attention.self.{part}" for part in ("query", "key", "value")},
            "attn_output": "attention.output.dense",
            "attn_output_norm": "attention.output.LayerNorm",
            "ffn_up": "intermediate.dense",
            "ffn_down": "output.dense",
            "layer_output_norm": "output.LayerNorm",
        },
        tokenizers=("bert",),
    ),
}
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
CLASSES |= {"gemma3": "Gemma3ForCausalLM", "gpt2": "GPT2LMHeadModel", "bert": "BertModel"}
POOLING = {0: "mean", 1: "mean", 2: "cls", 3: "lasttoken"}
SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
SAMPLING["penalty_repeat"] = "repetition_penalty"


async def open_gguf(source: GgufSource, stack: AsyncExitStack) -> tuple[WeightsFile, tuple[float, ...]]:
    """Open the file of ``source``, name its tensors as in checkpoints, and fill the folder that it stands for.

    Returns the file, and the divisors of the angles of rotary positions, if it has them.

    Raises:
        InvalidWeights: the file is damaged, or has a setting or a tensor that is not supported.
        UnsupportedModel: so is its architecture.
    """
    opened = await stack.enter_async_context(await source.open_weights())
    header = opened.header
    file, values = header.file, header.metadata
    data = Metadata(values, file, "")
    parts = data.optional("split.count", int)
    if parts not in (None, 0, 1):
        raise InvalidWeights(file, f"one of {quoted(parts)} files of a model: {MERGE}")
    kind = values.get("general.architecture")
    if not isinstance(kind, str):
        raise InvalidWeights(file, "metadata general.architecture, the name of the architecture, is missing")
    if (use := data.optional("general.type", str)) not in (None, "model"):
        raise InvalidWeights(file, f"general.type is {_shown(use)}, not a model: load its model")
    layout = LAYOUTS.get(kind)
    if layout is None:
        raise UnsupportedModel(kind, LAYOUTS, "This is a GGUF file: load the model's folder with model.safetensors")
    data = Metadata(values, file, kind)
    tensors = {entry.name: entry for entry in header.entries}
    config = {"model_type": kind, "architectures": [CLASSES[kind]], **layout.config(data, tensors)}
    divisors = tensors.get(ROPE_FACTORS) if layout.pairs else None
    named = (entry for entry in header.entries if entry is not divisors)
    opened.header = replace(header, entries=tuple(_renamed(entry, layout, config, data) for entry in named))
    source.fill(_contents(data, layout, config))
    return opened, await _rope_factors(opened, divisors, config["head_dim"] // 2) if divisors else ()


async def _rope_factors(opened: WeightsFile, entry: TensorEntry, pairs: int) -> tuple[float, ...]:
    """Read the divisors of the angles of a head's ``pairs``. Raises InvalidWeights for others than positive numbers."""
    file = opened.header.file
    if entry.dtype != "F32" or entry.shape != (pairs,):
        raise InvalidWeights(
            file, f"tensor {ROPE_FACTORS} must be F32 of shape {(pairs,)}, not {entry.dtype} of {entry.shape}"
        )
    ((block, _),) = await opened.read(opened.chunks(entry))
    with block:
        factors = np.frombuffer(bytes(block), np.float32)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise InvalidWeights(
            file, f"tensor {ROPE_FACTORS} has the value {factors.min()}; it must have finite numbers above 0"
        )
    return tuple(factors.tolist())


def _renamed(entry: TensorEntry, layout: Layout, config: Mapping[str, Any], data: Metadata) -> TensorEntry:
    """Return ``entry`` with its name in checkpoints and the heads whose rows are pairs."""
    name = layout.name(entry.name)
    if name is None:
        raise InvalidWeights(
            data.file,
            f"tensor {quoted(entry.name)} is not one of a {data.kind} that is supported in GGUF: load the model from "
            "its safetensors files",
        )
    found = BLOCK.fullmatch(entry.name.rpartition(".")[0])
    if found is None or found[2] not in layout.pairs:
        return replace(entry, name=name)
    heads = config[layout.pairs[found[2]]]
    if heads < 1 or not entry.shape or entry.shape[0] % (2 * heads):
        raise InvalidWeights(
            data.file,
            f"tensor {quoted(entry.name)} of shape {quoted(entry.shape)} has no pairs of rows for {heads} heads",
        )
    return replace(entry, name=name, heads=heads)


def _contents(data: Metadata, layout: Layout, config: Mapping[str, Any]) -> dict[str, Callable[[], Awaitable[bytes]]]:
    """Return the files of the folder, each made when it is read."""
    tokenizer = GgufTokenizer(data.values, data.file, layout.tokenizers)
    files: dict[str, Callable[[], Awaitable[bytes]]] = {"config.json": _made(config)}
    if "tokenizer.ggml.model" in data.values:
        files |= {"tokenizer.json": tokenizer.tokenizer, "tokenizer_config.json": tokenizer.options}
    if data.kind == "bert":
        pooling = data.count("pooling_type", default=1)
        if pooling not in POOLING:
            raise InvalidWeights(data.file, f"metadata bert.pooling_type {pooling} is not one of {POOLING}")
        kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        modules = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in kinds.items()]
        files["modules.json"] = _made(modules)
        files["1_Pooling/config.json"] = _made({"pooling_mode": POOLING[pooling]})
    else:
        files["generation_config.json"] = _made(_generation(data))
    return files


def _generation(data: Metadata) -> dict[str, Any]:
    """Return the defaults of generation: the tokens that end a text, and the options of sampling, if there are any."""
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    stated = (data.optional(f"tokenizer.ggml.{name}", int) for name in names)
    ends = dict.fromkeys(end for end in stated if end is not None)
    found = {"bos_token_id": data.optional("tokenizer.ggml.bos_token_id", int), "eos_token_id": list(ends) or None}
    found["pad_token_id"] = data.optional("tokenizer.ggml.padding_token_id", int)
    options = {
        ours: value if type(value) is not float else float(str(np.float32(value)))
        for theirs, ours in SAMPLING.items()
        if (value := data.optional(f"general.sampling.{theirs}", int, float)) is not None
    }
    return {**found, **options, **({"do_sample": True} if options else {})}


def _made(value: object) -> Callable[[], Awaitable[bytes]]:
    async def made() -> bytes:
        return json.dumps(value).encode()

    return made
