"""The models' cases on the browser's WebGPU, and those that begin with text."""

from __future__ import annotations

import pytest

from tests.cases import cases_of


@pytest.mark.parametrize("case", cases_of("models", "architectures", "loading", "decoders", "writing", kind="webgpu"))
def test_on_webgpu(lab, case):
    for line in lab.case(case):
        print(line)
