"""The contract between an architecture's file and the code that loads and runs models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..dtypes import as_dtype
from ..errors import UnsupportedModel, quoted
from ..graph.node import Node, argument
from ..graph.traces import Arguments
from ..nn import Manifest, Param, Weight, Weights
from ..shapes import Shape
from ..tensor import Tensor
from .weight_mapping import WeightMapping

Arrays: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
Shapes: TypeAlias = "tuple[tuple[str, Shape, np.dtype[Any]], ...]"


@dataclass(frozen=True)
class Prepared:
    """The inputs of one call: checked, completed, and padded to a shape for which a program exists or is compiled.

    ``arrays`` are the forward's inputs by name. ``cuts`` are slices by output that remove the rows of padding.
    """

    arrays: Arrays
    cuts: Mapping[str, tuple[slice, ...]] = field(default_factory=dict)

    @property
    def shapes(self) -> Shapes:
        """Names, shapes and NumPy dtypes of ``arrays``."""
        return tuple([(name, array.shape, array.dtype) for name, array in self.arrays.items()])


@lru_cache(64)
def arguments_of(shapes: Shapes) -> Arguments:
    """Return names and specs of arrays of these ``shapes``."""
    return tuple([(name, Spec(shape, as_dtype(dtype))) for name, shape, dtype in shapes])


class Inputs(Protocol):
    """The inputs of a model."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that a call may pass."""

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """Check and complete a call's inputs, whose names are valid. ``model`` is the model's name, for messages.

        Raises:
            ShapeMismatch: shapes are inconsistent, or exceed the model's maximum.
            TensorCommonsError: an input is missing, or has values outside the model's range.
        """

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Create inputs of a shape, no two arrays equal; the default is a frequent shape.

        The values do not matter: they are used to compile kernels and to compare graphs. ``shape`` is (batch, sequence)
        for text, (batch, height, width) for images.
        """


class Architecture(Protocol):
    """A model type: its parameters, its inputs, and its forward pass over tensors.

    ``tasks`` are the pipelines that it supports. ``outputs`` names the outputs of :meth:`forward`, ``defaults`` those
    that a call without ``outputs`` computes.
    """

    model_type: str
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    defaults: tuple[str, ...]

    @property
    def config(self) -> Any:
        """The typed configuration."""

    @property
    def inputs(self) -> Inputs:
        """The inputs of the model."""

    @property
    def names(self) -> tuple[WeightMapping, ...]:
        """The mapping from names in files to parameters, for each set of files; ``Param.checkpoint`` is its index."""

    @property
    def manifest(self) -> Manifest:
        """The parameters by name."""

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute every output by name from the arrays of ``inputs.prepare``."""


def check_task(task: str, tasks: Sequence[str], name: str) -> None:
    """Raise UnsupportedModel unless ``task`` is one of ``tasks``, those of the model ``name``."""
    if task not in tasks:
        raise UnsupportedModel(f"{name} (for the task {quoted(task)})", tasks)


def example_inputs(architecture: Architecture) -> Prepared:
    """Prepare example inputs of a frequent shape."""
    return architecture.inputs.prepare(architecture.inputs.example(), architecture.model_type)


def precision_on(device: Device, precision: str) -> str:
    """Return the precision of quantised products on ``device``: "exact" unless it has others for "fast"."""
    return precision if device.backend.multiplies_int8 else "exact"


def weights_of(
    architecture: Architecture, tensors: Mapping[str, Tensor], precision: str = "exact"
) -> dict[Param, Weight]:
    """Return the weights whose ``tensors`` have the names of the parameters; "<name>.order" is that of its columns."""
    return {
        param: Weight(tensors[name], param.shape, precision, tensors.get(f"{name}.order"))
        for name, param in architecture.manifest.items()
    }


def forward_nodes(
    architecture: Architecture, device: Device, specs: Mapping[str, Spec], precision: str = "exact"
) -> list[Node]:
    """Trace a forward over example inputs and placeholders for the weights, so that it can be planned without them."""
    leaves = {name: Tensor.symbolic(argument(name, spec), device) for name, spec in specs.items()}
    weights = weights_of(architecture, leaves, precision_on(device, precision))
    example = arguments_of(example_inputs(architecture).shapes)
    inputs = {name: Tensor.symbolic(argument(name, spec, is_stored=False), device) for name, spec in example}
    return [tensor.node for tensor in architecture.forward(weights, inputs).values()]
