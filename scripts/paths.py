"""Folders of the checkout: one cache folder for fetched files, one dist folder for built ones."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pyodide_pkg" / "tensorcommons"
SHADERS = ROOT / "shaders"
WEB = ROOT / "web"

CACHE = ROOT / ".cache"
VENV = CACHE / "venv"
NPM = CACHE / "npm"
NODE_MODULES = NPM / "node_modules"
DOWNLOADS = CACHE / "downloads"
CHROMIUM = CACHE / "chromium"
MODELS = CACHE / "models"
CONVERTED = CACHE / "converted"
STAMPS = CACHE / "stamps"

DIST = ROOT / "dist"
SITE = DIST / "site"


def venv_python() -> Path:
    """Return the interpreter of the virtual environment of set-up."""
    return VENV / "bin" / "python"
