"""The ops that were made part of another one, by name: attributes are plain data, and ops are defined above graphs."""

from __future__ import annotations

from ..backends.base import Op

MET: dict[str, Op] = {}
