"""Layers of models, one in each file, and ``functional`` with the names of PyTorch's functional API."""

from __future__ import annotations

from . import functional

__all__ = ["functional"]
