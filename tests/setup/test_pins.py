"""Pins that agree with each other, and locks with versions and hashes but without hosts."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from scripts import hosts, paths
from scripts.pins import load_pins
from scripts.pip import lock_entry
from scripts.setup import PINS_FILE

PINS = load_pins(PINS_FILE)
OF_HOSTS = load_pins(hosts.PINS)
REQUIREMENTS = paths.ROOT / "scripts" / "requirements.lock"


def test_every_file_has_its_own_path_a_hash_and_a_source():
    pins = PINS + OF_HOSTS
    assert len({pin.path for pin in pins}) == len(pins)
    for pin in pins:
        assert re.fullmatch(r"[0-9a-f]{64}", pin.sha256), pin.path
        assert pin.size > 0
        assert pin.urls or pin.wheel
        assert all(url.startswith("https://") for url in pin.urls)


def test_pyodide_wheels_are_those_of_its_own_lock():
    packages = json.loads((paths.NODE_MODULES / "pyodide/pyodide-lock.json").read_text())["packages"]
    pinned = {pin.path.removeprefix("pyodide/"): pin.sha256 for pin in PINS if pin.path.startswith("pyodide/")}
    assert pinned == {
        packages[n]["file_name"]: packages[n]["sha256"] for n in ("numpy", "micropip", "packaging", "pillow")
    }


def test_the_public_urls_of_pyodide_have_the_npm_version():
    version = json.loads((paths.NODE_MODULES / "pyodide/package.json").read_text())["version"]
    for pin in PINS:
        if pin.path.startswith("pyodide/"):
            assert f"/v{version}/full/" in pin.urls[0]


def test_the_requirements_lock_has_hashes_and_no_host():
    text = REQUIREMENTS.read_text()
    assert "://" not in text
    entries = re.findall(r"^(\S+)==", text, re.MULTILINE)
    assert entries
    for name in entries:
        assert "--hash=sha256:" in lock_entry(REQUIREMENTS, name)


def test_every_requirement_is_locked():
    wanted = [line.split("#")[0].strip() for line in (paths.ROOT / "scripts/requirements.in").read_text().splitlines()]
    locked = set(re.findall(r"^(\S+)==", REQUIREMENTS.read_text(), re.MULTILINE))
    assert {name for name in wanted if name} <= locked


@pytest.mark.parametrize("folder", [paths.ROOT, hosts.FOLDER], ids=["set-up", "hosts"])
def test_the_npm_lock_has_hashes_and_no_registry(folder):
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    root = packages.pop("")
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    wanted = json.loads((folder / "package.json").read_text())
    for kind in ("dependencies", "devDependencies", "optionalDependencies"):
        assert root.get(kind) == wanted.get(kind)
        # Exact versions only.
        assert all(re.fullmatch(r"(npm:pyodide@)?\d+\.\d+\.\d+", version) for version in wanted.get(kind, {}).values())


def test_the_public_urls_of_older_pyodides_have_the_npm_versions():
    wanted = json.loads((hosts.FOLDER / "package.json").read_text())["dependencies"]
    for pin in OF_HOSTS:
        version = wanted[pin.path.split("/")[1]].removeprefix("npm:pyodide@")
        assert pin.urls == (f"https://cdn.jsdelivr.net/pyodide/v{version}/full/{pin.path.rpartition('/')[2]}",)


def test_the_wheel_needs_numpy_only():
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["numpy"]
    assert project["requires-python"] == ">=3.11"
