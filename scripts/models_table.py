"""Writes the table at the end of docs/models.md: what of which model is compared with what, on which device.

    .cache/venv/bin/python -m scripts.models_table

The cases say it themselves (``shows`` in tests/cases/__init__.py). tests/contract/test_models_table.py fails when the
file is out of date.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

from scripts import paths

for _folder in (paths.ROOT, paths.ROOT / "pyodide_pkg"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from tests.cases import MODELS, case_of, cases_of  # noqa: E402 - found by the lines above

FILE = paths.ROOT / "docs" / "models.md"
TITLE = "## What is compared with what"
KINDS = ("cpu", "webgpu", "webnn")
ALWAYS, LONG, NONE = "●", "○", ""
HOST = {"tests/models": ("test_preprocessing",), "tests/hub": ("test_writing",)}  # code that no device takes part in

HEAD = f"""{TITLE}

Made by `python -m scripts.models_table` from the tests; a test fails when it is out of date. {ALWAYS}: in `make test`;
{LONG}: in `make long`; empty: not there, mostly since CPython has no tokenizer. "Against" is a file of `tests/goldens`,
made with `transformers` by `scripts/*goldens*.py`, or what else the same numbers must be.

| model | what | against | NumPy | WebGPU | WebNN | case |
|---|---|---|:-:|:-:|:-:|---|
"""


def lines() -> Iterator[tuple[tuple[str, str, str], str, dict[str, str]]]:
    """(model, what, against) with the case's name and its mark on each kind of device."""
    found: dict[str, dict[str, str]] = {}
    for kind in KINDS:
        for name in cases_of(*MODELS, kind=kind):
            found.setdefault(name, {})[kind] = LONG if kind in getattr(case_of(name), "long", ()) else ALWAYS
    for name, marks in found.items():
        for line in getattr(case_of(name), "shows", ()):
            yield line, f"`{name}`", marks
    for folder, modules in HOST.items():
        for module in modules:
            for name, function in vars(importlib.import_module(f"{folder.replace('/', '.')}.{module}")).items():
                for line in getattr(function, "shows", ()):
                    yield line, f"`{folder}`, `{name}`", {"cpu": ALWAYS}


def text() -> str:
    """docs/models.md with the table as it should be."""
    rows: dict[tuple[str, str, str], tuple[list[str], dict[str, str]]] = {}
    for line, name, marks in lines():
        names, best = rows.setdefault(line, ([], {}))
        names.append(name)
        for kind, mark in marks.items():
            if best.get(kind) != ALWAYS:
                best[kind] = mark
    merged: dict[tuple[str, ...], list[str]] = {}  # what the same cases compare of one model is one row
    for (model, what, against), (cases, found) in sorted(rows.items(), key=lambda row: row[0][0].lower()):
        cells = [found.get(kind, NONE) for kind in KINDS]
        merged.setdefault((model, against, *cells, ", ".join(cases)), []).append(what)
    table = "".join(
        f"| {' | '.join((model, ', '.join(what), against, *rest))} |\n"
        for (model, against, *rest), what in merged.items()
    )
    return FILE.read_text("utf-8").partition(TITLE)[0] + HEAD + table


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
