"""The programs of engines end with the tests, however these end."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING

from scripts.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import sys
from pathlib import Path
from e2e.engines.engine import running

with running(["sh", "-c", "sleep 600 & exec sleep 600"], Path(sys.argv[1]), {}, pass_fds=[int(sys.argv[2])]):
    print("started", flush=True)
    sys.stdin.read()
"""


def test_programs_end_when_the_tests_are_killed(tmp_path: Path) -> None:
    end, held = os.pipe()  # read at its end once no process holds the other
    tests = subprocess.Popen(
        [sys.executable, "-c", TESTS, str(tmp_path / "log"), str(held)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[held],
    )  # fmt: skip
    os.close(held)
    assert tests.stdin and tests.stdout
    with tests.stdin, tests.stdout, os.fdopen(end, "rb") as ended:
        assert tests.stdout.readline() == b"started\n"
        tests.kill()
        tests.wait()
        assert select.select([ended], [], [], 60)[0], "a program is still running"
        assert ended.read() == b""
