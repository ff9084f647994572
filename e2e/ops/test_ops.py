"""Cases of every op on the browser's WebGPU, the same that tests/ops runs on NumPy."""

from __future__ import annotations

import pytest

from tests.cases import OPS
from tests.cases.marked import params


@pytest.mark.parametrize("case", params(*OPS, kind="webgpu"))
def test_on_webgpu(lab, case):
    lab.case(case)
