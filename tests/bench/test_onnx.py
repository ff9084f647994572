"""The ONNX writer, compared with bytes that the reference implementation accepts (onnx.checker, full check)."""

from __future__ import annotations

import numpy as np
import pytest

from bench.onnx import Builder, _field, _varint


@pytest.mark.parametrize(("value", "data"), [(0, "00"), (1, "01"), (300, "ac02"), (-1, "ffffffffffffffffff01")])
def test_varint(value, data):
    assert _varint(value).hex() == data


def test_fields_are_tagged_by_their_wire_type():
    assert _field(3, 1).hex() == "1801" and _field(2, 0.5).hex() == "150000003f" and _field(1, "ab").hex() == "0a026162"


def test_a_model_is_written_as_these_bytes():
    graph = Builder({"x": ("float32", (2, 2))})
    y = graph.op("Softmax", graph.op("Add", "x", graph.constant("b", np.array([1, 2], np.float32))), axis=-1)
    assert graph.model({y: (2, 2)}).hex() == GOLDEN


GOLDEN = (
    "0808121374656e736f72636f6d6d6f6e732062656e63683aa5010a190a01780a016212054164645f301a054164645f302203"
    "4164640a3c0a054164645f301209536f66746d61785f311a09536f66746d61785f312207536f66746d61782a140a04617869"
    "7318ffffffffffffffffff01a00102120567726170682a11080210014201624a080000803f000000405a130a0178120e0a0c"
    "080112080a0208020a020802621b0a09536f66746d61785f31120e0a0c080112080a0208020a02080242021011"
)
