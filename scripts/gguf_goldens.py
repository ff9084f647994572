"""Facts of GGUF files, stated by the package `gguf`: types of tensors, names of tensors, and a small file.

    python -m scripts.gguf_goldens [--check]

It is not installed by set-up: `pip install -r scripts/converter.lock` into another environment has it. The file
``tests/goldens/gguf.json`` has the number of each type that is read, the elements and bytes of its blocks, the name of
each tensor of `transformers` by architecture, and a file that ``GGUFWriter`` wrote, in base64, with what it holds.
"""

from __future__ import annotations

import importlib
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from scripts.goldens import Goldens

TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL")
ATTENTION = [f"self_attn.{part}_proj" for part in "qkvo"]
LAYER = [*ATTENTION, *(f"mlp.{part}_proj" for part in ("gate", "up", "down"))]
NORMS = ["input_layernorm", "post_attention_layernorm"]
GEMMA3_NORMS = [*NORMS, *(f"{end}_feedforward_layernorm" for end in ("pre", "post"))]
DECODER = ["model.embed_tokens", "model.norm", "lm_head", *(f"model.layers.{{i}}.{name}" for name in LAYER + NORMS)]
QK_NORMS = [f"model.layers.{{i}}.self_attn.{part}_norm" for part in "qk"]
GPT2 = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
BERT = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
BERT += ["attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
EMBEDDINGS = ["word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"]
NAMES = {
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": [*DECODER, *QK_NORMS],
    "gemma3": [*DECODER, *QK_NORMS, *(f"model.layers.{{i}}.{name}" for name in GEMMA3_NORMS)],
    "gpt2": [f"transformer.{name}" for name in ("wte", "wpe", "ln_f", *(f"h.{{i}}.{name}" for name in GPT2))],
    "bert": [*(f"embeddings.{name}" for name in EMBEDDINGS), *(f"encoder.layer.{{i}}.{name}" for name in BERT)],
}
LAYERS = 2


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    gguf: Any = importlib.import_module("gguf")
    kinds = {name: gguf.GGMLQuantizationType[name] for name in TYPES}
    names: dict[str, dict[str, str]] = {}
    for model, patterns in NAMES.items():
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[model.upper()], LAYERS)
        names[model] = {}
        for name in dict.fromkeys(pattern.format(i=i) for pattern in patterns for i in range(LAYERS)):
            for end in (".weight", ".bias"):
                found = table.get_name(name + end, try_suffixes=(".weight", ".bias"))
                if found is None:
                    raise SystemExit(f"{model}: gguf has no name for {name}")
                names[model][name + end] = found
    made.json(
        "gguf.json",
        {
            "types": {name: int(kind) for name, kind in kinds.items()},
            "sizes": {name: list(gguf.GGML_QUANT_SIZES[kind]) for name, kind in kinds.items()},
            "names": names,
            "file": written(gguf),
        },
    )
    return made.report()


def written(gguf: Any) -> dict[str, Any]:
    """Write a file with values and tensors of several types, and return it with them."""
    rng = np.random.default_rng(0)
    q6 = rng.integers(0, 256, (3, 210), np.uint8)
    tensors: dict[str, np.ndarray[Any, Any]] = {"a.weight": rng.normal(size=(2, 5)).astype(np.float32)}
    tensors["b"] = np.arange(7, dtype=np.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_string("a.string", "é☃")
        writer.add_uint64("a.long", 2**63)
        writer.add_int32("a.negative", -3)
        writer.add_float64("a.double", 0.1)
        writer.add_bool("a.flag", True)
        writer.add_array("some.strings", ["x", "", "yz"])
        writer.add_array("some.numbers", [1, -2, 3])
        for name, array in tensors.items():
            writer.add_tensor(name, array)
        writer.add_tensor("c.weight", q6, raw_dtype=gguf.GGMLQuantizationType.Q6_K)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        raw = path.read_bytes()
    held = {name: [array.dtype.name, list(array.shape), b64(array)] for name, array in tensors.items()}
    return {"bytes": b64encode(raw).decode(), "tensors": {**held, "c.weight": ["Q6_K", [3, 256], b64(q6)]}}


def b64(array: np.ndarray[Any, Any]) -> str:
    """Return the array's bytes."""
    return b64encode(array.tobytes()).decode()


if __name__ == "__main__":
    raise SystemExit(main())
