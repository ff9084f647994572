"""Messages between a page and Python: JSON text with buffers beside it."""

import json
import math
from typing import Any

import numpy as np
import pytest

from tensorcommons.errors import TensorCommonsError
from tensorcommons.remote.messages import DTYPES, MARK, pack, unpack


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_keep_dtype_and_shape(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).T.astype(dtype)
    found = unpack(*pack({"at": [array]}))["at"][0]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_values_of_python_come_back() -> None:
    value: dict[str, Any] = {
        "text": "ö",
        "none": None,
        "list": [1, 2.5, True],
        "scalar": np.float32(0.5),
        "bytes": b"\0\1",
        "empty": {},
    }
    assert unpack(*pack(value)) == {**value, "scalar": 0.5}


def test_numbers_that_json_lacks_are_marked() -> None:
    text, _ = pack([math.inf, -math.inf, math.nan, {"a": (np.float32("nan"), np.ones(1), b"x")}])
    assert json.loads(text)[0] == {MARK: "Infinity"}  # JSON.parse accepts it
    first, second, third, rest = unpack(*pack([math.inf, -math.inf, math.nan, {"a": (np.float32("nan"), 1)}]))
    assert (first, second) == (math.inf, -math.inf) and math.isnan(third) and math.isnan(rest["a"][0])


def test_other_values_are_refused_by_name() -> None:
    with pytest.raises(TensorCommonsError, match="no form in JavaScript"):
        pack({"a": object()})
    with pytest.raises(TensorCommonsError, match="complex64"):
        pack(np.ones(2, np.complex64))
    for entry in ({"dtype": "float32", "dims": [2]}, {"dtype": "object", "dims": [4]}, {"dtype": "uint8", "dims": [3]}):
        with pytest.raises(TensorCommonsError, match="does not match its 4 bytes"):
            unpack(json.dumps({MARK: 0, **entry}), [bytes(4)])
