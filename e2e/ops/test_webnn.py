"""Every op's case on the browser's WebNN. What it refuses runs on NumPy, and is listed with its reason."""

from __future__ import annotations

import pytest

from tests.cases import OPS, cases_of


@pytest.mark.parametrize("case", cases_of(*OPS, kind="webnn"))
def test_on_webnn(lab, case):
    lab.case(case, "webnn")
