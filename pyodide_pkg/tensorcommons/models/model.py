"""A loaded model: an architecture with weights on a device, called with arrays, answering with named tensors.

The first call of a shape traces the architecture's forward into a graph; later calls replay the compiled program.
Lengths are padded to buckets, so that typing one more word compiles nothing, and the padding is cut off again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.device import Device
from ..errors import ShapeMismatch, TensorCommonsError, TensorReleased, UnsupportedModel
from ..graph.node import Node
from ..hub.tokenizer import Tokenizer
from ..shapes import Shape
from ..sharing.manager import TensorSharingManager
from ..tensor import Tensor

# Steps of at most a third: padding costs less than compiling for every length.
BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512)


INPUTS = ("input_ids", "attention_mask", "token_type_ids")
NameOf: TypeAlias = Callable[[np.ndarray[Any, Any]], str]


class Architecture(Protocol):
    """What a model type is: the weights it needs, and its forward pass over tensors.

    ``tasks`` are the pipelines that it serves. ``outputs`` names what :meth:`forward` can compute, ``defaults`` those
    a call gives when none are named, ``per_token`` those with a sequence axis (axis 1), from which padding is cut.
    """

    config: Any
    model_type: str
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    defaults: tuple[str, ...]
    per_token: frozenset[str]
    vocab_size: int
    type_vocab_size: int
    max_length: int

    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of the weights."""
        ...

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every output by name."""
        ...


def check_task(task: str, tasks: Sequence[str], name: str) -> None:
    """Raises UnsupportedModel unless ``task`` is one of ``tasks``, which the model ``name`` serves."""
    if task not in tasks:
        raise UnsupportedModel(f"{name} (for the task {task!r})", tasks)


@dataclass(frozen=True)
class ModelCall:
    """One model's part of a run; see ``sharing.manager.Call``."""

    key: tuple[Any, ...]
    names: tuple[str, ...]
    nodes: tuple[Node, ...]
    length: int
    per_token: frozenset[str]

    def finish(self, results: Sequence[Tensor]) -> dict[str, Tensor]:
        """The results by name, without the padding of the bucket."""
        return {
            name: result[:, : self.length] if name in self.per_token else result
            for name, result in zip(self.names, results, strict=True)
        }


