"""Set-up of the hosts of docs/hosts.md, into .cache/hosts: Deno, Bun, WebGPU for Node, other Pyodides, notebooks.

    python -m scripts.hosts

Only the tests in e2e/hosts need them, so `make test` installs them. They are pinned there, in package-lock.json,
pins.toml and the locks of JupyterLite, marimo, and the wheels that these load into Pyodide.
"""

from __future__ import annotations

import venv
import zipfile
from importlib.metadata import Distribution
from typing import TYPE_CHECKING

from scripts import chromium, environment, paths, pip
from scripts.console import SetupError, run, say
from scripts.fetch import Fetcher
from scripts.lock import one_at_a_time
from scripts.pins import load_pins
from scripts.setup import wheel_source
from scripts.stamps import Stamp, key_of

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = paths.ROOT / "e2e" / "hosts"
HOSTS = paths.CACHE / "hosts"
NODE_MODULES = HOSTS / "node_modules"
INPUTS = (FOLDER / "package.json", FOLDER / "package-lock.json", paths.ROOT / ".npmrc")
PINS = FOLDER / "pins.toml"
NOTEBOOKS_LOCK, WHEELS_LOCK = FOLDER / "notebooks.lock", FOLDER / "wheels.lock"
NOTEBOOKS = HOSTS / "notebooks"  # a virtual environment: JupyterLite finds its kernel below sys.prefix only
WHEELS = HOSTS / "wheels"

#: Programs that npm has for some platforms only; here for Linux x86-64.
DENO = NODE_MODULES / "@deno" / "linux-x64-glibc" / "deno"
BUN = NODE_MODULES / "@oven" / "bun-linux-x64" / "bin" / "bun"


def ensure_hosts() -> None:
    """Install the hosts, unless they are installed already. Raises the errors of `programs`."""
    stamp = Stamp(paths.STAMPS / "hosts.json", paths.CACHE)
    key = key_of(*INPUTS, PINS, NOTEBOOKS_LOCK, WHEELS_LOCK, str(NOTEBOOKS.resolve()))
    if stamp.is_fresh(key):
        return
    stamp.clear()
    environment.install_npm(INPUTS, HOSTS)
    fetched = Fetcher(HOSTS, wheel_source).fetch(load_pins(PINS))
    modules = [NODE_MODULES / ".package-lock.json", *NODE_MODULES.glob("*/package.json")]
    made = install_notebooks()
    wheels = pip.download_for_pyodide(WHEELS_LOCK, WHEELS)
    stamp.write(key, [*modules, *programs(NODE_MODULES), *fetched, *made, *wheels, pack_yaml()])


def install_notebooks() -> list[Path]:
    """Install JupyterLite and marimo into their virtual environment. Returns their programs."""
    say(f"JupyterLite and marimo → {NOTEBOOKS.relative_to(paths.ROOT)}")
    venv.create(NOTEBOOKS, clear=True)
    pip.install_beside(NOTEBOOKS / "bin" / "python", NOTEBOOKS_LOCK)
    return [NOTEBOOKS / "bin" / name for name in ("jupyter-lite", "marimo", "uv")]


def pack_yaml() -> Path:
    """Pack that environment's PyYAML without its C part, which it can do without: PyPI has no wheel for Pyodide."""
    (found,) = Distribution.discover(name="pyyaml", path=[str(next(NOTEBOOKS.glob("lib/*/site-packages")))])
    wheel = WHEELS / f"pyyaml-{found.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in found.files or ():
            if path.suffix == ".py" or path.name in ("METADATA", "WHEEL"):
                archive.write(path.locate(), path)
    return wheel


def programs(folder: Path) -> list[Path]:
    """Return the programs of Deno and Bun in ``folder``: npm succeeds without them, since they are optional packages.

    Raises:
        SetupError: one is missing on Linux x86-64.
    """
    here = [folder / program.relative_to(NODE_MODULES) for program in (DENO, BUN)]
    missing = [program.name for program in here if not program.is_file()]
    if missing and chromium.runs_here():
        names = " and ".join(missing)
        raise SetupError(f"npm did not install {names}: check its configured registry, then run this again.")
    return [program for program in here if program.is_file()]


def main() -> int:
    """Install the hosts."""
    with one_at_a_time("hosts."):  # beside a build of the site
        ensure_hosts()
    return 0


if __name__ == "__main__":
    run(main)
