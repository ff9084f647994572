"""Options for writing that are none."""

from __future__ import annotations

import pytest

from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.generation_options import Options


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
