"""Programs of the pages in docs/: the blocks of a page are one program, which runs."""

from __future__ import annotations

import ast
import gc
import inspect
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "last"), [("sharing", "small"), ("computing", "on_cpu"), ("devices", "copy"), ("performance", "last")]
)
async def test_the_program_of_a_page_runs(name, last):
    page = DOCS / f"{name}.md"
    inside, lines = False, []
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        inside = line == "```python" or (inside and not fence)
        lines.append(line if inside and not fence else "")  # so that a failure names the line of the page
    code = "\n".join(lines)
    names: dict[str, object] = {}
    run = eval(compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert inspect.iscoroutine(run)
    await run
    assert last in names, "the last block did not run"
    names.clear()
    gc.collect()
