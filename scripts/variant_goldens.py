"""Make ``tests/goldens/variants.json`` and ``.npz``: less common configurations of files on hubs.

    python -m scripts.variant_goldens            write the files
    python -m scripts.variant_goldens --check    compute everything again and compare with the committed files

Needs ``torch`` (CPU) and ``transformers``. Untied and tied heads, with one or both weights in the file; heads of
decoders; fields with unusual values. The files are made like those of ``scripts.architecture_goldens``. The key
``fields`` of the ``.json`` has the fields of each configuration class with their defaults.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from scripts.architecture_goldens import FAMILIES, LABELS, OUTPUTS, TEXT, TYPED, VISION
from scripts.goldens import Arrays, Goldens
from tests.cases.random_weights import values_of

GPT2 = {"vocab_size": 50, "n_positions": 20, "n_embd": 24, "n_layer": 2, "n_head": 3}
LLAMA = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 20,
}
GEMMA3 = {**LLAMA, "head_dim": 10, "sliding_window": 4, "query_pre_attn_scalar": 12}
T5 = {"vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 36, "num_layers": 2, "num_heads": 3}
BART: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 36,
    "decoder_ffn_dim": 28,
    "max_position_embeddings": 20,
}
CLIP_TEXT: dict[str, Any] = {**TEXT, "num_hidden_layers": 2, "projection_dim": 14, "eos_token_id": 49}
CLIP_VISION: dict[str, Any] = {**VISION, "image_size": 18, "projection_dim": 14}
MODEL_TYPES = {
    **{family: family.lower() for family in (*FAMILIES, "GPT2", "Llama", "Qwen2", "Qwen3", "Mistral", "T5", "Bart")},
    **{family: family.lower() for family in ("ViT", "DeiT", "CLIP")},
    "Gemma3": "gemma3_text",
    "Gemma3Text": "gemma3_text",  # the class of its fields
    "CLIPText": "clip_text_model",
    "CLIPVision": "clip_vision_model",
    "XLMRoberta": "xlm-roberta",
    "Dinov2": "dinov2",
    "Dinov2WithRegisters": "dinov2_with_registers",
}
# The weight of the logits, by family, which a checkpoint may store in addition to the embeddings.
HEADS = {
    "Bert": "cls.predictions.decoder.weight",
    "DistilBert": "vocab_projector.weight",
    "Roberta": "lm_head.decoder.weight",
    "XLMRoberta": "lm_head.decoder.weight",
    "MPNet": "lm_head.decoder.weight",
    "Electra": "generator_lm_head.weight",
    "Albert": "predictions.decoder.weight",
    "ModernBert": "decoder.weight",
    "GPT2": "lm_head.weight",
    "Llama": "lm_head.weight",
    "Qwen2": "lm_head.weight",
    "Qwen3": "lm_head.weight",
    "Mistral": "lm_head.weight",
    "Gemma3": "lm_head.weight",
    "Bart": "lm_head.weight",
    "T5": "lm_head.weight",
}


@dataclass(frozen=True)
class Variant:
    """A class, the fields of its ``config.json``, tensors stored in addition, and those that are left out."""

    kind: str
    config: dict[str, Any]
    stored: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    rows: int = 2


def variants() -> dict[str, Variant]:
    """Return all variants by name."""
    found: dict[str, Variant] = {}
    decoders: dict[str, dict[str, Any]] = {"GPT2": GPT2, "Llama": LLAMA, "Qwen2": LLAMA, "T5": T5, "Bart": BART}
    decoders |= {"Qwen3": {**LLAMA, "head_dim": 10}, "Mistral": {**LLAMA, "sliding_window": 4}, "Gemma3": GEMMA3}
    classes = {"GPT2": "LMHeadModel", **dict.fromkeys(("T5", "Bart"), "ForConditionalGeneration")}
    classes |= dict.fromkeys(("Llama", "Qwen2", "Qwen3", "Mistral", "Gemma3"), "ForCausalLM")
    for family, sizes in {**FAMILIES, **decoders}.items():
        width = sizes.get("embedding_size") or sizes.get("dim") or sizes.get("hidden_size") or 24
        head, kind = HEADS[family], family + classes.get(family, "ForMaskedLM")
        both: dict[str, tuple[int, ...]] = {head: (50, width)}
        found[f"{kind} untied"] = Variant(kind, {**sizes, "tie_word_embeddings": False}, both)
        found[f"{kind} tied, both stored"] = Variant(kind, {**sizes, "tie_word_embeddings": True}, both)
        if family in decoders:
            found[f"{kind} tied"] = Variant(kind, {**sizes, "tie_word_embeddings": True}, left_out=(head,))
            found[f"{kind} by default, both stored"] = Variant(kind, sizes, both)
    for family in ("Bert", "Roberta", "Albert", "MPNet"):
        head, kind = HEADS[family], f"{family}ForMaskedLM"
        both = {head.replace("weight", "bias"): (50,)}
        found[f"{kind} two biases"] = Variant(kind, FAMILIES[family], both)
    for family in ("GPT2", "Llama", "Qwen2", "Qwen3", "Mistral"):
        sizes = {**decoders[family], "pad_token_id": 1}
        found[f"{family}Model"] = Variant(f"{family}Model", sizes)
        for head in ("ForSequenceClassification", "ForTokenClassification"):
            found[f"{family}{head}"] = Variant(f"{family}{head}", {**sizes, **LABELS})
        found[f"{family}ForQuestionAnswering"] = Variant(f"{family}ForQuestionAnswering", sizes)
        alone = {**decoders[family], **LABELS, "pad_token_id": None}
        found[f"{family}ForSequenceClassification without padding"] = Variant(
            f"{family}ForSequenceClassification", alone, rows=1
        )
    generation, sizes = "T5ForConditionalGeneration", T5
    own = {"decoder.embed_tokens.weight": (50, 24)}
    found[f"{generation} embeddings apart"] = Variant(generation, sizes, own)
    found[f"{generation} without shared"] = Variant(
        generation,
        sizes,
        {"encoder.embed_tokens.weight": (50, 24), **own},
        left_out=("shared.weight", "lm_head.weight"),
    )
    found[f"{generation} untied, none stored"] = Variant(
        generation, {**sizes, "tie_word_embeddings": False}, left_out=("lm_head.weight",)
    )
    found[f"{generation} scaled"] = Variant(
        generation, {**sizes, "tie_word_embeddings": False, "scale_decoder_outputs": True}, {"lm_head.weight": (50, 24)}
    )
    changes: dict[str, dict[str, Any]] = {
        "gelu": {"feed_forward_proj": "gelu"},
        "gated-relu": {"feed_forward_proj": "gated-relu"},
        "act_fn": {"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu", "is_gated_act": True},
        "10 buckets": {"relative_attention_num_buckets": 10, "relative_attention_max_distance": 11},
        "far": {"relative_attention_max_distance": 2**26},
        "aliases": {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "head_dim": 8, "d_model": 99},
    }
    for name, more in changes.items():
        found[f"{generation} {name}"] = Variant(generation, {**sizes, **more})
    bert, distil = FAMILIES["Bert"], FAMILIES["DistilBert"]
    llama: dict[str, Any] = {**LLAMA}
    ropes: dict[str, dict[str, Any]] = {
        "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
        "linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
        "both": {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 3.0}},
        "theta": {"rope_theta": 77.0, "rope_scaling": None, "rope_parameters": {"partial_rotary_factor": 0.5}},
        "llama3": {
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        },
    }
    for name, more in ropes.items():
        found[f"LlamaModel {name}"] = Variant("LlamaModel", {**llama, **more})
    others: dict[str, tuple[str, dict[str, Any]]] = {
        "null": ("BertModel", {**bert, "pad_token_id": None, "type_vocab_size": 2, "layer_norm_eps": 1e-3}),
        "gelu_fast": ("BertModel", {**bert, "hidden_act": "gelu_fast"}),
        "quick_gelu": ("BertModel", {**bert, "hidden_act": "quick_gelu"}),
        "relu2": ("BertModel", {**bert, "hidden_act": "relu2", "embedding_size": 7}),
        "inert": (
            "DistilBertModel",
            {**distil, "type_vocab_size": 2, "layer_norm_eps": 0.5, "sinusoidal_pos_embds": True, "is_decoder": True},
        ),
        "aliases": ("DistilBertModel", {**distil, "hidden_size": 24, "dim": 99, "num_hidden_layers": 1}),
        "pad_token_id": ("RobertaModel", {**FAMILIES["Roberta"], "pad_token_id": 3}),
        "no pad_token_id": ("RobertaModel", {**FAMILIES["Roberta"], "pad_token_id": -1}),
        "40 buckets": ("MPNetModel", {**FAMILIES["MPNet"], "relative_attention_num_buckets": 40, "pad_token_id": 9}),
        "groups": ("AlbertModel", {**FAMILIES["Albert"], "num_hidden_layers": 5, "inner_group_num": 2}),
        "biases": ("Qwen2Model", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
        "windows": (
            "Qwen2Model",
            {**LLAMA, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        ),
    }
    for table in (others, qwen3(), mistral(), gemma3(), modernbert(), bart(), clip()):
        found |= {f"{kind} {name}".strip(): Variant(kind, config) for name, (kind, config) in table.items()}
    pooled = {"pooler_output_size": 10, "pooler_act": "relu"}
    for kind in ("ViTModel", "DeiTModel"):
        found[f"{kind} pooler"] = Variant(kind, {**VISION, "image_size": [30, 30], **pooled})
    found["Dinov2Model inert"] = Variant("Dinov2Model", {**VISION, "num_register_tokens": 3, **pooled})
    own = {"decoder.embed_tokens.weight": (50, 24)}
    generation = "BartForConditionalGeneration"
    apart = {f"model.{name}": shape for name, shape in own.items()}
    found[f"{generation} embeddings apart"] = Variant(generation, BART, apart)
    found[f"{generation} without a bias"] = Variant(generation, BART, left_out=("final_logits_bias",))
    return found


Others: TypeAlias = "dict[str, tuple[str, dict[str, Any]]]"


def qwen3() -> Others:
    """Windows in some layers, by their number or named; biases; heads of another size than usual."""
    window: dict[str, Any] = {**LLAMA, "head_dim": 10, "use_sliding_window": True, "sliding_window": 4}
    kinds = ["sliding_attention", "full_attention"]
    return {
        "windows": ("Qwen3Model", {**window, "max_window_layers": 1}),
        "no windows": ("Qwen3Model", {**window, "max_window_layers": 0, "use_sliding_window": False}),
        "named windows": ("Qwen3Model", {**window, "layer_types": kinds, "max_window_layers": 9}),
        "biases": ("Qwen3Model", {**LLAMA, "head_dim": 8, "attention_bias": True, "rms_norm_eps": 0.1}),
    }


def mistral() -> Others:
    """A window of every length, and none."""
    return {
        "window": ("MistralModel", {**LLAMA, "sliding_window": 3, "num_key_value_heads": 3, "head_dim": 10}),
        "one token": ("MistralModel", {**LLAMA, "sliding_window": 1}),
        "no window": ("MistralModel", {**LLAMA, "sliding_window": None, "layer_types": ["full_attention"] * 2}),
        "wide": ("MistralModel", {**LLAMA, "hidden_act": "gelu", "rms_norm_eps": 0.1}),
    }


def gemma3() -> Others:
    """Kinds of layers by their number or named; fields of older files; heads; logits that are limited."""
    sizes, heads = GEMMA3, {**GEMMA3, "pad_token_id": 1}
    scaling = {"rope_type": "linear", "factor": 4.0}
    old = {"sliding_window_pattern": 2, "rope_theta": 70.0, "rope_local_base_freq": 9.0, "rope_scaling": scaling}
    ropes = {"sliding_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 11.0}, "full_attention": None}
    kinds = ["full_attention", "sliding_attention"]
    other = {"hidden_activation": "relu", "attention_bias": True, "rms_norm_eps": 0.1, "query_pre_attn_scalar": 3}
    return {
        "": ("Gemma3TextModel", heads),
        "old": ("Gemma3TextModel", {**sizes, **old, "num_key_value_heads": 3}),
        "ropes": ("Gemma3TextModel", {**sizes, "layer_types": kinds, "rope_parameters": ropes}),
        "other": ("Gemma3TextModel", {**sizes, **other}),
        "limited": ("Gemma3ForCausalLM", {**sizes, "final_logit_softcapping": 3.0}),
        "labels": ("Gemma3TextForSequenceClassification", {**heads, **LABELS}),
    }


def modernbert() -> Others:
    """Every bias and activation; the fields of older files; layers by name; texts that are pooled by their mean."""
    sizes = FAMILIES["ModernBert"]
    biases = {f"{part}_bias": True for part in ("norm", "attention", "mlp", "classifier")}
    old = {"global_rope_theta": 60.0, "local_rope_theta": 7.0, "global_attn_every_n_layers": 2}
    ropes = {"sliding_attention": {"rope_type": "default", "rope_theta": 9.0}}
    ropes["full_attention"] = {"rope_type": "linear", "factor": 3.0, "rope_theta": 50.0}
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    pooled = {**sizes, **LABELS, "classifier_pooling": "mean"}
    return {
        "biases": ("ModernBertForMaskedLM", {**sizes, **biases, "decoder_bias": False, "norm_eps": 0.1}),
        "activations": (
            "ModernBertForMaskedLM",
            {**sizes, "hidden_activation": "relu", "classifier_activation": "silu", "sparse_prediction": True},
        ),
        "old": ("ModernBertModel", {**sizes, **old}),
        "ropes": ("ModernBertModel", {**sizes, "layer_types": kinds, "rope_parameters": ropes, "local_attention": 5}),
        "mean": ("ModernBertForSequenceClassification", pooled),
        "first": ("ModernBertForSequenceClassification", {**pooled, "classifier_pooling": "cls", **biases}),
    }


def bart() -> Others:
    """The bare model, the heads, and a scaled table."""
    aliases = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "d_model": 99}
    other = {"scale_embedding": True, "activation_function": "relu", "decoder_start_token_id": 5}
    return {
        "": ("BartModel", BART),
        "aliases": ("BartModel", {**BART, **aliases}),
        "shifted": ("BartModel", {**BART, **other}),
        "labels": ("BartForSequenceClassification", {**BART, **LABELS, "eos_token_id": 2}),
        "three labels": ("BartForSequenceClassification", {**BART, **other, "eos_token_id": 9}),
        "question": ("BartForQuestionAnswering", BART),
        "scaled": ("BartForConditionalGeneration", {**BART, **other}),
    }


def clip() -> Others:
    """Both towers together and each alone; the end of a text as in files before 2023, and as today."""
    both = {"text_config": CLIP_TEXT, "vision_config": CLIP_VISION, "projection_dim": 10}
    old = {"text_config": {**CLIP_TEXT, "eos_token_id": 2}, "vision_config": {**CLIP_VISION, "hidden_act": "gelu"}}
    legacy = {"text_config_dict": CLIP_TEXT, "vision_config_dict": CLIP_VISION, "text_config": {"hidden_size": 7}}
    return {
        "": ("CLIPModel", both),
        "old": ("CLIPModel", {**old, "projection_dim": 24, "logit_scale_init_value": 1.0}),
        "dicts": ("CLIPModel", {**legacy, "projection_dim": 10}),
        "text": ("CLIPTextModel", CLIP_TEXT),
        "old text": ("CLIPTextModel", {**CLIP_TEXT, "eos_token_id": 2, "hidden_act": "gelu", "layer_norm_eps": 0.1}),
        "text features": ("CLIPTextModelWithProjection", CLIP_TEXT),
        "image": ("CLIPVisionModel", CLIP_VISION),
        "other image": ("CLIPVisionModel", {**CLIP_VISION, "hidden_act": "gelu", "layer_norm_eps": 0.1}),
        "image features": ("CLIPVisionModelWithProjection", CLIP_VISION),
        "labels": ("CLIPForImageClassification", {**both, **LABELS}),
    }


def main() -> int:
    """Write or check; the exit status is 1 where something differs."""
    made = Goldens.from_arguments(__doc__)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    table: dict[str, Any] = {"fields": {MODEL_TYPES[family]: fields_of(family) for family in MODEL_TYPES}}
    arrays: Arrays = {}
    with torch.no_grad():
        for name, variant in variants().items():
            table[name] = outputs(name, variant, arrays)
    made.json("variants.json", table)
    made.arrays("variants.npz", arrays)
    return made.report()


def fields_of(family: str) -> dict[str, Any]:
    """Return the fields of a configuration class with their defaults."""
    transformers = importlib.import_module("transformers")
    config = getattr(transformers, f"{family}Config")()
    names = sorted(each.name for each in dataclasses.fields(config) if not each.name.startswith("_"))
    names = [name for name in names if not isinstance(getattr(config, name), transformers.PreTrainedConfig)]
    named = {name: getattr(config, name) for name in names}
    return {name: value for name, value in named.items() if name not in ("transformers_version", "dtype")}


def outputs(
    name: str, variant: Variant, arrays: Arrays, values: Callable[[str, tuple[int, ...]], Any] = values_of
) -> dict[str, Any]:
    """Add the arrays of one variant to ``arrays``; gives its config and the shapes of its tensors.

    ``values`` returns the values of the tensor of a name and shape.
    """
    torch = importlib.import_module("torch")
    config, shapes, model = model_of(variant, values)
    inputs = inputs_of(name, variant)
    found = model(**{key: torch.from_numpy(array) for key, array in inputs.items()})
    arrays |= {f"{name}.{key}": array for key, array in inputs.items()}
    arrays |= {f"{name}.{key}": found[key].numpy() for key in OUTPUTS if found.get(key) is not None}
    return {"config": config, "tensors": {key: list(shape) for key, shape in shapes.items()}}


def family_of(variant: Variant) -> str:
    """Return the family of the variant's class."""
    return max((name for name in MODEL_TYPES if variant.kind.startswith(name)), key=len)


