"""Runs of pip beside each other: the end of one leaves the temporary files of the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts import pip

if TYPE_CHECKING:
    import pytest


def test_a_run_leaves_the_temporary_files_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.paths.CACHE", tmp_path)
    folders: list[Path] = []

    def run(command: list[Any], *, env: dict[str, str], **_: Any) -> None:
        folders.append(Path(env["TMPDIR"]))
        if len(folders) == 1:
            pip.install(tmp_path / "requirements.txt")
            assert folders[0].is_dir() and folders[0] != folders[1]

    monkeypatch.setattr(pip, "run_quietly", run)
    pip.install(tmp_path / "requirements.txt")
    assert len(folders) == 2 and not any(folder.exists() for folder in folders)
