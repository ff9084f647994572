"""Unpacking of the npm Chromium (Linux x86-64) into .cache/chromium, with its libraries and fonts."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tarfile
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import SetupError, say
from scripts.stamps import Stamp, key_of
from scripts.tools import find_node, run_quietly

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = paths.NODE_MODULES / "@sparticuz" / "chromium"
EXECUTABLE = paths.CHROMIUM / "chromium"
LIBRARIES = paths.CHROMIUM / "lib"
FONTS_CONFIG = paths.CHROMIUM / "fonts.conf"

#: Compressed file → folder of its content below .cache/chromium.
ARCHIVES = {"swiftshader.tar": ".", "al2023.tar": ".", "fonts.tar": "."}


def runs_here() -> bool:
    """True where the npm Chromium can run at all."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def package_version() -> str:
    """Return the version of the installed npm package."""
    return str(json.loads((PACKAGE / "package.json").read_text())["version"])


def software_vulkan() -> dict[str, str]:
    """Return the variables with which a program finds Chromium's software adapter as its only Vulkan driver."""
    libraries = filter(None, [str(paths.CHROMIUM), os.environ.get("LD_LIBRARY_PATH")])
    driver = paths.CHROMIUM / "vk_swiftshader_icd.json"
    return {"VK_DRIVER_FILES": str(driver), "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def ensure_chromium() -> None:
    """Unpack Chromium, unless it is unpacked already or cannot run on this machine."""
    if not runs_here():
        return
    stamp = Stamp(paths.STAMPS / "chromium.json", paths.CACHE)
    key = key_of(package_version(), paths.ROOT / "scripts" / "chromium.py", str(paths.CHROMIUM.resolve()))
    if stamp.is_fresh(key):
        return
    say(f"Chromium {package_version()} → {paths.CHROMIUM.relative_to(paths.ROOT)}")
    stamp.clear()
    fresh = paths.CACHE / "chromium.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    jobs: list[str | Path] = [PACKAGE / "bin" / "chromium.br", fresh / "chromium"]
    for name in ARCHIVES:
        jobs += [PACKAGE / "bin" / f"{name}.br", fresh / name]
    run_quietly(
        [find_node(), paths.ROOT / "scripts" / "unbrotli.mjs", *jobs],
        what="unpacking the npm package @sparticuz/chromium",
        remedy=f"remove {paths.NPM} and run this again.",
    )
    (fresh / "chromium").chmod(0o755)
    for name, folder in ARCHIVES.items():
        _untar(fresh / name, fresh / folder)
        (fresh / name).unlink()
    # The fonts.conf of the package names folders of a cloud function; this one adds its fonts to those of the system.
    (fresh / "fonts.conf").write_text(
        f"""<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>{paths.CHROMIUM / "fonts"}</dir>
  <cachedir>{paths.CACHE / "fontconfig"}</cachedir>
</fontconfig>
"""
    )
    shutil.rmtree(paths.CHROMIUM, ignore_errors=True)
    fresh.rename(paths.CHROMIUM)
    stamp.write(key, sorted(path for path in paths.CHROMIUM.rglob("*") if path.is_file()))


def _untar(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(folder, filter="data")
            else:  # Python 3.11.0 to 3.11.3; the archive's integrity hash is in package-lock.json
                tar.extractall(folder)  # noqa: S202
    except tarfile.TarError as error:
        raise SetupError(
            f"unpacking {archive.name} of the npm package @sparticuz/chromium failed ({error}); "
            f"remove {paths.NPM} and run this again."
        ) from error
