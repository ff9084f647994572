"""The contract of a model type, between a file of this folder and the loading and running around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..dtypes import as_dtype
from ..errors import UnsupportedModel, quoted
from ..graph.node import Node, argument
from ..shapes import Shape
from ..tensor import Tensor
from .weight_mapping import WeightMapping

Arrays: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
Trim: TypeAlias = "tuple[slice, ...]"


@dataclass(frozen=True)
class Prepared:
    """One call's inputs as a program takes them: checked, complete, and of a shape that other calls share.

    ``arrays`` are the forward's inputs by name; their shapes and dtypes are those of the program. ``cuts`` says for an
    output what of it answers the call: the rest comes from padding.
    """

    arrays: Arrays
    cuts: Mapping[str, Trim] = field(default_factory=dict)


class Inputs(Protocol):
    """The inputs of a model. ``names`` are the inputs that a call may give."""

    @property
    def names(self) -> tuple[str, ...]:
        """See above."""
        ...

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """A call's inputs, of which all names are known. ``model`` is its name, for messages.

        Raises:
            ShapeMismatch: shapes do not fit each other or the model.
            TensorCommonsError: an input is missing, or has values outside the range that the model takes.
        """
        ...

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Inputs of a shape, as a call gives them, no two of them equal; ``None`` is a shape that is likely.

        The values do not matter: kernels are compiled and models compared with them. What ``shape`` counts is the
        architecture's own: (batch, sequence) of text, (batch, height, width) of images.
        """
        ...


class Architecture(Protocol):
    """A model type: the weights it needs, what it is called with, and its forward pass over tensors.

    ``tasks`` are the pipelines that it serves. ``outputs`` names what :meth:`forward` can compute, ``defaults`` those
    a call gives when none are named. ``names`` says how checkpoints spell the parameters.
    """

    model_type: str
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    defaults: tuple[str, ...]
    names: WeightMapping

    @property
    def config(self) -> Any:
        """Its typed configuration."""
        ...

    @property
    def inputs(self) -> Inputs:
        """Its inputs."""
        ...

    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of the weights."""
        ...

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name, of the arrays that ``inputs.prepare`` made."""
        ...


def check_task(task: str, tasks: Sequence[str], name: str) -> None:
    """Raises UnsupportedModel unless ``task`` is one of ``tasks``, which the model ``name`` serves."""
    if task not in tasks:
        raise UnsupportedModel(f"{name} (for the task {quoted(task)})", tasks)


def symbolic_inputs(arrays: Arrays, names: Mapping[str, str], device: Device) -> dict[str, Tensor]:
    """Stand-ins for ``arrays`` under the graph's ``names`` of them."""
    specs = {key: Spec(array.shape, as_dtype(array.dtype)) for key, array in arrays.items()}
    return {key: Tensor.symbolic(argument(names[key], spec, is_stored=False), device) for key, spec in specs.items()}


def forward_nodes(architecture: Architecture, device: Device, specs: Mapping[str, Spec]) -> list[Node]:
    """A forward over example inputs and stand-ins for weights of ``specs``: what can be known before there are any."""
    weights = {name: Tensor.symbolic(argument(name, spec), device) for name, spec in specs.items()}
    arrays = architecture.inputs.prepare(architecture.inputs.example(), architecture.model_type).arrays
    results = architecture.forward(weights, symbolic_inputs(arrays, {name: name for name in arrays}, device))
    return [tensor.node for tensor in results.values()]
