from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hub.server import FileServer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer()) as running:
        yield running
