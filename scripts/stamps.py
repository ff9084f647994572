"""Stamps of build steps: records of their inputs and outputs, by content.

A stamp is removed before its step starts, and written by an atomic rename after it ended; an interrupted
set-up leaves no stamp, so the step runs again. On a second run a file counts as unchanged
if it has the recorded size and modification time; if only the time changed, the content is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(*parts: str | bytes | Path) -> str:
    """Return one hash of everything a step depends on; a Path counts by its content (of a folder, all files)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            for file in files:
                if "__pycache__" not in file.parts:
                    digest.update(f"{file.relative_to(part)}\0{sha256_of(file)}\0".encode())
        else:
            digest.update((part if isinstance(part, bytes) else part.encode()) + b"\0")
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file atomically: a reader gets the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


class Stamp:
    """Record of one step: its key and its output files, each with size, modification time and SHA-256."""

    def __init__(self, path: Path, base: Path) -> None:
        self._path = path
        self._base = base

    def is_fresh(self, key: str) -> bool:
        """Return True if the step ended with this key and its files are unchanged."""
        record = self._read()
        if record is None or record[0] != key:
            return False
        files = record[1]
        changed = False
        for name, (size, mtime_ns, digest) in files.items():
            path = self._base / name
            try:
                now = path.stat()
            except OSError:
                return False
            if now.st_size != size:
                return False
            if now.st_mtime_ns != mtime_ns:
                if sha256_of(path) != digest:
                    return False
                files[name] = (size, now.st_mtime_ns, digest)
                changed = True
        if changed:
            self._write(key, files)
        return True

    def clear(self) -> None:
        """Remove the stamp before the step runs."""
        self._path.unlink(missing_ok=True)

    def write(self, key: str, files: Iterable[Path]) -> None:
        """Record that the step ended, and its output files."""
        record = {}
        for path in files:
            now = path.stat()
            record[path.relative_to(self._base).as_posix()] = (now.st_size, now.st_mtime_ns, sha256_of(path))
        self._write(key, record)

    def _write(self, key: str, files: dict[str, tuple[int, int, str]]) -> None:
        write_atomically(self._path, json.dumps({"key": key, "files": files}, indent=1, sort_keys=True).encode())

    def _read(self) -> tuple[str, dict[str, tuple[int, int, str]]] | None:
        try:
            record = json.loads(self._path.read_bytes())
            return record["key"], {name: (f[0], f[1], f[2]) for name, f in record["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None  # missing or invalid, so the step runs
