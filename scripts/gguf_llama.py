"""Conversion of a Llama model in a GGUF file to the Hugging Face layout: float16 safetensors, config, tokenizer.

    python -m scripts.gguf_llama MODEL.gguf FOLDER

Set-up runs it (scripts/models.py) with the package `gguf` on the path. Names and the order of rows in the query and
key projections reverse ``convert_hf_to_gguf.py`` of llama.cpp. Dequantised weights are rounded to float16:
half the bytes, and less than a hundredth of a quantisation step. The goldens are made from the same file.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from scripts.safetensors import F16Tensor, encode

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # tokenizer.ggml.token_type of a special token


def convert(source: Path, target: Path) -> None:
    """Write config.json, generation_config.json, tokenizer.json, tokenizer_config.json and model.safetensors."""
    gguf: Any = importlib.import_module("gguf")
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.pre"] != "smollm":
        raise SystemExit(f"{source.name}: not a Llama with the tokenizer of SmolLM")
    config = config_of(fields, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors: dict[str, F16Tensor] = {}
    for tensor in sorted(reader.tensors, key=lambda tensor: str(tensor.name)):
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            values = half_rows(values, heads[part])
        tensors[spelled(tensor.name)] = F16Tensor(values.shape, values.astype("<f2").tobytes())
    ends = {key: fields.get(f"tokenizer.ggml.{key}") for key in ("bos_token_id", "eos_token_id")}
    ends["pad_token_id"] = fields.get("tokenizer.ggml.padding_token_id")
    tokens = fields["tokenizer.ggml.tokens"]
    options = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "chat_template": fields["tokenizer.chat_template"],
        **{key.removesuffix("_id"): tokens[value] for key, value in ends.items() if value is not None},
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("config.json", {**config, **ends}),
        ("generation_config.json", ends),
        ("tokenizer.json", tokenizer_of(fields)),
        ("tokenizer_config.json", options),
    ):
        (target / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (target / "model.safetensors").write_bytes(encode(tensors))


def config_of(fields: dict[str, Any], *, tied: bool) -> dict[str, Any]:
    """Make the ``config.json`` of a Llama."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 12),
        "rope_theta": fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "torch_dtype": "float16",
    }


def spelled(name: str) -> str:
    """Convert a name such as ``blk.3.attn_q.weight`` to ``model.layers.3.self_attn.q_proj.weight``."""
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
    if found is None or found[2] not in NAMES:
        raise SystemExit(f"the tensor {name!r} is not known")
    layer = f"model.layers.{found[1]}." if found[1] else ""
    return f"{layer}{NAMES[found[2]]}.weight"


def half_rows(values: Any, heads: int) -> Any:
    """Reorder the rows of each head from the adjacent pairs of llama.cpp to halves, which rotate together."""
    return values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def tokenizer_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Make ``tokenizer.json``: byte-level BPE with separate digits ("smollm" in llama.cpp)."""
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": token, **flags}
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": fields["tokenizer.ggml.merges"],
        },
    }


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
