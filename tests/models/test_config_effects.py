"""Effects of configurations: every setting that a model reads changes outputs, is refused, or is listed as inert."""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import Any

import numpy as np
import pytest

from scripts.processor_goldens import picture
from tensorcommons import TensorSharingManager, from_pretrained, open_devices
from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.generation_options import Options
from tensorcommons.models.logits_process import Prompt
from tensorcommons.models.preprocessing import ImageProcessor
from tensorcommons.models.rope import ROPE_NAMES, ROPE_TYPES
from tensorcommons.models.sampling import Sampler
from tests.cases.golden_models import INPUTS, checkpoint_of, load_goldens
from tests.models.server import TINY
from tests.models.test_config_fields import FIELDS, WINDOWS, read_by

CHANGE = 1e-2  # relative to the largest element of an output
#: Model type -> fields that its class of `transformers` does not use either, and the reason.
_ATTENDED = "marks padding in training alone; attention_mask says what counts"
_ABSENT = "a field of other architectures"
INERT: dict[str, dict[str, str]] = {
    "bert": {"pad_token_id": _ATTENDED, "embedding_size": _ABSENT},
    "distilbert": {
        "pad_token_id": _ATTENDED,
        **dict.fromkeys(("embedding_size", "type_vocab_size"), _ABSENT),
        "layer_norm_eps": "always 1e-12",
    },
    "roberta": {"embedding_size": _ABSENT},
    "xlm-roberta": {"embedding_size": _ABSENT},
    "mpnet": {
        "pad_token_id": "positions count from 1 whatever it is",
        **dict.fromkeys(("embedding_size", "type_vocab_size"), _ABSENT),
    },
    "electra": {"pad_token_id": _ATTENDED},
    "albert": {"pad_token_id": _ATTENDED},
    "qwen2": {
        "attention_bias": "queries, keys and values always have biases",
        "mlp_bias": _ABSENT,
    },
    "qwen3": {"mlp_bias": _ABSENT},
    "gemma3_text": {"mlp_bias": _ABSENT},
    "mistral": {**dict.fromkeys(("attention_bias", "mlp_bias"), _ABSENT)},
    "modernbert": {
        "pad_token_id": _ATTENDED,
        **dict.fromkeys(("embedding_size", "type_vocab_size"), _ABSENT),
    },
    "bart": {"tie_word_embeddings": "the stored tensors decide"},
    "t5": {"decoder_start_token_id": "begins what generate() writes; a call gives decoder_input_ids"},
    **dict.fromkeys(("vit", "deit"), dict.fromkeys(("mlp_ratio", "num_register_tokens", "use_swiglu_ffn"), _ABSENT)),
    "clip_text_model": {
        "pad_token_id": _ATTENDED,
        **dict.fromkeys(("embedding_size", "type_vocab_size", "tie_word_embeddings"), _ABSENT),
    },
    "clip_vision_model": {
        **dict.fromkeys(("pooler_act", "pooler_output_size", "qkv_bias"), _ABSENT),
        **dict.fromkeys(("mlp_ratio", "num_register_tokens", "use_swiglu_ffn"), _ABSENT),
    },
    "dinov2": {
        **dict.fromkeys(("num_register_tokens", "pooler_act", "pooler_output_size"), _ABSENT),
        "intermediate_size": "mlp_ratio decides",
    },
    "dinov2_with_registers": {
        **dict.fromkeys(("pooler_act", "pooler_output_size"), _ABSENT),
        "intermediate_size": "mlp_ratio decides",
    },
}
#: Fields that only limit the length of inputs.
BOUNDS = ("max_position_embeddings", "n_positions")
#: Other values of fields that are strings.
WORDS: dict[str, list[str]] = {
    "feed_forward_proj": ["gelu", "silu"],
    "hidden_act": ["relu", "sigmoid"],
    "activation_function": ["relu", "sigmoid"],
    "activation": ["relu", "sigmoid"],
    "dense_act_fn": ["relu", "sigmoid"],
    "pooler_act": ["relu", "sigmoid"],
    "hidden_activation": ["relu", "sigmoid"],
    "classifier_activation": ["relu", "sigmoid"],
    "classifier_pooling": ["mean", "cls"],
}


