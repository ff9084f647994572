"""Grants: which models may acquire a registered tensor or a view of it, which are still to come, and which hold it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from ..errors import NotAConsumer, quoted
from .registry import REGISTERED


class Granted(ABC):
    """A name that models acquire and release. Of its ``consumer_models``, those ``awaited`` had no turn yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.consumer_models: set[str] = set()
        self.awaited: set[str] = set()

    @property
    @abstractmethod
    def whole(self) -> Any:
        """The SharedTensor that it is, or is a part of."""

    @property
    def key(self) -> str:
        """The registry's key of its holds."""
        return REGISTERED + self.name

    @property
    def holders(self) -> list[str]:
        """Names of the models that hold it: the tensor itself, not a view of it."""
        whole = self.whole
        return [] if whole.is_freed else [model for model, names in whole.entry.names.items() if self.key in names]

    def grant(self, models: Iterable[str]) -> None:
        """Let ``models`` acquire it. It is not freed before the new ones have acquired and released it."""
        self.awaited |= set(models) - self.consumer_models
        self.consumer_models.update(models)

    def hold(self, model: str) -> bool:
        """Add a hold of ``model``, which may. Return False if the model holds it already."""
        self.awaited.discard(model)
        self.whole.awaited.discard(model)  # a model that was granted the whole and takes a part has had its turn
        return bool(self.whole.entry.hold(model, self.key))

    def acquire(self, model: str) -> bool:
        """Add a hold of ``model``; a view keeps its tensor alive. Return False if the model holds it already.

        Raises NotAConsumer if it was granted neither it nor the whole tensor.
        """
        whole = self.whole
        whole.check()
        if model not in (*self.consumer_models, *whole.consumer_models, whole.producer_model):
            what = "tensor" if whole is self else "view"
            raise NotAConsumer(
                f"model {quoted(model)} was not granted {what} {quoted(self.name)}; "
                "grant it with share_tensor_between_models()"
            )
        whole.entry.storage.touch()
        new = self.hold(model)
        if new:
            whole.notify()
        return new

    def release(self, model: str) -> bool:
        """End the hold of ``model``. Return False if the model did not hold it."""
        ended = not self.whole.is_freed and bool(self.whole.entry.release(model, self.key))
        if ended:
            self.whole.notify()
        return ended
