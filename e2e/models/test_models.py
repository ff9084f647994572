"""The models' cases on the browser's WebGPU, and those that begin with text."""

from __future__ import annotations

import pytest

from tests.cases import cases_of

MODULES = ("models", "architectures", "loading", "tasks", "decoders", "writing")

<<<<<<< HEAD

@pytest.mark.parametrize("case", cases_of(*MODULES, kind="webgpu"))
=======
@pytest.mark.parametrize(
    "case", cases_of("models", "architectures", "loading", "decoders", "writing", "examples", kind="webgpu")
)
>>>>>>> 2f33825 (examples: search, five heads, pictures, a chat beside an embedder; T5 shares the buckets and tables of the encoders)
def test_on_webgpu(lab, case):
    for line in lab.case(case):
        print(line)
