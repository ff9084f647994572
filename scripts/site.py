"""Build of dist/site: the static page with everything it loads, for any web server or GitHub Pages.

    .cache/venv/bin/python -m scripts.site [--models small]

With `--models small` the large sample models are left out (365 MB), and the page says so. The site has no host names,
absolute paths or headers. Running it again copies changed files and removes stale ones.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
from typing import TYPE_CHECKING

from scripts import paths
from scripts.console import run, say
from scripts.lock import one_at_a_time
from scripts.models import link_or_copy, load_models
from scripts.pins import load_pins
from scripts.pure import pure_wheels
from scripts.sample_pictures import sample_pictures
from scripts.setup import PINS_FILE
from scripts.snapshot import PYODIDE, make_start
from scripts.stamps import write_atomically
from scripts.wheel import build_wheel, version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scripts.models import SampleModel

PYODIDE_FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")

#: Path in the site → file below node_modules.
VENDOR = {
    "vendor/uPlot.esm.js": "uplot/dist/uPlot.esm.js",
    "vendor/uPlot.min.css": "uplot/dist/uPlot.min.css",
    "vendor/uPlot.LICENSE.txt": "uplot/LICENSE",
    "vendor/pyodide/pyodide.mjs.map": "pyodide/pyodide.mjs.map",
    **{f"vendor/pyodide/{name}": f"pyodide/{name}" for name in PYODIDE_FILES},
}

#: Files of the site that no page downloads.
NOT_DOWNLOADED = (".map", ".txt", ".md", "LICENSE")

WORKER = "service-worker.js"  # begins with the list of the files that it keeps
NOT_KEPT = ("models/", "docs/", "README.md", "tensorcommons.d.mts", "wheel/", "vendor/pyodide/numpy-")

LINK_FROM = 1_000_000  # bytes; larger files are hard links to the cache instead of copies


def site_files(wheel: Path, start: Sequence[Path], models: Sequence[SampleModel]) -> dict[str, Path]:
    """Return every file that is copied unchanged: path in the site → source. The site has ``models``."""
    files: dict[str, Path] = {}
    if paths.WEB.is_dir():
        for path in sorted(paths.WEB.rglob("*")):
            if (
                path.is_file()
                and path.name != WORKER
                and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(paths.WEB).parts)
            ):
                files[path.relative_to(paths.WEB).as_posix()] = path
    for name, source in VENDOR.items():
        files[name] = paths.NODE_MODULES / source
    for pin in load_pins(PINS_FILE):
        if pin.path.startswith("pyodide/"):
            files[f"vendor/{pin.path}"] = paths.DOWNLOADS / pin.path
    for path in sorted((paths.PACKAGE / "bridge").rglob("*.js")):
        files[path.relative_to(paths.PACKAGE).as_posix()] = path
    for each in (*pure_wheels(), wheel):
        files[f"wheel/{each.name}"] = each
    for path in start:
        files[f"start/{path.name}"] = path
    for path in (paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").rglob("*"))):
        if path.is_file():
            files[path.relative_to(paths.ROOT).as_posix()] = path
    for path in sample_pictures():
        files[f"samples/{path.name}"] = path
    offered = {model.id for model in models}
    for path in sorted(paths.MODELS.rglob("*")):
        if path.is_file() and path.relative_to(paths.MODELS).parts[0] in offered:
            files[f"models/{path.relative_to(paths.MODELS).as_posix()}"] = path
    return files


def manifest(files: Mapping[str, Path], wheel: Path) -> dict[str, object]:
    """Make the page's manifest: versions, models, and the size of every download."""
    sizes = {
        name: path.stat().st_size
        for name, path in sorted(files.items())
        if name.startswith(("vendor/", "bridge/", "start/", "wheel/", "models/")) and not name.endswith(NOT_DOWNLOADED)
    }
    models = [
        {
            "id": model.id,
            "title": model.title,
            "task": model.task,
            "base": model.base,
            "dtype": model.dtype,
            "large": model.large,
            "absent": f"models/{model.id}/config.json" not in sizes,
            "bytes": sum(size for name, size in sizes.items() if name.startswith(f"models/{model.id}/")),
        }
        for model in load_models()
    ]
    return {
        "version": version(),
        "build": hashlib.sha256(json.dumps(_hashes(files)).encode()).hexdigest()[:16],
        "wheel": f"wheel/{wheel.name}",
        "snapshot": _named(files, "start/memory-"),
        "packages": _named(files, "start/packages-"),
        "compiled": _named(files, "start/compiled-"),
        "chat": [f"wheel/{each.name}" for each in pure_wheels()],
        "pyodide": json.loads((PYODIDE / "package.json").read_text())["version"],
        "models": models,
        "files": sizes,
    }


