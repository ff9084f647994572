"""Every op's case on the browser's WebNN. What it refuses runs on NumPy, and is listed with its reason."""

from __future__ import annotations

import json

import pytest

from scripts import paths
from scripts.browser import find_browser
from tests.cases import OPS, cases_of


@pytest.mark.parametrize("case", cases_of(*OPS, kind="webnn"))
def test_on_webnn(lab, case):
    lab.case(case, "webnn")


def test_the_limits_behind_the_docs_are_this_browsers(lab):
    if not find_browser().path.is_relative_to(paths.CHROMIUM):
        pytest.skip("docs/ops.md speaks of the npm Chromium, and this is another browser")
    known = json.loads((paths.ROOT / "tests" / "goldens" / "webnn_limits.json").read_text("utf-8"))
    found = lab.run("place.device.backend.op_limits", kind="webnn")
    assert found == known, "write what the browser says to tests/goldens/webnn_limits.json, then make docs/ops.md again"
