"""Output where a tool is missing, fails or takes long."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import resource
import subprocess
import sys
import time

import pytest

from scripts import environment, paths
from scripts.console import Progress, SetupError, run
from scripts.pip import PipProgress, lock_entry
from scripts.stamps import Stamp
from scripts.tools import find_node, find_npm, node_with_jspi, run_quietly


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A PATH of one folder, with programs by name and output."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def program(name, answer):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\necho '{answer}'\n")
        file.chmod(0o755)

    return program


def test_node_missing(path):
    with pytest.raises(SetupError, match=r"^node is not on PATH: install Node\.js 20 or newer with npm"):
        find_node()


def test_node_too_old(path):
    path("node", "v18.19.0")
    with pytest.raises(SetupError, match=r"node is v18\.19\.0: install Node\.js 20 or newer"):
        find_node()


def test_node_that_cannot_suspend_webassembly(path, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NODE_MODULES", tmp_path)  # without the pinned Node
    path("node", "v24.0.0")
    with pytest.raises(SetupError, match=r"node cannot suspend WebAssembly \(JSPI\): install a newer Node\.js"):
        node_with_jspi()


def test_npm_missing(path):
    path("node", "v20.1.0")
    with pytest.raises(SetupError, match="npm is not on PATH"):
        find_npm()


def test_a_failing_program_is_one_sentence_after_its_last_lines(capsys):
    script = "print('why it failed'); print('npm error     at connect (node:net:1)'); raise SystemExit(3)"
    with pytest.raises(SetupError, match=r"^knitting failed \(python\S* ended with code 3\); buy wool\.$"):
        run_quietly([sys.executable, "-c", script], what="knitting", remedy="buy wool.")
    assert capsys.readouterr().err == "  | why it failed\n"


def test_a_program_that_does_not_start_is_one_sentence():
    with pytest.raises(SetupError, match=r"^knitting failed: /nowhere/needle does not start"):
        run_quietly(["/nowhere/needle"], what="knitting", remedy="buy one.")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SetupError("it broke; mend it."), 1, "error: it broke; mend it.\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted: run the same command again to go on.\n"),
        (OSError(28, "No space left on device", "/x/file"), 1, "error: /x/file: no space left on device;"),
    ],
)
def test_a_command_that_fails_shows_no_traceback(error, code, text, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == code
    assert capsys.readouterr().err.startswith(text)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_log_is_one_line_per_download(monkeypatch):
    log = io.StringIO()
    progress = Progress("file", 2_000_000, stream=log)
    for done in range(0, 2_000_000, 1000):
        progress.update(done)
    progress.finish()
    assert log.getvalue() == "  file: 2.0 MB of 2.0 MB (100 %)\n"


def test_progress_in_a_log_continues_during_a_long_download(monkeypatch):
    log = io.StringIO()
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("file", 2_000_000, stream=log)
    for now[0] in range(12):
        progress.update(int(now[0] * 100_000))
    assert log.getvalue().splitlines() == [
        "  file: 0.5 MB of 2.0 MB (25 %)",
        "  file: 1.0 MB of 2.0 MB (50 %)",
    ]


def test_progress_in_a_terminal_redraws_one_line():
    terminal = Terminal()
    progress = Progress("file", 2_000_000, stream=terminal)
    progress.update(1_000_000)
    progress.finish()
    assert terminal.getvalue() == "\r\x1b[K  file: 1.0 MB of 2.0 MB (50 %)\r\x1b[K  file: 2.0 MB of 2.0 MB (100 %)\n"


def test_pip_progress_names_the_large_files_only(capsys):
    read = PipProgress()
    for line in [
        "  Downloading tiny-1.0-py3-none-any.whl (10 kB)",
        "Progress 10000 of 10000",
        "  Downloading https://host/path/large-1.0-py3-none-any.whl (2 MB)",
        "Progress 1000000 of 2000000",
        "Progress 2000000 of 2000000",
    ]:
        read(line + "\n")
    assert capsys.readouterr().out == "  large-1.0-py3-none-any.whl: 2.0 MB of 2.0 MB (100 %)\n"


def test_a_lock_entry_is_one_package_with_all_its_hashes(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "numpy==2 ; python_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "pip==9 \\\n    --hash=sha256:cc\n"
    )
    assert lock_entry(lock, "pip") == "pip==9 \\\n    --hash=sha256:cc\n"
    assert lock_entry(lock, "numpy").splitlines()[1:] == ["    --hash=sha256:aa \\", "    --hash=sha256:bb"]
    with pytest.raises(SetupError, match="no entry for absent"):
        lock_entry(lock, "absent")


def test_a_second_set_up_computes_and_prints_nothing():
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-m", "scripts.setup"], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used < 5, "computed for seconds"
    waits = "another set-up or build of this checkout is running: waiting for it\n"  # a test in another process
    assert re.fullmatch(rf"({waits})?(set-up done in \d+ s\n)?", done.stdout), "it may print nothing but its time"


def test_every_command_of_the_makefile_is_listed_by_help():
    done = subprocess.run(["make", "help"], cwd=paths.ROOT, capture_output=True, text=True, check=True)
    for name in ("setup", "demo", "test", "check", "wheel", "site", "clean"):
        assert f"make {name} " in done.stdout


def test_make_without_a_python_is_an_error_of_one_sentence():
    done = subprocess.run(["make", "setup", "PYTHON="], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("error: no Python 3.11 or newer on PATH: install one")


def test_a_python_without_venv_is_an_error_that_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_venv_stamp", Stamp(tmp_path / "venv.json", tmp_path))
    monkeypatch.setattr(paths, "VENV", paths.CACHE / "never-made")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"has no 'venv' with pip: install it \(on Debian and Ubuntu .* python3-venv"):
        environment.ensure_venv()
    assert not paths.VENV.exists()


def test_an_emptied_module_rebuilds_the_environment(tmp_path, monkeypatch):
    module = tmp_path / "venv" / "lib" / "python3.11" / "site-packages" / "numpy" / "core.py"
    module.parent.mkdir(parents=True)
    module.write_text("answer = 42\n")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /usr\n")
    monkeypatch.setattr(paths, "VENV", tmp_path / "venv")
    stamp = Stamp(tmp_path / "venv.json", tmp_path)
    monkeypatch.setattr(environment, "_venv_stamp", stamp)
    environment.record_venv()
    key = json.loads((tmp_path / "venv.json").read_text())["key"]
    assert stamp.is_fresh(key)
    module.write_bytes(b"")
    assert not stamp.is_fresh(key)
