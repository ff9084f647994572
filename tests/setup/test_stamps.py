"""Stamps of build steps: valid only while inputs and outputs are unchanged since the step ended."""

from __future__ import annotations

import os

import pytest

from scripts.stamps import Stamp, key_of


@pytest.fixture
def made(tmp_path):
    """Stamp of one file."""
    file = tmp_path / "out"
    file.write_bytes(b"result")
    stamp = Stamp(tmp_path / "stamps/step.json", tmp_path)
    stamp.write("key", [file])
    return stamp, file


def test_fresh_when_nothing_changed(made):
    stamp, _ = made
    assert stamp.is_fresh("key")


def test_stale_when_the_inputs_changed(made):
    stamp, _ = made
    assert not stamp.is_fresh("another key")


def test_stale_when_a_file_is_gone(made):
    stamp, file = made
    file.unlink()
    assert not stamp.is_fresh("key")


def test_stale_when_the_content_changed_at_equal_size(made):
    stamp, file = made
    file.write_bytes(b"RESULT")
    os.utime(file, ns=(0, 0))
    assert not stamp.is_fresh("key")


def test_fresh_when_only_the_time_changed(made):
    stamp, file = made
    os.utime(file, ns=(0, 0))
    assert stamp.is_fresh("key")


def test_stale_after_the_step_began_again(made):
    stamp, _ = made
    stamp.clear()
    assert not stamp.is_fresh("key")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": "key"}', b'{"key": "key", "files": {"out": [1]}}'])
def test_a_truncated_stamp_is_stale(made, tmp_path, content):
    stamp, _ = made
    (tmp_path / "stamps/step.json").write_bytes(content)
    assert not stamp.is_fresh("key")


def test_a_folder_is_compared_by_names_and_content(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = key_of(folder)
    assert key_of(folder) == first
    (folder / "a").rename(folder / "b")
    assert key_of(folder) != first


def test_keys_of_different_parts_differ():
    assert key_of("ab", "c") != key_of("a", "bc")
