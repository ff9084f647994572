"""The cases of sharing and of bad input on the browser's WebGPU, counted in its real buffers."""

from __future__ import annotations

import pytest

from tests.cases import cases_of


@pytest.mark.parametrize("case", cases_of("sharing", "activations", "pressure", "moving", "bad_input", kind="webgpu"))
def test_on_webgpu(lab, case):
    for line in lab.case(case):
        print(line)
