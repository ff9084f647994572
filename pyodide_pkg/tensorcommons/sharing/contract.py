"""The contract between models and their manager: what a manager needs of a model, and what of a call of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..backends.select import Decision
from ..graph.traces import Trace, Traces
from ..tensor import Tensor


@dataclass(frozen=True)
class Request:
    """One call of a model: all that a run needs of it.

    ``key`` is equal for requests of one model that compute the same: outputs, shapes, and the adapters, if any.
    ``trace`` is what to compute, under the model's own names of its arguments, and ``arrays`` are the arguments by
    these names. ``outputs`` names the results; ``cuts`` are slices, by output, that remove the rows of padding.
    """

    model: str
    key: tuple[Hashable, ...]
    trace: Trace
    arrays: Mapping[str, np.ndarray[Any, Any]]
    outputs: tuple[str, ...]
    cuts: Mapping[str, tuple[slice, ...]]

    def finish(self, results: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the results, in the order of the trace's nodes, by name and without the rows of padding."""
        return {
            name: result[self.cuts[name]] if name in self.cuts else result
            for name, result in zip(self.outputs, results, strict=True)
        }


class Movable(Protocol):
    """A loaded model, as a manager needs it."""

    name: str
    model_type: str  # the architecture's name
    device: Device
    is_unloaded: bool
    traces: Traces
    manager: Any

    def explain(self) -> str:
        """Return one sentence that names the device of the model, the reason for it, and the other devices."""

    def request(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None, once: dict[Hashable, Any] | None = None
    ) -> Request:
        """Build the request for one call. ``once`` caches what several models of a run prepare in common.

        Raises ShapeMismatch for inputs that the model cannot take.
        """

    @property
    def related_traces(self) -> Sequence[Traces]:
        """Traces of its calls, without and with adapters: runs keep what any of them computes, too."""

    def unload(self) -> None:
        """Release its weights. Safe to call twice."""

    @property
    def stored_specs(self) -> Mapping[str, Spec]:
        """The specs of its weights, by name, on a device that stores their formats; on others they are float32."""

    @property
    def product(self) -> str:
        """The product that its time consists of; see :meth:`.Devices.decide`."""

    def moved(self, decision: Decision, weights: Mapping[str, Tensor]) -> None:
        """Note the model's new device, and its weights there by name."""
