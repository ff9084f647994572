"""The models' goldens on WebNN."""

from __future__ import annotations

import pytest

from tests.cases import cases_of


@pytest.mark.parametrize("case", cases_of("models", kind="webnn"))
def test_on_webnn(lab, case):
    lab.case(case, "webnn")
