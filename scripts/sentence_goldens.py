"""Make ``tests/goldens/sentences.json`` and ``.npz``: results of sentence-transformers for tiny folders.

    python -m scripts.sentence_goldens            write the files
    python -m scripts.sentence_goldens --check    compute everything again and compare with the committed files

Needs ``torch`` (CPU), ``transformers`` and ``sentence-transformers``. Each case is the encoder of
``tests/goldens/variants.json`` called "BertModel null" with the tokenizer of ``tests/goldens/tiny-bert``, and other
files around them; weights are made from their names.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from scripts.goldens import GOLDENS, Arrays, Goldens
from tests.cases.sentences import TEXTS, files_of_case

POOLING = "1_Pooling/config.json"
DENSE = {"in_features": 24, "out_features": 24, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
PROMPTS = {"prompts": {"query": "the dog: ", "document": "a cat ", "none": ""}, "default_prompt_name": "query"}


def cases() -> dict[str, dict[str, Any]]:
    """Return, by name, the JSON files of a folder besides those of the model, and options of the call as ``call``."""
    found: dict[str, dict[str, Any]] = {}
    for mode in ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"):
        found[mode] = {POOLING: {"word_embedding_dimension": 24, f"pooling_mode_{mode}": True}}
    found["two flags"] = {
        POOLING: {"word_embedding_dimension": 24, "pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}
    }
    found["two modes"] = {POOLING: {"embedding_dimension": 24, "pooling_mode": ["mean", "lasttoken"]}}
    mean = {POOLING: {"embedding_dimension": 24, "pooling_mode": "mean"}}
    dense: dict[str, dict[str, Any]] = {
        "dense": {},
        "dense without a bias": {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"},
        "dense with gelu": {"out_features": 10, "activation_function": "torch.nn.modules.activation.GELU"},
        "dense and residual": {"use_residual": True},
        "dense and projected residual": {"use_residual": True, "out_features": 7},
    }
    for name, more in dense.items():
        found[name] = {**mean, "2_Dense/config.json": {**DENSE, **more}}
    found["dense, then normalized"] = {**mean, "2_Dense/config.json": DENSE, "3_Normalize": {}}
    found["normalized, then dense"] = {**mean, "2_Normalize": {}, "3_Dense/config.json": DENSE}
    found["dropout"] = {**mean, "2_Dropout/config.json": {"dropout": 0.5}}
    use = "config_sentence_transformers.json"
    found["default prompt"] = {**mean, use: PROMPTS}
    found["prompt by name"] = {**mean, use: PROMPTS, "call": {"prompt_name": "document"}}
    found["empty prompt"] = {**mean, use: PROMPTS, "call": {"prompt_name": "none"}}
    found["prompt"] = {**mean, use: PROMPTS, "call": {"prompt": "on the mat "}}
    for mode in ("mean", "cls", "weightedmean", "max", "lasttoken"):
        apart = {POOLING: {"embedding_dimension": 24, "pooling_mode": mode, "include_prompt": False}}
        found[f"prompt that is not pooled, {mode}"] = {**apart, use: PROMPTS}
    found["truncated"] = {**mean, "2_Normalize": {}, use: {"truncate_dim": 9}}
    found["truncated by the call"] = {**mean, use: {"truncate_dim": 9}, "call": {"truncate_dim": 5}}
    for similarity in ("cosine", "dot", "euclidean", "manhattan"):
        found[similarity] = {**mean, use: {"similarity_fn_name": similarity, "prompts": {"query": None}}}
    short = json.loads((GOLDENS / "tiny-bert" / "tokenizer_config.json").read_text())
    found["longer than the tokenizer says"] = {
        **mean,
        "sentence_bert_config.json": {"max_seq_length": 9},
        "tokenizer_config.json": {**short, "model_max_length": 5},
    }
    found["short"] = {**mean, "sentence_bert_config.json": {"max_seq_length": 6, "do_lower_case": True}}
    return found


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    importlib.import_module("torch").set_num_threads(1)
    kind = importlib.import_module("sentence_transformers").SentenceTransformer
    arrays: Arrays = {}
    for name, case in cases().items():
        with tempfile.TemporaryDirectory() as folder:
            for file, data in files_of_case(str(GOLDENS), case).items():
                (Path(folder) / file).parent.mkdir(exist_ok=True)
                (Path(folder) / file).write_bytes(data)
            model = kind(folder, device="cpu")
            vectors = model.encode(TEXTS, batch_size=3, **case.get("call", {}))
            arrays[f"{name}.vectors"] = np.asarray(vectors, np.float32)
            arrays[f"{name}.similarity"] = model.similarity(vectors, vectors).numpy().astype(np.float32)
    made.json("sentences.json", cases())
    made.arrays("sentences.npz", arrays)
    return made.report()


if __name__ == "__main__":
    raise SystemExit(main())
