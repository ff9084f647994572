"""The models' cases on the browser's WebGPU, and those that begin with text."""

from __future__ import annotations

import pytest

from tests.cases import cases_of

MODULES = ("models", "architectures", "loading", "tasks", "pipelines", "decoders", "writing", "examples")


@pytest.mark.parametrize("case", cases_of(*MODULES, kind="webgpu"))
def test_on_webgpu(lab, case):
    for line in lab.case(case):
        print(line)
