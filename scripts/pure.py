"""Wheels of the pure Python packages for chat templates, made from the virtual environment.

Pyodide takes its own builds of these from its CDN; the site is self-contained, so it includes them (a page
with chats installs them). A compiled part (markupsafe has one) is omitted: the package runs without it. Equal packages
give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

from scripts import paths
from scripts.console import SetupError

#: In the order of installation: dependencies first.
PACKAGES = ("markupsafe", "jinja2")
LEFT_OUT = (".so", ".pyd", ".c", ".pyc")
REWRITTEN = ("RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json")
KIND = "Wheel-Version: 1.0\nGenerator: tensorcommons\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def pure_wheels() -> list[Path]:
    """Update dist/wheels; gives its wheels."""
    folder = paths.DIST / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    made = [_pack(name, folder) for name in PACKAGES]
    for other in set(folder.iterdir()) - set(made):
        other.unlink()
    return made


def _pack(name: str, folder: Path) -> Path:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise SetupError(f"{name} is not in the virtual environment: run 'make setup'.") from None
    files: dict[str, bytes] = {}
    for path in found.files or ():
        place = PurePosixPath(path)
        is_metadata = place.parts[0].endswith(".dist-info")
        if ".." in place.parts or place.suffix in LEFT_OUT or (is_metadata and place.name in REWRITTEN):
            continue
        files[str(place)] = Path(str(path.locate())).read_bytes()
    info = next(inner.split("/")[0] for inner in files if ".dist-info/" in inner)
    files[f"{info}/WHEEL"] = KIND.encode()
    record = "".join(f"{inner},sha256={_digest(data)},{len(data)}\n" for inner, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    target = folder / f"{re.sub('[-_.]+', '_', name)}-{found.version}-py3-none-any.whl"
    fresh = folder / f"{target.name}.new"
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(inner), data, zipfile.ZIP_DEFLATED)
    if target.is_file() and target.read_bytes() == fresh.read_bytes():
        fresh.unlink()  # for comparisons of times by the site
    else:
        fresh.replace(target)
    return target


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
