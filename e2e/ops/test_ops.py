"""Every op's case on the browser's WebGPU: the bodies that tests/ops runs on NumPy."""

from __future__ import annotations

import pytest

from tests.cases import cases_of
from tests.ops.test_ops import MODULES


@pytest.mark.parametrize("case", cases_of(*MODULES, kind="webgpu"))
def test_on_webgpu(lab, case):
    lab.case(case)
