"""Imports point one way, JavaScript stays in bridge/, and the package imports under plain CPython."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pyodide_pkg" / "tensorcommons"
# From the top down: a module may import what stands in its own row or below, nothing above.
ROWS = (
    ("__init__",),
    ("pipelines",),
    ("models",),
    ("nn",),
    ("ops",),
    ("tensor",),
    ("sharing", "hub"),
    ("graph",),
    ("backends",),
    ("bridge",),
    ("shapes", "dtypes"),
    ("errors",),
)
LEVEL = {name: len(ROWS) - row for row, names in enumerate(ROWS) for name in names}
# Two arrows that point up on purpose. A storage is what a leaf of a graph is, so graph/ names it: storage.py itself
# imports nothing above backends/. run_together makes tensors of results, and realize() compiles: both join the layers.
EXCEPTIONS = {
    ("graph/node.py", "sharing"),
    ("graph/program.py", "sharing"),
    ("sharing/manager.py", "tensor"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """The parts of the package that a file imports, by their first name; and foreign modules with a leading dot."""
    found = set()
    parts = path.relative_to(PACKAGE).parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            target = [*base, *(node.module or "").split(".")] if node.module else [*base]
            target = [part for part in target if part]
            found |= {target[0]} if target else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." + str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {"." + alias.name.split(".")[0] for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_arrow_points_up(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    own = name.split("/")[0].removesuffix(".py")
    for target in imports_of(path):
        if target in LEVEL and target != own and (name, target) not in EXCEPTIONS:
            assert LEVEL[target] <= LEVEL[own], f"{name} imports {target}, which stands above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_bridge_touches_javascript(path: Path) -> None:
    foreign = imports_of(path) & {".js", ".pyodide", ".pyodide_js", ".tensorcommons_js"}
    if foreign:
        assert path.relative_to(PACKAGE).parts[0] == "bridge", f"{path.name} imports {foreign}"


def test_every_exception_is_needed() -> None:
    for name, target in EXCEPTIONS:
        assert target in imports_of(PACKAGE / name), f"{name} no longer imports {target}: drop the exception"


def test_the_package_imports_where_there_is_no_javascript() -> None:
    modules = [
        "tensorcommons." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if path.name != "__init__.py"
    ]
    block = "import sys\nfor name in ('js', 'pyodide', 'pyodide_js', 'tensorcommons_js'): sys.modules[name] = None\n"
    code = block + "import tensorcommons\n" + "\n".join(f"import {name}" for name in modules)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=PACKAGE.parent)
