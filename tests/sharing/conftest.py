"""The CPU device yields to the event loop after each part of a plan, so that no test depends on how long one takes."""

from __future__ import annotations

import pytest

from tensorcommons.backends.cpu import backend


@pytest.fixture(autouse=True)
def every_part_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yield after each part, however short it is."""
    monkeypatch.setattr(backend, "TURN", -1.0)
