"""docs/sharing.md is one program, and it runs."""

from __future__ import annotations

import ast
import gc
import inspect
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sharing.md"


async def test_the_page_runs_as_it_stands():
    inside, lines = False, []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        inside = line == "```python" or (inside and not fence)
        lines.append(line if inside and not fence else "")  # a failure names the line of the page
    code = "\n".join(lines)
    names: dict[str, object] = {}
    run = eval(compile(code, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert inspect.iscoroutine(run)
    await run
    assert "small" in names, "the last block ran"
    names.clear()
    gc.collect()
