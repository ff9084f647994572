"""Which file of this folder builds which ``model_type``."""

from __future__ import annotations

from collections.abc import Callable

from . import bert
from .architecture import Architecture
from .folder import Folder

FAMILIES: dict[str, Callable[[Folder], Architecture]] = {"bert": bert.build}
