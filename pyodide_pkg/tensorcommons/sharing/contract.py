"""The contract between models and their manager: what a manager needs of a model, and what of a call of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..backends.select import Decision
from ..graph.traces import Trace, Traces
from ..tensor import Tensor
from .storage import Storage


class Request(Protocol):
    """One model's part of a run: immutable, and all that the run needs of the model."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def key(self) -> Hashable:
        """Key of the graph: equal for requests of one model that compute the same."""

    @property
    def trace(self) -> Trace:
        """The trace to compute, under the model's own names of its arguments."""

    @property
    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The arguments by these names."""

    def finish(self, results: Sequence[Tensor]) -> dict[str, Tensor]:
        """Named outputs from the computed nodes, in their order."""


class Movable(Protocol):
    """A loaded model, as a manager needs it."""

    name: str
    device: Device
    traces: Traces

    def request(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None, once: dict[Hashable, Any] | None = None
    ) -> Request:
        """The model's part of a run. ``once`` has what models prepare once a run.

        Raises ShapeMismatch for inputs that the model cannot take.
        """

    def unload(self) -> None:
        """Release its weights. Safe to call twice."""

    @property
    def model_type(self) -> str:
        """The architecture's name."""

    @property
    def is_unloaded(self) -> bool:
        """True if its weights were released."""

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Shape and dtype of its weights, by name."""

    def moved(self, decision: Decision, weights: Mapping[Storage, Tensor]) -> None:
        """Note the model's new device, and its weights there by the storages of those that it had."""
