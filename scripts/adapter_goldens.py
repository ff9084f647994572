"""Make ``tests/goldens/adapters.json`` and ``.npz``: models of ``transformers`` with LoRA adapters of ``peft``.

    python -m scripts.adapter_goldens            write the files
    python -m scripts.adapter_goldens --check    compute everything again and compare with the committed files

Needs ``torch`` (CPU), ``transformers`` and ``peft``. An adapter is made and saved by ``peft``; its values are made from
the names of its tensors, and it is loaded again. The ``.json`` has the configurations and the shapes of the tensors of
the base and of the adapter. Greedy tokens of a decoder are an output, too ("generated").
"""

from __future__ import annotations

import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.architecture_goldens import FAMILIES, LABELS, OUTPUTS, TEXT, VISION
from scripts.goldens import MINILM, Arrays, Goldens
from scripts.paths import MODELS
from scripts.variant_goldens import (
    BART,
    CLIP_TEXT,
    CLIP_VISION,
    GPT2,
    LLAMA,
    T5,
    Variant,
    inputs_of,
    model_of,
)
from tests.cases.random_weights import values_of

EFFECT = 1e-2  # least relative effect of an adapter on an output, a hundred times the tolerance of the tests
NEW_TOKENS = 6
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}  # whole blocks of 32
VALUES = ["query", "value"]
PROJECTIONS = ["q_proj", "v_proj"]


@dataclass(frozen=True)
class Case:
    """A base model, and the options of ``peft.LoraConfig``."""

    base: Variant
    options: dict[str, Any]


