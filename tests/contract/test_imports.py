"""Imports point one way, JavaScript stays in bridge/, and the package imports under plain CPython."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tensorcommons.backends.kinds import KINDS

PACKAGE = Path(__file__).parents[2] / "pyodide_pkg" / "tensorcommons"
# From the top down: a module may import from its own row and those below. A storage is the value of a leaf of a graph,
# so storages and their parts are below graph/; the rest of sharing/ makes tensors and runs graphs, and is above it.
ROWS = (
    ("__init__",),
    ("remote",),
    ("opening",),
    ("pipelines", "diagnostics", "refusals", "ranking", "inspection"),
    ("samples",),
    ("tasks",),
    ("models",),
    ("nn", "random"),
    ("linalg",),
    ("ops",),
    ("sharing", "hub"),
    ("compiled",),
    ("tensor",),
    ("graph",),
    ("sharing/bundle", "sharing/lock", "sharing/provenance", "sharing/storage", "sharing/transfer"),
    ("formats",),
    ("backends",),
    ("bridge",),
    ("shapes", "dtypes"),
    ("errors", "constants"),
)
LEVEL = {name: len(ROWS) - row for row, names in enumerate(ROWS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(parts: Sequence[str]) -> str:
    """Return the name of a module in the rows: its folder or file below the package, or its own entry."""
    whole = "/".join(parts[:2]).removesuffix(".py")
    return whole if whole in LEVEL else parts[0].removesuffix(".py")


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """The nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


@cache
def imports_of(path: Path) -> set[str]:
    """Return the parts of the package that a file imports, by first name, and other modules with a leading dot."""
    found = set()
    parts = path.relative_to(PACKAGE).parts
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            target = [*base, *(node.module or "").split(".")] if node.module else [*base]
            target = [part for part in target if part]
            found |= {part_of(target)} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." + str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {"." + alias.name.split(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    own = part_of(name.split("/"))
    for target in imports_of(path):
        if target in LEVEL and target != own:
            assert LEVEL[target] <= LEVEL[own], f"{name} imports {target}, which is above it"


def modules_of(path: Path) -> set[Path]:
    """Return the files of the package that a file imports, including imports in functions and for types."""
    found: set[Path] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                own = folder / alias.name
                places = (
                    own.with_suffix(".py"),
                    own / "__init__.py",
                    folder.with_suffix(".py"),
                    folder / "__init__.py",
                )
                found |= {next(place for place in places if place.is_file())}
    return found - {path}


def test_imports_have_no_cycles() -> None:
    below = {path: modules_of(path) for path in FILES}
    left = set(FILES)
    while ready := {path for path in left if not below[path] & left}:
        left -= ready
    circles = sorted(path.relative_to(PACKAGE).as_posix() for path in left)
    assert not circles, f"part of a cycle of imports, or above one: {circles}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_bridge_touches_javascript(path: Path) -> None:
    foreign = imports_of(path) & {".js", ".pyodide", ".pyodide_js", ".tensorcommons_js"}
    if foreign:
        assert path.relative_to(PACKAGE).parts[0] == "bridge", f"{path.name} imports {foreign}"


def test_the_package_imports_without_javascript() -> None:
    modules = [
        "tensorcommons." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.name != "__init__.py"
    ]
    block = "import sys\nfor name in ('js', 'pyodide', 'pyodide_js', 'tensorcommons_js'): sys.modules[name] = None\n"
    code = block + "import tensorcommons\n" + "\n".join(f"import {name}" for name in modules)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=PACKAGE.parent)


def test_no_kind_of_device_is_compared_outside_the_backends() -> None:
    """Code outside the backends depends on facts alone, so that a new kind changes no other file."""
    kinds, found = set(KINDS), []
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] in ("backends", "bridge"):
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Compare):
                texts = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                found += [f"{name}:{node.lineno}"] if texts & kinds else []
    assert not found
