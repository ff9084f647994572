"""The part of a loaded model that its adapters use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..backends.base import Spec
from ..backends.device import Device
from ..nn import Param, Weight
from ..sharing.contract import Movable
from .architecture import Architecture


class Base(Movable, Protocol):
    """A loaded model."""

    architecture: Architecture

    @property
    def adapters(self) -> list[str]:
        """Names of the loaded adapters, in the order in which they were loaded."""

    def loaded_adapters(self) -> Sequence[Any]:
        """Return the loaded adapters, in the order in which they were loaded."""

    def add_adapter(self, adapter: Any) -> None:
        """Take a loaded adapter."""

    def forget_adapter(self, adapter: Any) -> None:
        """Drop what was compiled for an adapter, and release its weights."""

    def present_specs(self) -> dict[Param, Spec]:
        """Return the specs of the base's weights on the device."""

    def weights(self) -> dict[Param, Weight]:
        """Return a copy of the table of the base's weights."""

    def with_weights(self, name: str, device: Device, weights: Mapping[Param, Weight]) -> Any:
        """Return a model of another name that differs in its weights, which it holds."""
