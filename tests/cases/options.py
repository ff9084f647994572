"""Options of generation against `transformers`: tokens under each of them, and unsupported options in files."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model
from tensorcommons.errors import ShapeMismatch, TensorCommonsError
from tensorcommons.models.generation_options import BELOW_ZERO, OF_CALLS, READERS
from tests.cases import Place, only, shows, slow
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of
from tests.cases.seeded import checkpoint
from tests.cases.support import raises

PROMPT = np.arange(3, 8)[None]


@lru_cache
def _golden(folder: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((Path(folder) / "generation.json").read_text())
    return made


async def _load(place: Place, name: str = "tiny-llama", generation: Any = None, **changes: Any) -> Model:
    files = checkpoint(place, name, **changes)
    if generation is not None:
        files["generation_config.json"] = json.dumps(generation).encode()
    return await tc.from_pretrained(files, manager=place.manager(), device=place.device, tokenizer=False)


async def _new(model: Model, ids: Any = PROMPT, mask: Any = None, **options: Any) -> list[list[int]]:
    """Return the tokens after the prompt, or after the start token of a decoder."""
    written = await model.generate(ids, mask, **options)
    start = 1 if model.model_type == "t5" else np.shape(ids)[1]
    tokens: list[list[int]] = written[:, start:].tolist()
    return tokens


async def _writes(place: Place, name: str, step: int) -> None:
    with np.load(Path(place.goldens) / "decoders.npz") as arrays:
        ids, mask = arrays[f"{name}.prompts"], arrays[f"{name}.prompts_mask"]
    model, wrong = await _load(place, name), []
    cases = [case for case in _golden(place.goldens)["written"] if case["model"] == name]
    for case in cases[::step]:
        prompt = (ids[:1, -1:], None) if case["is_one_token"] else (ids, mask)
        if "refused" in case:
            await raises(TensorCommonsError, model.generate(*prompt, **case["options"]))
        elif (new := await _new(model, *prompt, **case["options"])) != case["new"]:
            wrong.append(f"{case['options']}: {new} instead of {case['new']}")
    assert cases and not wrong, "\n".join(wrong)
    model.unload()


@shows("llama", "tokens under each option of generation, and under several", "generation.json")
@only("cpu")
@slow
async def llama_writes_under_each_option(place: Place) -> None:
    await _writes(place, "tiny-llama", 2)


@shows("gpt2", "tokens under each option of generation, and under several", "generation.json")
@only("cpu")
@slow
async def gpt2_writes_under_each_option(place: Place) -> None:
    await _writes(place, "tiny-gpt2", 5)


@shows("t5", "tokens under each option of generation, and under several", "generation.json")
@only("cpu")
@slow
async def t5_writes_under_each_option(place: Place) -> None:
    await _writes(place, "tiny-t5", 3)


@shows("llama", "tokens under some options of generation", "generation.json")
@only("webgpu", "webnn")
async def some_options_on_a_device(place: Place) -> None:
    """Processors run on the host; this case covers the transfer of scores from a device."""
    await _writes(place, "tiny-llama", 39)


@only("cpu")
@slow
async def a_file_says_how_to_write(place: Place) -> None:
    """generation_config.json overrides config.json, whose fields are used only without it."""
    plain = await _load(place)
    free = (await _new(plain, max_new_tokens=12))[0]
    plain.unload()
    first, later = free[0], free[3]
    options: dict[str, Any] = {"max_new_tokens": 12, "pad_token_id": 0}
    for generation, config, wanted in (
        ({"suppress_tokens": [first]}, {}, {"suppress_tokens": [first]}),
        ({"begin_suppress_tokens": [first]}, {}, {"begin_suppress_tokens": [first]}),
        ({"no_repeat_ngram_size": 2, "min_length": None}, {}, {"no_repeat_ngram_size": 2}),
        ({"min_length": -1, "pad_token_id": -1, "eos_token_id": later}, {}, {"eos_token_id": later}),
        ({"min_new_tokens": -3, "min_length": 17, "eos_token_id": later}, {}, {"eos_token_id": later}),
        ({"do_sample": False, "temperature": 0.0, "top_p": 0, "top_k": -1}, {}, {}),
        ({"use_cache": False, "output_scores": True, "return_dict_in_generate": True, "unheard_of": 5}, {}, {}),
        ({"num_beams": 1, "length_penalty": 2.0, "early_stopping": True, "seed": 5, "low_memory": None}, {}, {}),
        ({"task_specific_params": {"text-generation": {"max_length": 7}}}, {"eos_token_id": later}, {}),
        ({}, {"eos_token_id": later}, {}),  # a file without an end token
        (
            None,
            {"eos_token_id": later, "suppress_tokens": [first]},
            {"eos_token_id": later, "suppress_tokens": [first]},
        ),
        (None, {"max_length": 9}, {"max_length": 9, "max_new_tokens": None}),
        ({"max_length": 9, "max_new_tokens": None}, {}, {"max_length": 9, "max_new_tokens": None}),
    ):
        model = await _load(place, generation=generation, **config)
        given = options if "max_new_tokens" not in wanted else {}
        told = await _load(place, generation={})
        assert await _new(model, **given) == await _new(told, **{**options, **wanted}), (generation, config)
        off = {name: None for name in (generation or config) if name != "unheard_of"}
        assert (await _new(model, **{**off, **options}))[0] == free, "None in a call must disable an option"
        model.unload()
        told.unload()


@only("cpu")
async def a_file_may_name_tokens_outside_the_vocabulary(place: Place) -> None:
    """They never end a text, as in `transformers`; padding with one of them is an error if a row needs padding."""
    plain = await _load(place, generation={})
    two = np.concatenate([PROMPT, PROMPT + 9])
    options: dict[str, Any] = {"max_new_tokens": 6}
    free = await _new(plain, two, **options)
    plain.unload()
    later = next(token for token in free[0] if token not in free[1])
    outside: tuple[dict[str, Any], ...] = ({"eos_token_id": 1000}, {"eos_token_id": [1 << 40, -5]})
    for generation in (*outside, {"pad_token_id": 1000}, {"pad_token_id": 2**70}):
        model = await _load(place, generation=generation)
        assert await _new(model, two, **options) == free, generation
        if "pad_token_id" in generation:
            await raises(
                TensorCommonsError, model.generate(two, eos_token_id=later, **options), "pad_token_id", "vocabulary"
            )
            ended = await _new(model, two[:1], eos_token_id=later, **options)
            assert ended[0] == free[0][: free[0].index(later) + 1], "a single row does not need padding"
        await raises(TensorCommonsError, model.generate(two, pad_token_id=1000, **options), "pad_token_id 1000")
        model.unload()


@only("cpu")
async def what_a_file_asks_in_vain_is_named_by_the_first_call(place: Place) -> None:
    asked: tuple[dict[str, Any], ...] = (
        *({"num_beam_groups": 2, "num_beams": 4}, {"guidance_scale": 1.5}, {"token_healing": True}, {"use_mtp": True}),
        *({"watermarking_config": {"seeding_scheme": "selfhash"}}, {"force_words_ids": [[3]]}, {"constraints": []}),
        *({"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.6}, {"dola_layers": "high"}, {"is_assistant": True}),
        *({"cache_implementation": "quantized"}, {"cache_implementation": []}, {"streamer": "x"}),
    )
    for generation in asked:
        model = await _load(place, generation=generation)
        name = next(iter(generation))
        await raises(TensorCommonsError, model.generate(PROMPT, max_new_tokens=2), name, "generation_config.json")
        off: dict[str, Any] = {name: None}
        assert len((await model.generate(PROMPT, max_new_tokens=2, **off))[0]) == 7
        model.unload()
    model = await _load(place)
    for name in ("use_mtp", "return_dict_in_generate", "guidance_scale"):
        wish: dict[str, Any] = {name: 5}
        await raises(TensorCommonsError, model.generate(PROMPT, **wish), name, "not supported")
    model.unload()


async def _refusal(model: Model, options: dict[str, Any]) -> str | None:
    """Return the error message of a refused call, and assert that it has at most 400 characters."""
    try:
        await model.generate(PROMPT, **options)
    except TensorCommonsError as error:
        return str(error) if len(str(error)) < 400 else f"{len(str(error))} characters"
    return None


@only("cpu")
@slow
async def files_with_values_of_any_kind(place: Place) -> None:
    """Values of a wrong type in a file are refused by the call, by name, like the same value in the call."""
    wrong: tuple[Any, ...] = ("a", [], {}, 1.5, -2, True, [[]], [None], ["a"], 2**70, float("nan"), {"a": 1})
    model, seen = await _load(place), 0
    names = sorted(READERS)
    for name in names:
        for value in wrong:
            architecture: Any = model.architecture
            architecture.generation = {name: value}
            outcomes = []
            for given in ({}, {name: value}):
                said = await _refusal(model, {"max_new_tokens": 1, **given})
                assert said is None or name in said or "suppress" in said or "stop_strings" in name, (name, said)
                outcomes.append(said is None)
                seen += said is not None
            if value == -2 and name in BELOW_ZERO:
                assert outcomes == [True, False], name
            elif name not in ("pad_token_id", "max_new_tokens", *OF_CALLS):
                assert outcomes[0] == outcomes[1], (name, value)
    assert seen > 100
    model.unload()


@only("cpu")
async def lengths_count_as_the_reference_counts_them(place: Place) -> None:
    model = await _load(place)
    assert len((await _new(model, max_length=8))[0]) == 3
    assert len((await _new(model, max_length=8, max_new_tokens=1))[0]) == 1
    assert len((await _new(model, max_new_tokens=9, max_time=0.0))[0]) == 1, "the time must be checked after a step"
    for length in (5, 0):
        await raises(ShapeMismatch, model.generate(PROMPT, max_length=length), "max_length", "5 tokens")
    assert (await model.generate(PROMPT)).shape == (1, 200), "up to 256 tokens, or the model's maximum"
    model.unload()


@only("cpu")
async def several_texts_for_one_prompt(place: Place) -> None:
    model = await _load(place)
    drawn: dict[str, Any] = {"do_sample": True, "top_k": 0, "seed": 3, "max_new_tokens": 6}
    two = np.concatenate([PROMPT, PROMPT + 9])
    rows = await _new(model, two, num_return_sequences=3, **drawn)
    assert rows == await _new(model, np.repeat(two, 3, 0), **drawn) and len({tuple(row) for row in rows}) == 6
    await raises(
        TensorCommonsError, model.generate(PROMPT, num_return_sequences=2), "num_return_sequences", "do_sample"
    )
    model.unload()


async def scores_that_are_not_numbers_end_a_text(place: Place) -> None:
    """NaN in the head and in a layer, with tokens chosen on the device and on the host."""
    for name, tensor in (("tiny-llama", "model.norm.weight"), ("tiny-t5", "decoder.final_layer_norm.weight")):
        files = checkpoint(place, name)
        weights = tensors_of(files)
        weights[tensor] = weights[tensor] * np.float32(np.nan)
        files[WEIGHTS] = pack(weights)
        model = await tc.from_pretrained(files, manager=place.manager(), device=place.device, tokenizer=False)
        for options in ({}, {"suppress_tokens": [5]}, {"do_sample": True}):
            await raises(TensorCommonsError, model.generate(PROMPT, max_new_tokens=4, **options), "NaN")
        assert len((await model.generate(PROMPT, max_new_tokens=2, remove_invalid_values=True))[0]) > 2
        model.unload()


@only("cpu")
async def answers_begin_as_the_options_say(place: Place) -> None:
    model = await _load(place, "tiny-t5")
    two = np.concatenate([PROMPT, PROMPT + 9])
    assert (await model.generate(two, decoder_start_token_id=7, max_new_tokens=1))[:, 0].tolist() == [7, 7]
    assert (await model.generate(two, decoder_start_token_id=[7, 8], max_new_tokens=1))[:, 0].tolist() == [7, 8]
    for wrong in (100, [1, 2, 3], -1, "a"):
        await raises(TensorCommonsError, model.generate(two, decoder_start_token_id=wrong), "decoder_start_token_id")
    model.unload()
