"""Python files that a page adds to its runtime: a module or a package, imported from a folder of its own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from ..errors import TensorCommonsError, quoted

Send = Callable[[Any], None]


class Programs:
    """The modules that pages added, by name."""

    def __init__(self) -> None:
        self._files: dict[str, Mapping[str, str]] = {}
        self._folder = ""

    def add(self, name: str, files: Mapping[str, str]) -> tuple[ModuleType, bool]:
        """Import module ``name``, which is among ``files`` (texts by path); return it, and whether it was new.

        Raises TensorCommonsError if a path is not relative, or a module of this name and other files exists.
        """
        if name in self._files:
            if self._files[name] != files:
                raise TensorCommonsError(f"a module {name} with other files was imported before: choose another name")
            return sys.modules[name], False
        if not name.isidentifier() or name in sys.modules or importlib.util.find_spec(name) is not None:
            raise TensorCommonsError(f"{quoted(name)} is the name of another module, or not a name: choose another")
        self._folder = self._folder or tempfile.mkdtemp()
        for path, text in files.items():
            parts = PurePosixPath(path).parts
            if path.startswith("/") or ".." in parts or not path.endswith(".py"):
                raise TensorCommonsError(f"{quoted(path)} must be the relative path of a .py file")
            target = Path(self._folder, *parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
        if self._folder not in sys.path:
            sys.path.insert(0, self._folder)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        self._files[name] = dict(files)
        return module, True

    async def leave(self, page: str) -> None:
        """Call ``leave(page)`` of the modules that have it."""
        for name in self._files:
            if hasattr(sys.modules[name], "leave"):
                await sys.modules[name].leave(page)

    async def call(self, name: str, function: str, given: list[Any], **offered: Any) -> Any:
        """Call a public function of a module that was added. It gets those of ``offered`` that it has as keyword-only.

        Raises TensorCommonsError if the module was not imported or has no function of that name.
        """
        found = getattr(sys.modules[name], function, None) if name in self._files else None
        if found is None or function.startswith("_") or not callable(found):
            raise TensorCommonsError(f"{name} has no public function {quoted(function)}")
        own = {entry.name for entry in inspect.signature(found).parameters.values() if entry.kind is entry.KEYWORD_ONLY}
        result = found(*given, **{key: value for key, value in offered.items() if key in own})
        return await result if inspect.isawaitable(result) else result