def _named(files: Mapping[str, Path], prefix: str) -> str:
    (name,) = (name for name in files if name.startswith(prefix))
    return name


def _hashes(files: Mapping[str, bytes | Path]) -> dict[str, str]:
    """Hash the files that a page of this version starts from."""
    return {
        name: base64.b64encode(hashlib.sha256(data if isinstance(data, bytes) else data.read_bytes()).digest()).decode()
        for name, data in sorted(files.items())
        if not name.startswith((*NOT_KEPT, ".")) and not (name.startswith("vendor/") and name.endswith(NOT_DOWNLOADED))
    }


def service_worker(files: Mapping[str, bytes | Path]) -> bytes:
    """Make the service worker, with the hash of each file that it keeps."""
    hashes = _hashes(files)
    site = json.dumps({"version": hashlib.sha256(repr(hashes).encode()).hexdigest()[:16], "files": hashes})
    return f"const SITE = {site};\n".encode() + (paths.WEB / WORKER).read_bytes()


def notice() -> str:
    """Name the location of Pyodide's sources, because its npm package has no licence file."""
    package = json.loads((PYODIDE / "package.json").read_text())
    return (
        f"Pyodide {package['version']}, {package['license']}, unmodified: {package['homepage']}\n"
        "The wheels beside this file carry their licences inside (*.dist-info).\n"
    )


def build_site(folder: Path = paths.SITE, *, small: bool = False) -> Path:
    """Update the site in ``folder`` and return it; if ``small``, without the large models."""
    wheel = build_wheel()
    models = [model for model in load_models() if not (small and model.large)]
    files = site_files(wheel, make_start(*pure_wheels(), wheel), models)
    written = {
        "manifest.json": json.dumps(manifest(files, wheel), indent=1).encode() + b"\n",
        "vendor/pyodide/NOTICE.txt": notice().encode(),
        ".nojekyll": b"",  # GitHub Pages serves the folder unchanged
    }
    written[WORKER] = service_worker({**files, **written})
    changed = _remove_stale(folder, {*files, *written})
    for name, source in files.items():
        target = folder / name
        if not _is_same(source, target):
            changed += 1
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.stat().st_size >= LINK_FROM:
                link_or_copy(source, target)
            else:
                target.unlink(missing_ok=True)
                shutil.copy2(source, target)
    for name, data in written.items():
        target = folder / name
        if not target.is_file() or target.read_bytes() != data:
            changed += 1
            write_atomically(target, data)
    total = sum(path.stat().st_size for path in files.values())
    where = folder.relative_to(paths.ROOT) if folder.is_relative_to(paths.ROOT) else folder
    say(f"{where}: {len(files) + len(written)} files, {total / 1e6:.0f} MB, {changed} changed")
    say(f'in a page with Pyodide: await micropip.install("<address of the site>/wheel/{wheel.name}")')
    return folder


def _is_same(source: Path, target: Path) -> bool:
    try:
        there = target.stat()
    except OSError:
        return False
    wanted = source.stat()
    return (there.st_size, there.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns)


def _remove_stale(folder: Path, names: set[str]) -> int:
    removed = 0
    # Longest first: a folder comes after its content.
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in names:
            path.unlink()
            removed += 1
    return removed


def main() -> int:
    """Build the wheel, then the site."""
    parser = argparse.ArgumentParser(description="Build dist/site.")
    parser.add_argument("--models", choices=("all", "small"), default="all", help="small leaves the large models out")
    given = parser.parse_args()
    with one_at_a_time():
        build_site(small=given.models == "small")
    return 0


if __name__ == "__main__":
    run(main)
