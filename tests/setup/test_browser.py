"""Choice of the browser: the named one, then npm's, then an installed one; and its libraries."""

from __future__ import annotations

import pytest

from scripts import browser, chromium
from scripts.console import SetupError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with only ldd on PATH, whose output the test writes; without a named or npm browser."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", str(bin_folder))
    monkeypatch.delenv(browser.VARIABLE, raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(chromium, "EXECUTABLE", tmp_path / "npm" / "chromium")
    monkeypatch.setattr(chromium, "LIBRARIES", tmp_path / "npm" / "lib")
    monkeypatch.setattr(chromium, "runs_here", lambda: True)
    monkeypatch.setattr(chromium, "package_version", lambda: "153.0.0")

    class Machine:
        def program(self, name, script="exit 0"):
            path = bin_folder / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            return path

        def npm_browser(self, ldd="exit 0"):
            chromium.EXECUTABLE.parent.mkdir()
            chromium.EXECUTABLE.write_text("")
            self.program("ldd", ldd)
            return chromium.EXECUTABLE

    return Machine()


LACKS = "printf '\\tlibnss3.so => not found\\n\\tlibc.so.6 => /lib/libc.so.6 (0x0)\\n'"


def test_a_named_browser_is_preferred(machine, monkeypatch):
    machine.npm_browser()
    machine.program("google-chrome")
    named = machine.program("my-browser")
    monkeypatch.setenv(browser.VARIABLE, str(named))
    found = browser.find_browser()
    assert (found.path, found.origin) == (named, "named by TENSORCOMMONS_BROWSER")


def test_a_named_browser_may_be_a_command_on_path(machine, monkeypatch):
    named = machine.program("my-browser")
    monkeypatch.setenv(browser.VARIABLE, "my-browser")
    assert browser.find_browser().path == named


def test_a_named_browser_that_does_not_exist_is_an_error(machine, monkeypatch):
    machine.npm_browser()
    monkeypatch.setenv(browser.VARIABLE, "/nowhere/chrome")
    with pytest.raises(SetupError, match="TENSORCOMMONS_BROWSER names /nowhere/chrome, which is no program"):
        browser.find_browser()


def test_the_npm_browser_is_preferred_to_an_installed_one(machine):
    npm = machine.npm_browser()
    machine.program("google-chrome")
    found = browser.find_browser()
    assert (found.path, found.origin) == (npm, "npm @sparticuz/chromium 153.0.0")
    assert "LD_LIBRARY_PATH" not in found.env
    assert str(found).startswith("npm @sparticuz/chromium 153.0.0: ")


def test_an_installed_browser_is_the_last_choice(machine):
    installed = machine.program("chromium")
    assert browser.find_browser().path == installed


def test_bundled_libraries_are_used_where_the_system_lacks_them(machine):
    machine.npm_browser(f'test -n "$LD_LIBRARY_PATH" || {LACKS}')
    found = browser.find_browser()
    assert found.env["LD_LIBRARY_PATH"] == str(chromium.LIBRARIES)
    assert found.environment()["LD_LIBRARY_PATH"] == str(chromium.LIBRARIES)


def test_a_browser_that_still_lacks_libraries_is_skipped(machine):
    machine.npm_browser(LACKS)
    installed = machine.program("google-chrome")
    assert browser.find_browser().path == installed


def test_without_a_browser_the_error_lists_the_attempts(machine):
    machine.npm_browser(LACKS)
    with pytest.raises(SetupError, match=r"lacks the system libraries libnss3\.so; install Chrome .*TENSORCOMMONS_BR"):
        browser.find_browser()


def test_the_npm_browser_is_used_on_linux_x86_only(machine, monkeypatch):
    machine.npm_browser()
    monkeypatch.setattr(chromium, "runs_here", lambda: False)
    with pytest.raises(SetupError, match="runs on Linux x86-64 only"):
        browser.find_browser()