class Model:
    """A model that :func:`from_pretrained` loaded. ``await model(**inputs)`` gives its outputs by name."""

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        device: Device,
        manager: TensorSharingManager,
        tokenizer: Tokenizer | None,
    ) -> None:
        self.name = name
        self.device = device
        self.manager = manager
        self.tokenizer = tokenizer
        self.architecture = architecture
        self._weights = dict(weights)
        self._traces: dict[tuple[Any, ...], tuple[Node, ...]] = {}
        self._unloaded = False
        manager.attach(self, architecture.model_type)

    @property
    def config(self) -> Any:
        """The architecture's typed configuration."""
        return self.architecture.config

    def __repr__(self) -> str:
        return f"<Model {self.name} on {self.device.kind}{', unloaded' if self._unloaded else ''}>"

    async def __call__(self, *, outputs: Sequence[str] | None = None, **inputs: Any) -> dict[str, Tensor]:
        """Run the model on ``input_ids``, ``attention_mask`` and ``token_type_ids``, each (batch, sequence).

        Only the first is required.

        ``outputs`` names the outputs wanted; by default those that the same model in `transformers` gives. The tensors
        stay on the device until they are read.

        Raises:
            ShapeMismatch: shapes do not fit each other or the model's maximum length.
            TensorReleased: the model was unloaded.
            MemoryBudgetError: the run does not fit.
        """
        return (await self.manager.run_together([(self, inputs)], [outputs]))[0]

    def unload(self) -> None:
        """Let the model's weights go; those that other models hold stay. Safe to call twice."""
        if not self._unloaded:
            self._unloaded = True
            self._weights.clear()
            self._traces.clear()
            self.tokenizer = None
            self.manager.release_model_tensors(self.name)

    def call(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None, name_of: NameOf) -> ModelCall:
        """The model's part of a run: nodes from the trace of this shape.

        ``name_of`` gives an array's name in the graph.

        Raises as :meth:`__call__` does.
        """
        wanted = tuple(self.architecture.defaults if outputs is None else outputs)
        missing = set(wanted) - set(self.architecture.outputs)
        if missing or not wanted:
            known = ", ".join(self.architecture.outputs)
            raise TensorCommonsError(f"{self.name} has no output {', '.join(sorted(missing))!r}; it has {known}")
        arrays, length = self._prepare(inputs)
        names = {key: name_of(array) for key, array in arrays.items()}
        key = (self.name, wanted, arrays["input_ids"].shape, tuple(names.items()))
        if key not in self._traces:
            results = self.architecture.forward(self._weights, _inputs(arrays["input_ids"].shape, names, self.device))
            self._traces[key] = tuple(results[name].node for name in wanted)
        return ModelCall(key, wanted, self._traces[key], length, self.architecture.per_token)

    async def compile(
        self,
        shapes: Iterable[tuple[int, int]],
        outputs: Sequence[str] | None = None,
        progress_callback: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile for inputs of these (batch, sequence) shapes now, rather than at the first call of each.

        ``outputs`` are those that will be asked for, by default the model's own. ``progress_callback(done, total)`` is
        called before the first shape and after each.

        Raises:
            ShapeMismatch: a shape is empty or longer than the model's maximum.
            TensorReleased: the model was unloaded.
        """
        last = self.architecture.vocab_size - 1  # tokens that no other input equals: equal inputs are one
        todo = {}
        for shape in shapes:
            inputs, _ = self._prepare({"input_ids": np.full(shape, last)})
            todo[inputs["input_ids"].shape] = inputs
        tell = progress_callback or (lambda done, total: None)
        tell(0, len(todo))
        for done, inputs in enumerate(todo.values(), 1):
            await self.manager.compile_together([(self, inputs)], [outputs])
            tell(done, len(todo))

    def probe(self) -> tuple[Node, ...]:
        """The nodes of every output on inputs of shape (2, 8), for comparing with other models."""
        return self._every((2, 8), {name: name for name in INPUTS})

    def every(self, inputs: Mapping[str, Any], name_of: NameOf) -> tuple[Node, ...]:
        """The nodes of every output for ``inputs``, traced anew. Raises as :meth:`__call__` does."""
        arrays, _ = self._prepare(inputs)
        return self._every(arrays["input_ids"].shape, {key: name_of(array) for key, array in arrays.items()})

    def _every(self, shape: Shape, names: Mapping[str, str]) -> tuple[Node, ...]:
        results = self.architecture.forward(self._weights, _inputs(shape, names, self.device))
        return tuple(tensor.node for tensor in results.values())

    def _prepare(self, inputs: Mapping[str, Any]) -> tuple[dict[str, np.ndarray[Any, Any]], int]:
        """Inputs checked, as int32 arrays padded to a bucket, what was left out filled in; and the length before."""
        if self._unloaded:
            raise TensorReleased(f"{self.name} was unloaded; load it again with from_pretrained()")
        unknown = set(inputs) - set(INPUTS)
        if unknown or "input_ids" not in inputs:
            problem = f"does not take {', '.join(sorted(unknown))}" if unknown else "needs input_ids"
            raise TensorCommonsError(f"{self.name} {problem}; inputs: {', '.join(INPUTS)}")
        ids = np.asarray(inputs["input_ids"])
        if ids.ndim != 2 or 0 in ids.shape or not np.issubdtype(ids.dtype, np.integer):
            raise ShapeMismatch(f"input_ids must be whole numbers (batch, sequence), not {ids.dtype} {ids.shape}")
        if ids.shape[1] > self.architecture.max_length:
            raise ShapeMismatch(
                f"{ids.shape[1]} tokens are over the {self.architecture.max_length} that {self.name} takes; truncate"
            )
        if ids.min() < 0 or ids.max() >= self.architecture.vocab_size:
            vocabulary = self.architecture.vocab_size
            raise TensorCommonsError(f"input_ids from {ids.min()} to {ids.max()} leave the {vocabulary} tokens known")
        mask = np.asarray(inputs["attention_mask"]) if "attention_mask" in inputs else np.ones_like(ids)
        types = np.asarray(inputs["token_type_ids"]) if "token_type_ids" in inputs else np.zeros_like(ids)
        if mask.shape != ids.shape or types.shape != ids.shape:
            raise ShapeMismatch(
                f"input_ids {ids.shape}, attention_mask {mask.shape} and token_type_ids {types.shape} differ in shape"
            )
        if types.min() < 0 or types.max() >= self.architecture.type_vocab_size:
            raise TensorCommonsError(
                f"token_type_ids from {types.min()} to {types.max()} are not below {self.architecture.type_vocab_size}"
            )
        length = ids.shape[1]
        bucket = min((size for size in BUCKETS if size >= length), default=length)
        padded = (ids.shape[0], min(bucket, self.architecture.max_length))
        named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: _padded(array, padded) for name, array in named.items()}, length


def _padded(array: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, Any]:
    """``array`` as int32, with zeros after its columns."""
    result = np.zeros(shape, np.int32)
    result[:, : array.shape[1]] = array
    return result


def _inputs(shape: Shape, names: Mapping[str, str], device: Device) -> dict[str, Tensor]:
    """Symbolic inputs of one shape under the graph's names."""
    spec = Spec(shape, dtypes.int32)
    return {key: Tensor.symbolic(Node(None, {}, (), spec, name=name), device) for key, name in names.items()}


def forward_nodes(architecture: Architecture, device: Device, shape: Shape) -> list[Node]:
    """A forward over inputs of one shape and stand-ins for the weights: what can be known before there are any."""
    specs = {name: Spec(size, dtypes.float32) for name, size in architecture.parameters().items()}
    weights = {
        name: Tensor.symbolic(Node(None, {}, (), spec, name=name, is_stored=True), device)
        for name, spec in specs.items()
    }
    results = architecture.forward(weights, _inputs(shape, {name: name for name in INPUTS}, device))
    return [tensor.node for tensor in results.values()]
