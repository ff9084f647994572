"""Cases of models on the browser's WebGPU, including those that begin with text."""

from __future__ import annotations

import pytest

from tests.cases import MODELS
from tests.cases.marked import params


@pytest.mark.parametrize("case", params(*MODELS, kind="webgpu"))
def test_on_webgpu(lab, case):
    for line in lab.case(case):
        print(line)
