"""Set-up of the hosts beside browsers, of docs/hosts.md, into .cache/hosts: Deno, Bun, WebGPU for Node, older Pyodides.

    python -m scripts.hosts

Only the tests in e2e/hosts need them, so `make test` installs them. They are pinned there, in package-lock.json and
pins.toml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts import chromium, environment, paths
from scripts.console import SetupError, run
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

#: Programs that npm has for some platforms only; here for Linux x86-64.
DENO = NODE_MODULES / "@deno" / "linux-x64-glibc" / "deno"
BUN = NODE_MODULES / "@oven" / "bun-linux-x64" / "bin" / "bun"


def ensure_hosts() -> None:
    """Install the hosts, unless they are installed already. Raises the errors of `programs`."""
    stamp = Stamp(paths.STAMPS / "hosts.json", paths.CACHE)
    key = key_of(*INPUTS, PINS)
    if stamp.is_fresh(key):
        return
    stamp.clear()
    environment.install_npm(INPUTS, HOSTS)
    fetched = Fetcher(HOSTS, wheel_source).fetch(load_pins(PINS))
    modules = [NODE_MODULES / ".package-lock.json", *NODE_MODULES.glob("*/package.json")]
    stamp.write(key, [*modules, *programs(NODE_MODULES), *fetched])


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
    with one_at_a_time():
        ensure_hosts()
    return 0


if __name__ == "__main__":
    run(main)