def others(name: str, value: Any) -> list[Any]:
    """Return values that the field could have instead."""
    found: list[Any] = WORDS.get(name, [])
    if isinstance(value, bool):
        found = [not value]
    elif isinstance(value, int):
        found = [2 if name in BOUNDS else max(value // 2, 1), value * 2]  # fewer tokens than the goldens' texts have
    elif isinstance(value, float):
        found = [value * 3 if value > 1e-3 else 0.3]
    return [other for other in found if other != value]


@cache
def entries(model_type: str) -> list[tuple[dict[str, Any], dict[str, Any], list[str]]]:
    """Return the goldens of a model type: their entries, inputs, and the names of their outputs."""
    found = []
    for table in ("architectures", "variants"):
        models, arrays = load_goldens(str(TINY), table)
        for name, entry in models.items():
            if name != "fields" and entry["config"]["model_type"] == model_type:
                mine = {key.rpartition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{name}.")}
                inputs = {key: mine.pop(key) for key in INPUTS if key in mine}
                found.append((entry, inputs, sorted(mine)))
    return found


class Effects:
    """Effects of other values of a field on the models of the goldens."""

    def __init__(self, manager: TensorSharingManager) -> None:
        self.manager = manager
        self.known: dict[tuple[str | bytes, ...], dict[str, Any]] = {}

    async def answers(
        self, entry: dict[str, Any], inputs: dict[str, Any], outputs: list[str], change: dict[str, Any]
    ) -> dict[str, Any]:
        """Compute the outputs under a changed config."""
        config = json.dumps({**entry["config"], **change})
        key = config, *sorted(entry["tensors"]), *(array.tobytes() for array in inputs.values())
        if key not in self.known:
            files = {**checkpoint_of(entry), "config.json": config.encode()}
            model = await from_pretrained(files, manager=self.manager, tokenizer=False)
            try:
                out = await model(**inputs, outputs=outputs)
                self.known[key] = {name: await tensor.read() for name, tensor in out.items()}
            finally:
                model.unload()
        return self.known[key]

    async def of(self, model_type: str, field: str, default: Any) -> str:
        """Find out whether another value of a field changes an output, is refused, or does nothing.

        A refusal counts as an effect where the model of a golden accepts no other value, as for sizes of its tensors.
        """
        for entry, inputs, outputs in entries(model_type):
            given = entry["config"].get(field)
            values = others(field, default if given is None else given)
            before, refused = await self.answers(entry, inputs, outputs, {}), 0
            for value in values:
                try:
                    after = await self.answers(entry, inputs, outputs, {field: value})
                except TensorCommonsError:
                    refused += 1
                    continue
                if any(_differ(array, after[name]) for name, array in before.items()):
                    return "changes"
            if refused and (refused == len(values) or field in BOUNDS):
                return "refuses"
        return "nothing"


def _differ(first: Any, second: Any) -> bool:
    return bool(first.shape != second.shape or np.abs(first - second).max() > CHANGE * np.abs(first).max())


@pytest.fixture
async def effects(caplog):
    caplog.set_level(logging.ERROR, "tensorcommons")  # for tensors that the changed config does not use
    devices = await open_devices(prefer=["cpu"])
    yield Effects(TensorSharingManager(64, devices=devices))
    devices.close()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", FIELDS)
async def test_every_field_of_a_config_has_an_effect(model_type, effects):
    inert = INERT.get(model_type, {})
    found = {
        field: await effects.of(model_type, field, default)
        for field, default in {**read_by(model_type), **WINDOWS.get(model_type, {})}.items()
        if field not in inert and field != "model_type"
    }
    assert "nothing" not in found.values(), found


@pytest.mark.slow
@pytest.mark.parametrize("model_type", INERT)
async def test_inert_fields_change_nothing(model_type, effects):
    defaults = read_by(model_type)
    for entry, inputs, outputs in entries(model_type)[:4]:
        given = {field: entry["config"].get(field, defaults[field]) for field in INERT[model_type]}
        change = {
            field: others(field, defaults[field] if value is None else value)[0] for field, value in given.items()
        }
        before, after = [await effects.answers(entry, inputs, outputs, each) for each in ({}, change)]
        assert all(np.array_equal(array, after[name]) for name, array in before.items()), change


@pytest.mark.parametrize("kind", ROPE_TYPES)
async def test_every_field_of_rotary_positions_has_an_effect(kind, effects):
    entry, inputs, outputs = next(
        each for each in entries("llama") if each[0]["config"]["architectures"] == ["LlamaModel"]
    )
    ropes: dict[str, float] = {"rope_theta": 3.0, **dict.fromkeys((ROPE_NAMES[name] for name in ROPE_TYPES[kind]), 2.0)}
    if kind == "llama3":
        ropes |= {"low_freq_factor": 0.2, "high_freq_factor": 0.9, "original_max_position_embeddings": 8}

    async def answer(**change: float) -> Any:
        changed = {"rope_parameters": {"rope_type": kind, **ropes, **change}}
        return (await effects.answers(entry, inputs, outputs, changed))["last_hidden_state"]

    before = await answer()
    for name, value in ropes.items():
        assert _differ(before, await answer(**{name: value * 3})), name


def test_every_setting_of_an_image_processor_has_an_effect():
    """Find for each setting a form, among those compared with the reference, whose result another value changes."""
    forms, seen = json.loads((TINY / "processors.json").read_text()), set[str]()
    changes: dict[str, Any] = {
        "size": 19, "crop_size": 7, "pad_size": 70, "resample": 0, "rescale_factor": 0.02, "image_mean": 0.9,
        "image_std": 0.9, "crop_pct": 0.5, "do_resize": False, "do_rescale": False, "do_normalize": False,
        "do_center_crop": True, "do_pad": True, "image_processor_type": "ConvNextImageProcessor",
    }  # fmt: skip
    for form in forms:
        config = {**form}
        image = picture(*config.pop("_shape"))
        before = ImageProcessor.of(config, "f")(image)
        for name in changes.keys() - seen:
            value = changes[name] if not isinstance(changes[name], bool) else not config.get(name, not changes[name])
            try:
                after = ImageProcessor.of({**config, name: value}, "f")(image)
            except TensorCommonsError:
                continue
            if _differ(before, after):
                seen.add(name)
    assert seen == set(changes)


GENERATION = json.loads((TINY / "generation.json").read_text())
#: Values of options without an effect: the reference generates the same tokens without them.
NO_EFFECT = [
    *({"top_k": 1000}, {"top_p": 1.0}, {"top_p": 1.5}, {"min_p": 0.0}, {"typical_p": 1.0}),
    *({"epsilon_cutoff": 3.0}, {"do_sample": True}, {"top_k": 0}),
]


def test_every_option_that_changes_scores_changes_a_golden():
    with np.load(TINY / "generation.npz") as arrays:
        ids, scores = arrays["ids"], arrays["scores"]
    prompt = Prompt(ids.shape[1], 99, ids)

    def after(options: dict[str, Any]) -> Any:
        return Sampler(Options.of({}, {"do_sample": True, **options}), len(ids), prompt, scores.shape[1]).scores(
            scores, ids
        )

    plain = after({"top_k": 0})
    for options in GENERATION["processed"]:
        named = {name: value for name, value in options.items() if {name: value} not in NO_EFFECT}
        if named:
            assert not np.array_equal(after({"top_k": 0, **named}), plain), named


#: Options that change scores but not the most likely token: the goldens above cover them.
SCORES_ALONE = {"early_stopping", "remove_invalid_values", "renormalize_logits", "temperature", "top_k"}


def test_every_option_changes_the_tokens_of_a_golden():
    """Find for each option two goldens that differ only in this option, and in their tokens."""
    cases = [(case["model"], case["is_one_token"], case["options"], case.get("new")) for case in GENERATION["written"]]
    named, seen = {name for *_, options, _ in cases for name in options}, set()
    for model, is_one, options, new in cases:
        for other_model, other_is_one, without, other_new in cases:
            more = {name for name in options if name not in without or without[name] != options[name]}
            if (model, is_one) == (other_model, other_is_one) and len(more) == 1 and new != other_new:
                seen |= more if without.keys() <= options.keys() else set()
    assert named - seen == SCORES_ALONE | {"do_sample", "pad_token_id"}
