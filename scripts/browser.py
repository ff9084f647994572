"""Choice of the browser for tests and checks of the demo: the named one, the npm Chromium, or an installed one.

from scripts.browser import find_browser
browser = find_browser()
playwright.chromium.launch(executable_path=browser.path, args=list(browser.flags), env=browser.environment())
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from scripts import chromium
from scripts.console import SetupError

VARIABLE = "TENSORCOMMONS_BROWSER"

#: Enables WebGPU on the software adapter and WebNN; disables background network access.
FLAGS = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=WebMachineLearningNeuralNetwork",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

INSTALLED = ("google-chrome-stable", "google-chrome", "chromium", "chromium-browser", "chrome", "microsoft-edge-stable")
INSTALLED_MACOS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


@dataclass(frozen=True)
class Browser:
    """A browser to launch: its program, variables and flags, and the reason for its choice."""

    path: Path
    origin: str
    env: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = FLAGS

    def environment(self) -> dict[str, str]:
        """Return the environment of this process with the browser's variables, for Playwright's `env`."""
        return {**os.environ, **self.env}

    def __str__(self) -> str:
        return f"{self.origin}: {self.path}"


def find_browser() -> Browser:
    """Return the browser of TENSORCOMMONS_BROWSER, else the npm Chromium, else an installed Chrome or Chromium.

    Raises:
        SetupError: there is none, or the named one does not exist.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = shutil.which(named)
        if path is None:
            raise SetupError(f"{VARIABLE} names {named}, which is no program: correct it or unset it.")
        return Browser(Path(path), f"named by {VARIABLE}")
    reasons = []
    if not chromium.runs_here():
        reasons.append("the npm Chromium runs on Linux x86-64 only")
    elif not chromium.EXECUTABLE.exists():
        reasons.append("the npm Chromium is not unpacked (run 'make setup')")
    else:
        env, missing = library_environment(chromium.EXECUTABLE, chromium.LIBRARIES)
        if not missing:
            env["FONTCONFIG_FILE"] = str(chromium.FONTS_CONFIG)
            return Browser(chromium.EXECUTABLE, f"npm @sparticuz/chromium {chromium.package_version()}", env)
        reasons.append(f"the npm Chromium lacks the system libraries {', '.join(missing)}")
    for candidate in (*INSTALLED, *(INSTALLED_MACOS if sys.platform == "darwin" else ())):
        if path := shutil.which(candidate):
            return Browser(Path(path), "installed")
    raise SetupError(
        f"no browser to test with: {'; '.join(reasons)}; install Chrome or Chromium, or name one with {VARIABLE}."
    )


def library_environment(executable: Path, libraries: Path) -> tuple[dict[str, str], list[str]]:
    """Return the variables with which a program finds its libraries, and the names of those that are still missing.

    A machine that has them all uses its own; else all of the package are used, as one consistent set.
    """
    missing = _unresolved(executable, {})
    if not missing:
        return {}, []
    found = os.environ.get("LD_LIBRARY_PATH")
    env = {"LD_LIBRARY_PATH": f"{libraries}{os.pathsep}{found}" if found else str(libraries)}
    return env, _unresolved(executable, env)


def _unresolved(executable: Path, env: dict[str, str]) -> list[str]:
    """Return the shared libraries that the dynamic loader does not find."""
    try:
        answer = subprocess.run(
            ["ldd", str(executable)], capture_output=True, text=True, check=False, env={**os.environ, **env}
        )
    except OSError:
        return []  # without ldd only a launch shows it
    if answer.returncode != 0:  # another libc
        return [(answer.stderr or answer.stdout).strip().splitlines()[0] if answer.stderr or answer.stdout else "libc"]
    return sorted({line.split()[0] for line in answer.stdout.splitlines() if line.rstrip().endswith("not found")})


def main() -> int:
    """Print the browser that would run."""
    print(find_browser())
    return 0


if __name__ == "__main__":
    from scripts.console import run

    run(main)
