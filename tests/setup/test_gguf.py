"""Conversion of GGUF to the Hugging Face layout: names, the order of rows, the tokenizer, float16."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scripts.gguf_llama import config_of, half_rows, spelled, tokenizer_of
from scripts.safetensors import F16Tensor, encode


def test_names_are_those_of_checkpoints():
    assert spelled("blk.12.attn_q.weight") == "model.layers.12.self_attn.q_proj.weight"
    assert spelled("token_embd.weight") == "model.embed_tokens.weight"
    for name in ("blk.0.attn_x.weight", "rope_freqs.weight", "blk.0.attn_q.bias"):
        with pytest.raises(SystemExit, match=name):
            spelled(name)


def test_rows_are_reordered_from_pairs_to_halves():
    halves = np.arange(2 * 6 * 3).reshape(12, 3)  # two heads of six rows
    pairs = halves.reshape(2, 2, 3, 3).swapaxes(1, 2).reshape(12, 3)  # permuted as by convert_hf_to_gguf.py
    assert np.array_equal(half_rows(pairs, 2), halves) and not np.array_equal(pairs, halves)


def test_config_and_tokenizer_have_the_values_of_the_file():
    fields = {
        "tokenizer.ggml.tokens": ["<|end|>", "a", "b", "ab"],
        "tokenizer.ggml.token_type": [3, 1, 1, 1],
        "tokenizer.ggml.merges": ["a b"],
        "llama.embedding_length": 8,
        "llama.feed_forward_length": 16,
        "llama.block_count": 1,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.context_length": 64,
        "llama.attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
        "llama.rope.freq_base": 100000.0,
    }
    config = config_of(fields, tied=True)
    assert config["vocab_size"] == 4 and config["rms_norm_eps"] == 1e-5 and config["tie_word_embeddings"]
    table = tokenizer_of(fields)
    assert table["model"]["vocab"] == {"<|end|>": 0, "a": 1, "b": 2, "ab": 3}
    assert [token["content"] for token in table["added_tokens"]] == ["<|end|>"]


def test_float16_is_kept():
    values = np.array([[1.5, -2.0]], np.float16)
    data = encode({"w": F16Tensor((1, 2), values.tobytes())})
    start = 8 + int.from_bytes(data[:8], "little")
    assert json.loads(data[8:start])["w"] == {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 4]}
    assert data[start:] == values.tobytes()
    with pytest.raises(ValueError, match="F16"):
        F16Tensor((3,), values.tobytes())