CASES = {
    "bert": Case(Variant("BertModel", TEXT), {"target_modules": VALUES}),
    "bert other": Case(Variant("BertModel", TEXT), {"target_modules": [*VALUES, "dense"], "r": 3, "use_rslora": True}),
    "bert int8": Case(Variant("BertModel", {**TEXT, **SIZES}), {"target_modules": VALUES}),
    "bert labels": Case(
        Variant("BertForSequenceClassification", {**TEXT, **LABELS}),
        {"target_modules": VALUES, "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"},
    ),
    "bert other labels": Case(
        Variant("BertForSequenceClassification", {**TEXT, **LABELS}),
        {"target_modules": ["key"], "modules_to_save": ["classifier", "pooler"], "lora_alpha": 3},
    ),
    "bert words": Case(
        Variant("BertForMaskedLM", TEXT), {"target_modules": ["word_embeddings", "token_type_embeddings", "query"]}
    ),
    "bert positions": Case(Variant("BertModel", TEXT), {"target_modules": ["position_embeddings"]}),
    "bert biases": Case(Variant("BertModel", TEXT), {"target_modules": VALUES, "bias": "all"}),
    "bert own biases": Case(Variant("BertModel", TEXT), {"target_modules": VALUES, "bias": "lora_only"}),
    "bert patterns": Case(
        Variant("BertModel", TEXT),
        {
            "target_modules": r".*\.(query|output\.dense)",
            "exclude_modules": r".*layer\.1\.attention\.output\.dense",
            "rank_pattern": {r"layer\.[0]\..*query": 2, "dense": 5},
            "alpha_pattern": {r"layer\.1\.attention\.self\.query": 3, "output.dense": 2.5},
        },
    ),
    "bert layers": Case(
        Variant("BertModel", TEXT), {"target_modules": VALUES, "layers_to_transform": [1], "layers_pattern": "layer"}
    ),
    "bert one layer": Case(Variant("BertModel", TEXT), {"target_modules": VALUES, "layers_to_transform": 1}),
    "distilbert": Case(Variant("DistilBertForMaskedLM", FAMILIES["DistilBert"]), {"target_modules": ["q_lin", "lin2"]}),
    "albert": Case(Variant("AlbertModel", FAMILIES["Albert"]), {"target_modules": ["query", "ffn"]}),
    "mpnet": Case(Variant("MPNetModel", TEXT), {"target_modules": ["q", "relative_attention_bias"]}),
    "modernbert": Case(
        Variant("ModernBertModel", {**TEXT, "num_hidden_layers": 3, "local_attention": 8, "pad_token_id": 1}),
        {"target_modules": ["Wqkv", "Wo"]},
    ),
    "llama": Case(Variant("LlamaForCausalLM", LLAMA), {"target_modules": PROJECTIONS, "task_type": "CAUSAL_LM"}),
    "llama other": Case(Variant("LlamaForCausalLM", LLAMA), {"target_modules": "all-linear", "r": 2, "lora_alpha": 3}),
    "llama words": Case(
        Variant("LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True}),
        {"target_modules": ["embed_tokens", "k_proj"]},
    ),
    "llama head": Case(
        Variant("LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True}), {"target_modules": ["lm_head"]}
    ),
    "llama saved": Case(
        Variant("LlamaForCausalLM", LLAMA),
        {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ),
    "llama int8": Case(
        Variant("LlamaForCausalLM", {**LLAMA, **SIZES, "num_key_value_heads": 2}),
        {"target_modules": [*PROJECTIONS, "gate_proj", "down_proj"]},
    ),
    "qwen3": Case(Variant("Qwen3ForCausalLM", {**LLAMA, "head_dim": 8}), {"target_modules": PROJECTIONS}),
    "gpt2": Case(
        Variant("GPT2LMHeadModel", GPT2),
        {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "modules_to_save": ["ln_f"]},
    ),
    "t5": Case(
        Variant("T5ForConditionalGeneration", {**T5, "decoder_start_token_id": 0}), {"target_modules": ["q", "v", "wo"]}
    ),
    "bart": Case(
        Variant("BartForConditionalGeneration", {**BART, "decoder_start_token_id": 2}), {"target_modules": PROJECTIONS}
    ),
    "vit": Case(
        Variant("ViTForImageClassification", {**VISION, **LABELS}),
        {"target_modules": [*PROJECTIONS, "projection"], "modules_to_save": ["classifier"]},
    ),
    "dinov2": Case(Variant("Dinov2Model", VISION), {"target_modules": ["q_proj", "o_proj", "fc1"]}),
    "clip": Case(
        Variant("CLIPModel", {"text_config": CLIP_TEXT, "vision_config": CLIP_VISION, "projection_dim": 10}),
        {"target_modules": [*PROJECTIONS, "text_projection"]},
    ),
}


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    table: dict[str, Any] = {}
    arrays: Arrays = {}
    with torch.no_grad():
        for name, case in CASES.items():
            inputs = inputs_of(name, case.base)
            config, shapes, base = model_of(case.base)
            before = base(**_tensors(inputs))
            settings, own, model = adapted(base, lambda base=case.base: model_of(base)[2], case.options)
            tensors = {key: list(shape) for key, shape in shapes.items()}
            table[name] = {"config": config, "tensors": tensors, "adapter": settings, "adapter_tensors": own}
            found = model(**_tensors(inputs))
            arrays |= {f"{name}.{key}": array for key, array in inputs.items()}
            outputs = {key: found[key].numpy() for key in OUTPUTS if found.get(key) is not None}
            if not any(_differs(array, before[key].numpy()) for key, array in outputs.items()):
                raise SystemExit(f"{name}: the adapter changes the outputs by less than {EFFECT}")
            arrays |= {f"{name}.{key}": array for key, array in outputs.items()}
            if case.base.kind.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
                model.generation_config.eos_token_id = None
                tokens = model.generate(
                    input_ids=torch.from_numpy(inputs["input_ids"][:1].astype(np.int64)),
                    attention_mask=torch.from_numpy(inputs["attention_mask"][:1].astype(np.int64)),
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    pad_token_id=0,
                )
                arrays[f"{name}.generated"] = tokens.numpy().astype(np.int32)
        table["minilm"] = minilm(arrays)
    made.json("adapters.json", table)
    made.arrays("adapters.npz", arrays)
    return made.report()


def adapted(base: Any, again: Any, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[int]], Any]:
    """Save an adapter of ``base``, and load it for the model that ``again`` returns.

    Returns ``adapter_config.json``, the shapes of the tensors, and the model.
    """
    peft = importlib.import_module("peft")
    files = importlib.import_module("safetensors.numpy")
    with tempfile.TemporaryDirectory() as folder:
        peft.get_peft_model(base, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **options})).save_pretrained(folder)
        weights = Path(folder) / "adapter_model.safetensors"
        shapes = {key: array.shape for key, array in sorted(files.load_file(weights).items())}
        files.save_file({key: values_of(key, shape) for key, shape in shapes.items()}, weights, {"format": "pt"})
        config = json.loads((Path(folder) / "adapter_config.json").read_text())
        model = peft.PeftModel.from_pretrained(again(), folder).eval()
    config = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    return {**config, "base_model_name_or_path": None}, {key: list(shape) for key, shape in shapes.items()}, model


def minilm(arrays: Arrays) -> dict[str, Any]:
    """Add the outputs of all-MiniLM-L6-v2 with an adapter of rank 16."""
    transformers = importlib.import_module("transformers")

    def base() -> Any:
        return transformers.BertModel.from_pretrained(MODELS / MINILM, attn_implementation="eager").eval()

    options = {"target_modules": VALUES, "r": 16, "lora_alpha": 1}
    settings, shapes, model = adapted(base(), base, options)
    inputs = {
        "input_ids": np.array([[101, 1996, 4937, 25126, 1012, 102], [101, 2009, 15349, 102, 0, 0]], np.int32),
        "attention_mask": np.array([[1] * 6, [1] * 4 + [0] * 2], np.int32),
    }
    found = model(**_tensors(inputs))
    arrays |= {f"minilm.{key}": array for key, array in inputs.items()}
    arrays["minilm.last_hidden_state"] = found.last_hidden_state.numpy()
    return {"adapter": settings, "adapter_tensors": shapes}


def _tensors(inputs: dict[str, Any]) -> dict[str, Any]:
    torch = importlib.import_module("torch")
    return {key: torch.from_numpy(array) for key, array in inputs.items()}


def _differs(array: Any, other: Any) -> bool:
    return bool(np.abs(array - other).max() > EFFECT * np.abs(array).max())


if __name__ == "__main__":
    raise SystemExit(main())