def model_of(
    variant: Variant, values: Callable[[str, tuple[int, ...]], Any] = values_of
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]], Any]:
    """Make the model of a variant; gives its config, the shapes of its tensors, and the model of `transformers`."""
    transformers = importlib.import_module("transformers")
    files = importlib.import_module("safetensors.numpy")
    family = family_of(variant)
    config = {"model_type": MODEL_TYPES[family], "architectures": [variant.kind], **variant.config}
    config["architectures"] = [variant.kind]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        kind = getattr(transformers, variant.kind)
        kind(kind.config_class.from_pretrained(folder)).save_pretrained(folder)
        (Path(folder) / "config.json").write_text(json.dumps(config))
        weights = Path(folder) / "model.safetensors"
        shapes = {key: array.shape for key, array in files.load_file(weights).items()} | dict(variant.stored)
        shapes = {key: shape for key, shape in sorted(shapes.items()) if key not in variant.left_out}
        files.save_file({key: values(key, shape) for key, shape in shapes.items()}, weights, {"format": "pt"})
        model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    return config, shapes, model


def inputs_of(name: str, variant: Variant) -> dict[str, Any]:
    """Make the inputs of a variant."""
    family = family_of(variant)
    rng = np.random.default_rng(len(name))
    inputs: dict[str, Any] = {}
    if family in ("ViT", "DeiT", "Dinov2", "CLIPVision", "CLIP"):
        side = 18 if family.startswith("CLIP") else 30
        inputs["pixel_values"] = rng.standard_normal((2, 3, side, side)).astype(np.float32)
    if family not in ("ViT", "DeiT", "Dinov2", "CLIPVision") and "Image" not in variant.kind:
        mask = np.array([[1] * 9, [1] * 5 + [0] * 4])[: variant.rows]
        padding = variant.config.get("pad_token_id")
        ids = np.where(mask == 1, rng.integers(4, 50, mask.shape), padding if padding and padding > 0 else 1)
        inputs |= {"input_ids": ids.astype(np.int32), "attention_mask": mask.astype(np.int32)}
        if family in TYPED:
            inputs["token_type_ids"] = (rng.integers(0, 2, mask.shape) * mask).astype(np.int32)
        if family in ("CLIP", "CLIPText"):  # an end in the text, and after the shorter one
            inputs["input_ids"][0, 7] = inputs["input_ids"][1, 4:] = 49
        if variant.kind == "BartForSequenceClassification":  # twice, as a pair has it
            inputs["input_ids"][inputs["input_ids"] == variant.config["eos_token_id"]] = 4
            inputs["input_ids"][:, 2] = inputs["input_ids"][0, 7] = inputs["input_ids"][1, 4] = variant.config[
                "eos_token_id"
            ]
        if family == "T5" or name == "BartForConditionalGeneration tied":
            inputs["decoder_input_ids"] = rng.integers(0, 50, (2, 7)).astype(np.int32)
    return inputs


if __name__ == "__main__":
    raise SystemExit(main())
