"""Refused values of options of generation and of tasks."""

from __future__ import annotations

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.generation_options import Options
from tensorcommons.tasks.images import zero_shot_image_classification
from tests.cases import Place
from tests.cases.pipelines import comparing
from tests.models.server import TINY


@pytest.mark.parametrize(
    "wrong",
    [
        {"eos_token_id": 1.5}, {"eos_token_id": "a"}, {"eos_token_id": ["a"]}, {"stop_strings": 5},
        {"stop_strings": [""]},
        {"max_new_tokens": 0}, {"max_new_tokens": 1.0},
        {"forced_bos_token_id": 10**5000, "suppress_tokens": [10**5000]},
        {"num_return_sequences": 65537, "do_sample": True},
        {"temperature": 0, "do_sample": True}, {"top_p": -0.1, "do_sample": True},
        {"seed": -1}, {"beams": 4}, {"bad_words_ids": []}, {"bad_words_ids": [5]},
        {"sequence_bias": {}}, {"sequence_bias": [[5, 1.0]]},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(wrong):
    with pytest.raises(TensorCommonsError):
        Options.of({}, wrong)


def test_a_number_of_thousands_of_digits_can_be_an_end_token():
    assert Options.of({"eos_token_id": -(10**5000)}, {}).eos_token_id == (-(10**5000),)


#: Option -> values at both bounds, and values just outside.
BOUNDS: dict[str, tuple[list[float], list[float]]] = {
    "max_new_tokens": ([1], [0]),
    "num_return_sequences": ([1, 65536], [0, 65537]),
    **dict.fromkeys(("max_length", "min_new_tokens", "min_length", "seed", "forced_bos_token_id"), ([0], [-1])),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), ([1e-3, 9.0], [0, -1.0])),
    "temperature": ([1e-3, 100.0], [0]),
    "top_k": ([0, 10**6], [-1]),
    "top_p": ([0, 1, 1.5], [-1e-3]),
    "min_p": ([0, 1], [-1e-3, 1.001]),
    "top_h": ([1e-3, 1], [0, 1.001]),
    "typical_p": ([1e-3, 1, 1.5], [0]),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_options_are_accepted_up_to_their_bounds(name):
    inside, outside = BOUNDS[name]
    for value in inside:
        assert getattr(Options.of({}, {"do_sample": True, name: value}), name) == value
    for value in outside:
        with pytest.raises(TensorCommonsError, match=name):
            Options.of({}, {"do_sample": True, name: value})


@pytest.mark.parametrize(
    "wrong",
    [
        *({"candidate_labels": labels} for labels in (None, 5, [], "cat", b"cat", {"cat": 1}, np.array(["cat"]), [5])),
        *({"candidate_labels": ["cat"], "hypothesis_template": text} for text in (
            None, 5, "", "a photo", "{", "{} }", "{} {}", "{0}", "{x}", "{:d}", "{.__class__}", "{{}}",
        )),
    ],
)  # fmt: skip
async def test_wrong_labels_and_templates_are_refused(wrong):
    devices = await tc.open_devices(prefer=["cpu"])
    place = Place(devices, models="", tiny="", faulty="", goldens=str(TINY))
    manager = tc.TensorSharingManager(64, devices)
    model = await tc.from_pretrained(comparing(place), manager=manager, tokenizer=False)
    with pytest.raises(TensorCommonsError, match=r"must be a list of labels|takes strings|must contain \{\}"):
        await zero_shot_image_classification(model, [], **wrong)
    devices.close()
