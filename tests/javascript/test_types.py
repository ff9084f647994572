"""The types of tensorcommons.mjs: the TypeScript compiler accepts a page that uses them; the module has their names."""

from __future__ import annotations

import re
import subprocess

from scripts import paths
from scripts.tools import find_node
from tensorcommons.tasks import TASKS
from tensorcommons.tasks.text_generation import TASKS as GENERATION_TASKS

STRICT = ("--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--lib", "es2022,dom,dom.iterable")


def test_the_compiler_accepts_an_example_and_rejects_its_faults() -> None:
    compiler = paths.NODE_MODULES / "typescript" / "bin" / "tsc"
    example = paths.ROOT / "tests" / "javascript" / "example.ts"
    done = subprocess.run([find_node(), compiler, *STRICT, example], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_types_name_what_the_module_has() -> None:
    types = (paths.WEB / "tensorcommons.d.mts").read_text("utf-8")
    module = (paths.WEB / "tensorcommons.mjs").read_text("utf-8")
    exported = re.compile(r"^export (?:async )?(?:class|function) (\w+)", re.MULTILINE)
    assert set(exported.findall(types)) == set(exported.findall(module))
    runtime = types.partition("export interface Runtime {")[2].partition("\n}")[0]
    methods = re.findall(r"^  (\w+)[<(]", runtime, re.MULTILINE)
    own = module.partition("class Runtime {")[2].partition("\n}")[0]
    assert set(methods) == set(re.findall(r"^  (?:async )?(\w+)\(", own, re.MULTILINE)) - {"constructor"}
    tasks = re.findall(r'^  "([\w/-]+)": ', types.partition("export interface Pipelines {")[2], re.MULTILINE)
    assert set(tasks) == {*TASKS, *GENERATION_TASKS}
