"""The models' cases on the browser's WebGPU, and those that begin with text."""

from __future__ import annotations

import pytest

from tests.cases import MODELS, case_of, cases_of


def params(kind):
    """The models' cases on that kind of device."""
    return [
        pytest.param(name, marks=[pytest.mark.long] if kind in getattr(case_of(name), "long", ()) else [])
        for name in cases_of(*MODELS, kind=kind)
    ]


@pytest.mark.parametrize("case", params("webgpu"))
def test_on_webgpu(lab, case):
    for line in lab.case(case):
        print(line)
