from __future__ import annotations

from e2e.lab import lab

__all__ = ["lab"]
