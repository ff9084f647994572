"""The page on sharing, as a user copies it, in the browser's Python."""

from __future__ import annotations

import re

from scripts.paths import ROOT


def test_docs_sharing_runs_in_the_browser(lab):
    page = (ROOT / "docs" / "sharing.md").read_text("utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    lab.run(program + "\nNone")
