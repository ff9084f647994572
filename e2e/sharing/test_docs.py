"""Programs of the pages in docs/, as a user copies them, in the browser's Python."""

from __future__ import annotations

import re

import pytest

from scripts.paths import ROOT


@pytest.mark.parametrize("name", ["sharing", "computing", "devices", "performance"])
def test_the_program_of_a_page_runs_in_the_browser(lab, name):
    page = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    lab.run(program + "\nNone")
