"""Pins that agree with each other, and locks with versions and hashes but without hosts."""

from __future__ import annotations

import json
import re
import tomllib

from scripts import paths
from scripts.pins import load_pins
from scripts.pip import lock_entry
from scripts.setup import PINS_FILE

PINS = load_pins(PINS_FILE)
REQUIREMENTS = paths.ROOT / "scripts" / "requirements.lock"


def test_every_file_has_its_own_path_a_hash_and_a_source():
    assert len({pin.path for pin in PINS}) == len(PINS)
    for pin in PINS:
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


def test_the_npm_lock_has_hashes_and_no_registry():
    packages = json.loads((paths.ROOT / "package-lock.json").read_text())["packages"]
    root = packages.pop("")
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not [name for name, entry in packages.items() if "resolved" in entry]
    wanted = json.loads((paths.ROOT / "package.json").read_text())
    assert root["dependencies"] == wanted["dependencies"]
    assert root["devDependencies"] == wanted["devDependencies"]
    # Exact versions only.
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", v) for v in (wanted["dependencies"] | wanted["devDependencies"]).values())


def test_the_wheel_needs_numpy_only():
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["numpy"]
    assert project["requires-python"] == ">=3.11"
