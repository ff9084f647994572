"""Break the package in one place at a time, and check that a test under CPython fails.

    python -m scripts.mutation_check                            40 places, chosen by seed 1
    python -m scripts.mutation_check --seed 2 --count 10        others
    python -m scripts.mutation_check --places graph/plan.py:88  each mutation of that line

The tests run in a copy of the checkout; the working tree is only read. A first run records the functions that each test
enters, so that a mutant runs only the tests of its function, the fastest first. It is killed by a failing test,
by an error at import, or by running out of time or memory. The exit status is 1 if a mutant survives.

A place is an operator, a comparison, a condition, a number, a returned value, or a statement that can be removed, in a
function that some test runs. Code that only a browser runs is counted, and not mutated.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.paths import ROOT

PACKAGE = Path("pyodide_pkg/tensorcommons")
PARTS = ("graph", "backends", "sharing", "models", "hub", "bridge", "ranking.py", "opening.py")
TESTS = [f"tests/{name}" for name in ("graph", "backends", "sharing", "models", "hub", "contract", "ops/test_fuzz.py")]
SECONDS = 90.0  # of recorded test time for each mutant
IDLE = 60  # seconds with less than one of processor time, after which a mutant counts as hanging
BYTES = 6 * 2**30  # of memory for one run

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutation:
    """A replacement in one file: the bytes from ``start`` to ``end`` become ``text``. ``function`` is the line of the
    function around it, 0 outside of functions.
    """

    file: str
    line: int
    start: int
    end: int
    text: str
    function: int
    original: str

    def __str__(self) -> str:
        def short(text: str) -> str:
            return " ".join(text.split())[:100]

        return f"{self.file}:{self.line}: {short(self.original)}  →  {short(self.text)}"


def mutations(file: str, source: str) -> Iterator[Mutation]:
    """Yield every mutation of a file, in order."""
    data = source.encode()
    starts = [0]
    for text in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))

    def change(node: ast.expr | ast.stmt, text: str, function: int) -> Mutation:
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        return Mutation(file, node.lineno, start, end, text, function, data[start:end].decode())

    def visit(node: ast.AST, function: int) -> Iterator[Mutation]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            inside: list[ast.AST] = [node.args, *node.body]
        elif isinstance(node, ast.ClassDef):
            inside = [*node.body]  # not its decorators: dataclass(frozen=True)
        elif isinstance(node, ast.AnnAssign):
            inside = [node.value] if node.value else []
        elif isinstance(node, ast.arg | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            return  # annotations; Python 3.11 has no places within an f-string
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        elif isinstance(node, ast.Raise):
            inside = []  # its message
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in ("Callable",):
            return
        else:
            inside = list(ast.iter_child_nodes(node))
        yield from (change(place, text, function) for place, text in replacements(node))
        for child in inside:
            yield from visit(child, function)

    yield from visit(ast.parse(source), 0)


def replacements(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield nodes with their replacements."""

    def other(**fields: Any) -> str:
        changed = copy.copy(node)
        for name, value in fields.items():
            setattr(changed, name, value)
        return f"({ast.unparse(changed)})"

    match node:
        case ast.Compare(ops=[first, *rest]):
            yield node, other(ops=[SWAPS[type(first)](), *rest])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS and not _is_type(node):
            yield node, other(op=SWAPS[type(op)]())
        case ast.AugAssign(op=op):
            if type(op) in SWAPS:
                yield node, other(op=SWAPS[type(op)]())[1:-1]
            yield node, "pass"
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            if isinstance(test, ast.Name | ast.Attribute | ast.Call):
                yield test, f"(not {ast.unparse(test)})"
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value)):
            yield node, str(value + 1)
        case ast.Constant(value=float(value)):
            yield node, repr(value * 2 if value else 1.0)
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "return None"
        case ast.Raise():
            yield node, "pass"
        case ast.Expr(value=ast.Call(func=func)) if "logger" not in ast.unparse(func):
            yield node, "pass"
        case ast.Expr(value=ast.Await(value=ast.Call())):
            yield node, "pass"


def _is_type(node: ast.AST) -> bool:
    """Return True for types such as ``int | None``."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    nones = any(isinstance(each, ast.Constant) and each.value is None for each in ast.walk(node))
    return nones or bool(names & {"int", "str", "float", "bool", "Tensor", "Any"})


class Recorder:
    """Plugin of pytest that records the functions of the package that each test enters, and its time."""

    def __init__(self) -> None:
        self.entered: dict[Any, None] = {}
        self.tests: dict[str, dict[str, Any]] = {}
        self.failed: set[str] = set()
        self.prefix = str(ROOT / PACKAGE)

    def trace(self, frame: Any, event: str, argument: Any) -> None:
        """Record a call; lines are not traced."""
        self.entered[frame.f_code] = None

    def pytest_runtest_setup(self, item: Any) -> None:
        """Begin with an empty record."""
        self.entered = {}
        self.began = time.process_time()
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def pytest_runtest_teardown(self, item: Any) -> None:
        """Store the record of the test."""
        sys.settrace(None)
        codes = [code for code in self.entered if code.co_filename.startswith(self.prefix)]
        places = {f"{Path(code.co_filename).relative_to(ROOT / PACKAGE)}:{code.co_firstlineno}" for code in codes}
        if item.nodeid in self.failed:
            return
        self.tests[item.nodeid] = {"seconds": time.process_time() - self.began, "places": sorted(places)}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Exclude a test that fails without a mutation."""
        if not report.passed:
            self.failed.add(report.nodeid)
            self.tests.pop(report.nodeid, None)


