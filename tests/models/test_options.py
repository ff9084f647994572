"""Options for writing that are none."""

from __future__ import annotations

import pytest

from tensorcommons.errors import TensorCommonsError
from tensorcommons.models.sampling import Options


@pytest.mark.parametrize(
    "wrong",
    [
        {"eos_token_id": 1.5}, {"eos_token_id": "a"}, {"eos_token_id": ["a"]}, {"stop_strings": 5},
        {"stop_strings": [""]},
        {"max_new_tokens": 0}, {"max_new_tokens": 1.0}, {"temperature": 0}, {"top_p": 1.1}, {"seed": -1}, {"beams": 4},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(wrong):
    with pytest.raises(TensorCommonsError):
        Options.of({}, wrong)
