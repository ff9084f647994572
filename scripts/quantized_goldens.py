"""Make ``tests/goldens/quantized.json`` and ``.npz``: models of ``transformers`` with the numbers of Q8_0 weights.

    python -m scripts.quantized_goldens            write the files
    python -m scripts.quantized_goldens --check    compute everything again and compare with the committed files

Needs ``torch`` (CPU), ``transformers`` and ``gguf``, which quantises each matrix and widens it again. The files are
made like those of ``scripts.variant_goldens``; the ``.json`` has the shapes of the tensors, whose values before
quantisation are made from their names.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from scripts.architecture_goldens import TEXT
from scripts.goldens import Arrays, Goldens
from scripts.variant_goldens import BART, CLIP_TEXT, CLIP_VISION, LLAMA, Variant, outputs
from tests.cases.random_weights import values_of

EFFECT = 1e-3  # least relative effect of quantisation on an output, ten times the tolerance of the tests
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}  # whole blocks of 32
DECODER = {**LLAMA, **SIZES, "num_key_value_heads": 2}
STACKS = {f"{stack}_attention_heads": 4 for stack in ("encoder", "decoder")}
VARIANTS = {
    "qwen3": Variant("Qwen3ForCausalLM", {**DECODER, "head_dim": 32}),
    "mistral": Variant("MistralForCausalLM", {**DECODER, "sliding_window": 4}),
    "modernbert": Variant(
        "ModernBertForMaskedLM", {**TEXT, **SIZES, "num_hidden_layers": 3, "local_attention": 8, "pad_token_id": 1}
    ),
    "bart": Variant(
        "BartForConditionalGeneration",
        {**BART, **STACKS, "d_model": 64, "encoder_ffn_dim": 96, "decoder_ffn_dim": 64},
    ),
    "clip": Variant(
        "CLIPModel",
        {"text_config": {**CLIP_TEXT, **SIZES}, "vision_config": {**CLIP_VISION, **SIZES}, "projection_dim": 10},
    ),
}


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    table: dict[str, Any] = {}
    arrays: Arrays = {}
    dense: Arrays = {}
    with torch.no_grad():
        for name, variant in VARIANTS.items():
            table[name] = outputs(name, variant, arrays, widened)
            outputs(name, variant, dense)
    for name, array in arrays.items():
        is_input = name.endswith(("input_ids", "attention_mask", "pixel_values"))
        if not is_input and np.abs(array - dense[name]).max() < EFFECT * np.abs(array).max():
            raise SystemExit(f"{name}: quantisation changes it by less than {EFFECT}")
    made.json("quantized.json", table)
    made.arrays("quantized.npz", arrays)
    return made.report()


def widened(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return the values of a tensor; matrices and tables of words as Q8_0 has them, if their rows are whole blocks."""
    values = values_of(name, shape)
    if len(shape) != 2 or shape[1] % 32 or "position" in name or name == "final_logits_bias":
        return values
    quants, form = (importlib.import_module(module) for module in ("gguf.quants", "gguf"))
    kind = form.GGMLQuantizationType.Q8_0
    numbers: np.ndarray[Any, Any] = quants.dequantize(quants.quantize(values, kind), kind)
    return np.ascontiguousarray(numbers, np.float32)


if __name__ == "__main__":
    raise SystemExit(main())