def record(target: Path) -> int:
    """Run all tests in this process, and write the functions that each enters."""
    import pytest

    recorder = Recorder()
    pytest.main(["-n0", "-q", "-m", "not long and not slow", *TESTS], plugins=[recorder])
    target.write_text(json.dumps(recorder.tests))
    return 0


def copy_checkout(target: Path) -> None:
    """Copy the files that git tracks, and link fetched ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".cache").mkdir()
    for each in (ROOT / ".cache").iterdir():
        if each.name not in ("hypothesis", "pytest", "mypy", "ruff"):
            (target / ".cache" / each.name).symlink_to(each)


def python(folder: Path, *arguments: str, limit: float | None = None) -> str:
    """Run Python in the copy. Gives "" if it succeeds, else the reason of the failure."""

    def bounds() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))

    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / ".cache/hypothesis"),
    }
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=bounds,
        start_new_session=True,
    ) as process:
        used = -1.0
        while True:
            try:
                printed, _ = process.communicate(timeout=None if limit is None else IDLE)
                break
            except subprocess.TimeoutExpired:
                before, used = used, processor_time(process.pid)
                if used - before < 1:
                    os.killpg(process.pid, 9)
                    return "hangs"
    if process.returncode == 0:
        return ""
    if process.returncode < 0:
        return "runs out of time"
    collected = "ImportError while loading conftest" not in printed and "ERROR: not found" not in printed
    if process.returncode not in (1, 2) and collected:
        raise SystemExit(f"the tests cannot be run: {printed[-1000:]}")
    failed = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0][:150] if failed else printed[-300:]


def processor_time(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tests_of(mutation: Mutation, tests: dict[str, dict[str, Any]]) -> list[str]:
    """Return the tests that run the mutated function, or the file for code outside of functions, the fastest first."""
    place, within = f"{mutation.file}:{mutation.function}", f"{mutation.file}:"
    seconds = {
        name: float(test["seconds"])
        for name, test in tests.items()
        if (place in test["places"] if mutation.function else any(each.startswith(within) for each in test["places"]))
    }
    chosen: list[str] = []
    total = 0.0
    for name in sorted(seconds, key=seconds.__getitem__):
        total += seconds[name]
        if chosen and total > SECONDS:
            break
        chosen.append(name)
    return chosen


def main() -> int:
    """Run the mutants and report; the exit status is 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument(
        "--parts", nargs="*", default=PARTS, help="folders or files of the package; default: all that can be mutated"
    )
    parser.add_argument(
        "--places", nargs="*", metavar="FILE:LINE", help="mutate only these lines; paths are relative to the package"
    )
    parser.add_argument(
        "--records", type=Path, help="file for the functions that the tests enter; used again if it exists"
    )
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        return record(arguments.record)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkout"
        copy_checkout(folder)
        records = arguments.records or Path(temporary) / "records.json"
        if not records.exists():
            failed = python(folder, "-m", "scripts.mutation_check", "--record", str(records.resolve()))
            if failed:
                raise SystemExit(f"the tests cannot be recorded: {failed}")
        tests = json.loads(records.read_text())
        survivors = check(folder, arguments, tests)
    for mutation in survivors:
        print(f"survived: {mutation}")
    return 1 if survivors else 0


def check(folder: Path, arguments: argparse.Namespace, tests: dict[str, dict[str, Any]]) -> list[Mutation]:
    """Run the chosen mutants one after another; gives those that survive."""
    entered = {place for test in tests.values() for place in test["places"]}
    files = {place.partition(":")[0] for place in entered}
    found: list[Mutation] = []
    unrun: dict[str, set[str]] = defaultdict(set)
    for name in arguments.parts:
        part = folder / PACKAGE / name
        for path in [part] if part.is_file() else sorted(part.rglob("*.py")):
            file = str(path.relative_to(folder / PACKAGE))
            for mutation in mutations(file, path.read_text()):
                place = f"{file}:{mutation.function}"
                if place in entered if mutation.function else file in files:
                    found.append(mutation)
                else:
                    unrun[file.rpartition("/")[0]].add(place)
    print(f"{len(found)} places in functions that {len(tests)} tests run; functions that none of them runs:")
    print("  " + ", ".join(f"{name} {len(places)}" for name, places in sorted(unrun.items())))
    if arguments.places:
        chosen = [each for each in found if f"{each.file}:{each.line}" in arguments.places]
    else:
        chosen = random.Random(arguments.seed).sample(found, min(arguments.count, len(found)))  # noqa: S311
    survivors = []
    for number, mutation in enumerate(chosen, 1):
        target = folder / PACKAGE / mutation.file
        original = target.read_bytes()
        target.write_bytes(original[: mutation.start] + mutation.text.encode() + original[mutation.end :])
        names = tests_of(mutation, tests)
        listed = folder / "mutation-tests.txt"
        listed.write_text("\n".join(names))
        limit = 60 + 5 * SECONDS
        options = ("-x", "-n0", "-q", "-m", "")
        killer = python(folder, "-m", "pytest", *options, f"@{listed}", limit=limit)
        target.write_bytes(original)
        if not killer:
            survivors.append(mutation)
        result = "killed  " if killer else "SURVIVED"
        print(f"{number:3} {result} {mutation}  [{len(names)} tests] {killer}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants were killed (seed {arguments.seed})")
    return survivors


if __name__ == "__main__":
    raise SystemExit(main())
