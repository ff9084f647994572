"""Layers of models, one a file, and PyTorch's functional names in ``functional``."""

from __future__ import annotations

from . import functional

__all__ = ["functional"]
