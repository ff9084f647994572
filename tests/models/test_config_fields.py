"""Fields of the configuration classes of `transformers`: each is read, refused by name, or known to be inert."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from scripts import paths
from tensorcommons.errors import InvalidWeights, UnsupportedModel
from tensorcommons.models import bart, bert, gemma3, modernbert, registry
from tensorcommons.models.checkpoint import Checkpoint
from tensorcommons.models.registry import FAMILIES
from tensorcommons.models.rope import Rope

FIELDS: dict[str, dict[str, Any]] = json.loads((paths.ROOT / "tests/goldens/variants.json").read_text())["fields"]
# Read by other parts: the loader, the labels, the pipelines, generation, the tokenizer.
ELSEWHERE = {
    *("architectures", "id2label", "label2id", "problem_type", "is_encoder_decoder"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "forced_eos_token_id"),
}
#: Dropout and initial values affect training only; the others select the returned values or the implementation.
INERT = {
    *("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout", "dropout"),
    *("classifier_dropout_prob", "drop_path_rate", "dropout_rate", "embd_pdrop", "hidden_dropout_prob", "qa_dropout"),
    *("resid_pdrop", "seq_classif_dropout", "initializer_factor", "initializer_range", "layerscale_value"),
    *("chunk_size_feed_forward", "output_hidden_states", "return_dict", "use_cache", "reorder_and_upcast_attn"),
    *("pretraining_tp", "sinusoidal_pos_embds", "embedding_dropout", "mlp_dropout", "initializer_cutoff_factor"),
    *("deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index", "activation_dropout", "init_std"),
    *("encoder_layerdrop", "decoder_layerdrop", "logit_scale_init_value"),
}
#: Fields of classes that are refused as a whole (multiple choice, masked images, backbones), and of T5's two stacks.
OTHER_CLASSES = {
    *("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout", "summary_first_dropout"),
    *("summary_proj_to_labels", "encoder_stride", "apply_layernorm", "reshape_hidden_states", "use_mask_token"),
}
REFUSED: dict[str, dict[str, Any]] = {
    **{
        kind: {"is_decoder": True, "add_cross_attention": True}
        for kind in ("bert", "roberta", "xlm-roberta", "electra")
    },
    "gpt2": {"add_cross_attention": True},
    "gemma3_text": {"attn_logit_softcapping": 50.0, "use_bidirectional_attention": True},
    "bart": {"is_decoder": True, "is_encoder_decoder": False},
}
# Any of these changes the result if it differs from the usual value.
EVERYWHERE: dict[str, Any] = {
    "quantization_config": {"quant_method": "gptq"},
    "pruned_heads": {"0": [1]},
    "per_layer_config": {"0": {"hidden_size": 8}},
}


#: Fields of attention to a window of tokens, which are not in the configuration's class.
_QWEN = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
WINDOWS: dict[str, dict[str, Any]] = {
    "qwen2": _QWEN,
    "qwen3": _QWEN,
    "mistral": {"sliding_window": 4096},
    "gemma3_text": {"sliding_window": 4096},
}


def build(model_type: str, **config: Any) -> Any:
    return FAMILIES[model_type].build(Checkpoint({"model_type": model_type, **config}, "config.json"))


def read_by(model_type: str) -> dict[str, Any]:
    """Return the fields that a model of that type reads, with their defaults."""
    config = build(model_type).config
    spelled = {
        "distilbert": bert.DISTILBERT_SPELLED,
        "modernbert": modernbert.SPELLED,
        "gemma3_text": gemma3.SPELLED,
    }.get(model_type, {})
    values = {spelled.get(each.name, each.name): getattr(config, each.name) for each in fields(config)}
    if model_type == "albert":
        values |= {each.name: each.default for each in fields(bert.Groups)}
    if model_type == "mpnet":
        values |= {each.name: each.default for each in fields(bert.Buckets)}
    if model_type == "bart":
        values |= {each.name: each.default for each in fields(bart.EndToken)}
    return {"projection_dim": values["projection_dim"]} if model_type == "clip" else values


@pytest.mark.parametrize("model_type", FIELDS)
def test_defaults_are_those_of_transformers(model_type):
    ours = read_by(model_type)
    reference = FIELDS[model_type]
    zero = {"n_inner", "final_logit_softcapping"}  # replaced by their meaning
    both = {name for name in ours.keys() & reference.keys() if name not in zero}
    assert len(both) > 5 or model_type == "clip"  # its fields are those of its two towers
    for name in both:
        if model_type in ("vit", "deit") and name == "pooler_output_size":
            continue  # 0 is hidden_size
        assert ours[name] == reference[name], name
    if model_type in ("llama", "mistral", "qwen2", "qwen3"):
        assert Rope() == Rope.of(Checkpoint({"model_type": model_type}, "f"))
        assert reference["rope_parameters"] == {"rope_theta": Rope().theta, "rope_type": Rope().type}


@pytest.mark.parametrize("model_type", FIELDS)
def test_every_field_is_read_refused_or_inert(model_type):
    refused = REFUSED.get(model_type, {})
    known = {*read_by(model_type), *ELSEWHERE, *INERT, *OTHER_CLASSES, *refused}
    known |= {"rope_parameters", *WINDOWS.get(model_type, {})}
    known |= {"layer_types"} if model_type in ("qwen2", "qwen3", "modernbert", "gemma3_text") else set()
    known |= {"is_decoder"} if model_type == "t5" else set()  # each stack sets its own
    assert set(FIELDS[model_type]) <= known, set(FIELDS[model_type]) - known


@pytest.mark.parametrize("model_type", FIELDS)
def test_unsupported_features_are_refused_by_name(model_type):
    asked = {**EVERYWHERE, **REFUSED.get(model_type, {})}
    if model_type in (*registry.ENCODERS,):
        asked["position_embedding_type"] = "relative_key"
    for name, value in asked.items():
        with pytest.raises(InvalidWeights, match=name):
            build(model_type, **{name: value})
    build(model_type, **dict.fromkeys(asked))


@pytest.mark.parametrize("model_type", FIELDS)
def test_null_is_the_default(model_type):
    nothing: dict[str, int | None] = {name: None for name in FIELDS[model_type] if name != "model_type"}
    ours, given = build(model_type), build(model_type, **nothing)
    if model_type in WINDOWS:  # null differs from a missing field: as many as there are query heads
        nothing["num_key_value_heads"] = FIELDS[model_type]["num_key_value_heads"]
        given = build(model_type, **nothing)
    assert given.config == ours.config


ACTIVATIONS = [
    *(("bert", "hidden_act"), ("gpt2", "activation_function"), ("distilbert", "activation"), ("t5", "dense_act_fn")),
    *(("vit", "pooler_act"), ("bart", "activation_function"), ("clip_text_model", "hidden_act")),
    *(("modernbert", "hidden_activation"), ("modernbert", "classifier_activation")),
    ("gemma3_text", "hidden_activation"),
]


@pytest.mark.parametrize(("model_type", "name"), ACTIVATIONS)
def test_activations_that_are_not_built_in_are_refused(model_type, name):
    with pytest.raises(InvalidWeights, match="laplace"):
        build(model_type, **{name: "laplace"})


ROPES: list[tuple[dict[str, Any], str]] = [
    ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "yarn"),
    ({"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
    ({"rope_scaling": {"type": "linear"}}, "factor"),
    ({"rope_scaling": {"type": "llama3", "factor": 2.0, "high_freq_factor": 4.0}}, "low_freq_factor"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"rope_scaling": {"type": "linear", "factor": -2.0}}, "factor"),
    ({"rope_scaling": {"type": "linear", "factor": float("inf")}}, "factor"),
    ({"rope_scaling": [1]}, "rope_parameters"),
    ({"rope_scaling": {"type": ["linear"]}}, "rope_type"),
    ({"rope_theta": "big"}, "rope_theta"),
]


@pytest.mark.parametrize(("config", "word"), ROPES)
def test_rotary_positions_that_are_not_built_in_are_refused(config, word):
    with pytest.raises(InvalidWeights, match=word):
        build("llama", **config)


KINDS = ["full_attention", "sliding_attention"]
WINDOWED: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, (0, 4)),
    ("qwen3", {"use_sliding_window": True, "max_window_layers": 0}, (4096, 4096)),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 4}, (0, 0)),
    ("qwen3", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, (0, 0)),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 4, "layer_types": KINDS}, (0, 4)),
    ("qwen2", {"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 0}, (0, 0)),
    ("mistral", {}, (4096, 4096)),
    ("mistral", {"sliding_window": 3}, (3, 3)),
    ("mistral", {"sliding_window": None}, (0, 0)),
    ("gemma3_text", {"sliding_window": 3}, (3, 3)),
    ("gemma3_text", {"layer_types": KINDS}, (0, 4096)),
    ("gemma3_text", {"sliding_window_pattern": 2}, (4096, 0)),
]


@pytest.mark.parametrize(("model_type", "given", "windows"), WINDOWED)
def test_the_window_of_each_layer(model_type, given, windows):
    assert build(model_type, num_hidden_layers=2, **given).decoder.windows == windows


def test_several_end_tokens_are_an_option_of_generation_alone():
    ends = {"eos_token_id": [2, 5]}
    for head in ("Model", "ForConditionalGeneration", "ForQuestionAnswering"):
        model = build("bart", architectures=[f"Bart{head}"], **ends)
        assert getattr(model, "generation", ends)["eos_token_id"] == [2, 5]
    with pytest.raises(InvalidWeights, match=r"eos_token_id must be an integer .* not \[2, 5\]"):
        build("bart", architectures=["BartForSequenceClassification"], **ends)


UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("qwen2", {"layer_types": ["chunked_attention"] * 2}, "layer_types"),
    ("modernbert", {"layer_types": KINDS * 2}, "layer_types has 4"),
    ("qwen3", {"use_sliding_window": 1}, "use_sliding_window"),
    ("qwen3", {"max_window_layers": -1}, "max_window_layers"),
    ("mistral", {"sliding_window": 0}, "sliding_window"),
    ("mistral", {"sliding_window": "all"}, "sliding_window"),
    ("gemma3_text", {"sliding_window": 0}, "sliding_window"),
    ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
    ("gemma3_text", {"rope_parameters": {"rope_theta": 5.0}}, "rope_parameters"),
    ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling"),
    ("modernbert", {"rope_parameters": {"rope_theta": 5.0}}, "rope_parameters"),
    ("modernbert", {"rope_parameters": {"full_attention": 5}}, "rope_parameters"),
    ("modernbert", {"rope_scaling": "x"}, "rope_scaling"),
    ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "yarn"),
    ("clip", {"text_config": [1]}, "text_config"),
    ("clip", {"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "quantization_config"),
    ("clip_vision_model", {"image_size": [30, 20]}, "image_size"),
    ("clip_vision_model", {"image_size": 16}, "patch_size 32"),
]


@pytest.mark.parametrize(("model_type", "given", "word"), UNFIT)
def test_fields_that_do_not_fit_are_refused(model_type, given, word):
    with pytest.raises(InvalidWeights, match=word):
        build(model_type, num_hidden_layers=2, **given)


@pytest.mark.parametrize(
    ("model_type", "name"), [("clip_text_model", "position_embedding_type"), ("clip_vision_model", "pooler_act")]
)
def test_fields_that_clip_does_not_read_may_have_any_value(model_type, name):
    build(model_type, num_hidden_layers=2, **{name: "other"})


_ENCODERS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
_DECODERS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
#: By model type: the prefix of its classes, the supported ones, and the others that `transformers` publishes.
CLASSES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "bert": ("Bert", _ENCODERS, ("ForMultipleChoice", "ForNextSentencePrediction", "ForPreTraining", "LMHeadModel")),
    "roberta": ("Roberta", _ENCODERS, ("ForCausalLM", "ForMultipleChoice")),
    "xlm-roberta": ("XLMRoberta", _ENCODERS, ("ForCausalLM", "ForMultipleChoice")),
    "distilbert": ("DistilBert", _ENCODERS, ("ForMultipleChoice",)),
    "mpnet": ("MPNet", _ENCODERS, ("ForMultipleChoice",)),
    "electra": ("Electra", _ENCODERS, ("ForCausalLM", "ForMultipleChoice", "ForPreTraining")),
    "albert": ("Albert", _ENCODERS, ("ForPreTraining", "ForMultipleChoice")),
    "gpt2": ("GPT2", (*_DECODERS, "LMHeadModel"), ("DoubleHeadsModel",)),
    "llama": ("Llama", (*_DECODERS, "ForCausalLM"), ("ForMaskedLM",)),
    "qwen2": ("Qwen2", (*_DECODERS, "ForCausalLM"), ("ForMaskedLM",)),
    "qwen3": ("Qwen3", (*_DECODERS, "ForCausalLM"), ("ForMaskedLM",)),
    "mistral": ("Mistral", (*_DECODERS, "ForCausalLM"), ("ForMaskedLM",)),
    "gemma3_text": (
        "Gemma3",
        ("ForCausalLM", "TextModel", "TextForSequenceClassification"),
        ("ForConditionalGeneration", "ForSequenceClassification", "Model"),
    ),
    "modernbert": ("ModernBert", _ENCODERS, ("ForMultipleChoice",)),
    "bart": (
        "Bart",
        ("Model", "ForConditionalGeneration", "ForSequenceClassification", "ForQuestionAnswering"),
        ("ForCausalLM",),
    ),
    "clip": ("CLIP", ("Model", "ForImageClassification"), ("TextModel", "VisionModel")),
    "clip_text_model": ("CLIPText", ("Model", "ModelWithProjection"), ("ForImageClassification",)),
    "clip_vision_model": ("CLIPVision", ("Model", "ModelWithProjection"), ("ForImageClassification",)),
    "t5": (
        "T5",
        ("ForConditionalGeneration",),
        ("EncoderModel", "Model", "ForQuestionAnswering", "ForSequenceClassification", "ForTokenClassification"),
    ),
    "vit": ("ViT", ("Model", "ForImageClassification"), ("ForMaskedImageModeling",)),
    "deit": (
        "DeiT",
        ("Model", "ForImageClassification", "ForImageClassificationWithTeacher"),
        ("ForMaskedImageModeling",),
    ),
    "dinov2": ("Dinov2", ("Model", "ForImageClassification"), ("Backbone",)),
    "dinov2_with_registers": ("Dinov2WithRegisters", ("Model", "ForImageClassification"), ("Backbone",)),
}


@pytest.mark.parametrize("model_type", FIELDS)
def test_every_published_class_is_built_or_refused_by_name(model_type):
    family, built, refused = CLASSES[model_type]
    for suffix in built:
        build(model_type, architectures=[family + suffix])
    for suffix in refused:
        with pytest.raises(UnsupportedModel, match=family + suffix) as caught:
            build(model_type, architectures=[family + suffix])
        assert set(caught.value.supported) >= {family + each for each in built}
