"""Build hook of hatchling: a wheel contains the compiled kernels of the CPU device.

``pip install .``, ``python -m build`` and an installation from git run it. The compiler is a requirement of such a
build unless the kernels in .cache/kernels are of the same source.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parents[1]))  # hatchling loads this file by its path

from scripts import kernels


class KernelsHook(BuildHookInterface[Any]):
    """Compile the kernels, and add them to the wheel. An editable installation, for CPython alone, has none."""

    def dependencies(self) -> list[str]:
        """Return the requirements of the build beside those of pyproject.toml."""
        return [] if kernels.are_built() else [kernels.compiler()]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels before the files of the wheel are collected.

        Raises:
            SetupError: the compiler is missing or fails.
        """
        if version != "editable":
            kernels.build_kernels()
            build_data["force_include"][str(kernels.FOLDER)] = "tensorcommons/backends/cpu/wasm"
