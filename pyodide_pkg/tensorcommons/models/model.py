"""A loaded model: an architecture with weights on a device, called with arrays, answering with named tensors.

The first call of a shape traces the architecture's forward into a graph; later calls replay the compiled program. What
the inputs are and how they come to a shape is the architecture's business (architecture.py, text.py).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..backends.select import Decision
from ..dtypes import as_dtype
from ..errors import ShapeMismatch, TensorCommonsError, TensorReleased, check_listener, quoted
from ..graph.needs import Need, bytes_to_run, least_need
from ..graph.node import Node
from ..graph.traces import Arguments, Trace, Traces
from ..hub.tokenizer import Tokenizer
from ..shapes import Shape
from ..sharing.manager import TensorSharingManager
from ..sharing.storage import Storage
from ..tensor import Tensor
from .architecture import Architecture, Arrays, Prepared, Trim
from .decode_programs import DecodePrograms
from .decoder import Decoder
from .generation import GenerationSession, stream, write
from .generation_options import Options
from .preprocessing import ImageProcessor
from .sampling import Ids
from .sentence import SentenceUse

logger = logging.getLogger("tensorcommons")


@dataclass(frozen=True)
class ModelRequest:
    """One model's part of a run; see ``sharing.runner.Request``."""

    model: str
    key: tuple[Any, ...]
    trace: Trace
    arrays: Arrays
    outputs: tuple[str, ...]
    cuts: Mapping[str, Trim]

    def finish(self, results: Sequence[Tensor]) -> dict[str, Tensor]:
        """The results by name, without what padding gave."""
        return {
            name: result[self.cuts[name]] if name in self.cuts else result
            for name, result in zip(self.outputs, results, strict=True)
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
        why: str = "it was asked for",
        processor: ImageProcessor | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.why = why  # it is on that device
        self.manager = manager
        self.tokenizer = tokenizer
        self.processor = processor
        self.architecture = architecture
        self._weights = dict(weights)
        self.traces = self._new_traces()
        self._steps: DecodePrograms | None = None
        self._unloaded = False
        self.why_no_tokenizer = "it was loaded without one"
        self.use = SentenceUse()
        self._warned: set[str] = set()
        manager.attach(self, architecture.model_type)

    @property
    def config(self) -> Any:
        """The architecture's typed configuration."""
        return self.architecture.config

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs: of text ``input_ids``, ``attention_mask`` and so on, each (batch, sequence)."""
        return self.architecture.inputs.names

    @property
    def model_type(self) -> str:
        """The architecture's name."""
        return self.architecture.model_type

    @property
    def is_unloaded(self) -> bool:
        """True after :meth:`unload`, or if the manager was closed."""
        return self._unloaded

    @property
    def specs(self) -> dict[str, Spec]:
        """Shape and dtype of each weight on the device, by name; none after :meth:`unload`."""
        return {name: tensor.node.spec for name, tensor in self._weights.items()}

    def explain(self) -> str:
        """One sentence: the device that the model is on, why, and what the others are."""
        return f"{self.name} is on {self.manager.devices.explain(Decision(self.device, self.why))}"

    def warn_once(self, text: str) -> None:
        """Log a warning about the model, the first time that it is due."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s: %s", self.name, text)

    def __repr__(self) -> str:
        return f"<Model {self.name} on {self.device.kind}{', unloaded' if self._unloaded else ''}>"

    async def __call__(self, *, outputs: Sequence[str] | None = None, **inputs: Any) -> dict[str, Tensor]:
        """Run the model on arrays by the names that `transformers` gives its inputs; :attr:`input_names` lists them.

        ``outputs`` names the outputs wanted; by default those that the same model in `transformers` gives. The tensors
        stay on the device until they are read.

        Raises:
            ShapeMismatch: shapes do not fit each other or the model's maximum length.
            TensorReleased: the model was unloaded.
            MemoryBudgetError: the run does not fit.
        """
        return (await self.manager.run_together([(self, inputs)], [outputs]))[0]

    async def to(self, device: str | Device, progress_callback: Callable[[int, int], None] | None = None) -> Model:
        """Move the loaded model to ``device`` (a kind, a Device, or "auto"), and give it back.

        A weight that is there already is shared there, too; where nobody else holds it, it leaves the device it was on.
        Runs under way end where they began. ``progress_callback(done, total)`` is called with bytes. A failure or a
        cancel leaves the model where it was.

        Raises:
            DeviceUnavailable: there is no such device, with the reason.
            MemoryBudgetError: the weights do not fit, or (DeviceMemoryError) the device cannot hold them.
            TensorReleased: the model was unloaded.
        """
        self._check_loaded()
        check_listener("progress_callback", progress_callback)
        decision = self.manager.devices.decide_for(self.name, self.specs, device)
        if decision.device is self.device:
            self.why = decision.why
        else:
            await self.manager.move(self, decision, *([progress_callback] if progress_callback else []))
        return self

    def moved(self, decision: Decision, weights: Mapping[Storage, Tensor]) -> None:
        """See ``sharing.manager.Movable``."""
        self.device, self.why = decision.device, decision.why
        for name, tensor in self._weights.items():
            storage = tensor.node.storage
            if storage is not None and storage in weights:
                self._weights[name] = weights[storage]
        self.traces = self._new_traces()
        self._steps = None

    async def generate(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        on_token: Callable[[Ids], None] | None = None,
        **options: Any,
    ) -> Ids:
        """Continue the prompts ``input_ids`` (batch, sequence): all tokens, (batch, sequence + new) int32.

        Shorter prompts are padded on the left, ``attention_mask`` 0 there. An encoder-decoder answers instead: its
        tokens begin with the start token. ``options`` are those of
        :class:`~tensorcommons.models.generation_options.Options`, over the model's own (``generation_config.json``, or
        ``config.json`` where there is none). With ``num_return_sequences`` n, n rows follow each other for each prompt.
        ``on_token`` gets the tokens (batch,) of each step.

        Raises:
            TensorCommonsError: the model does not generate, an option is unknown, out of range or not built in, or the
                model's scores are NaN.
            ShapeMismatch: the prompts are not such arrays, or leave no room to write.
            MemoryBudgetError: keys and values do not fit beside the model.
            TensorReleased: the model was unloaded.
        """
        check_listener("on_token", on_token)
        return await write(self._writer(input_ids, attention_mask, options), on_token)

    def stream(self, input_ids: Any, attention_mask: Any = None, **options: Any) -> AsyncIterator[Ids]:
        """:meth:`generate`, as an iterator over the tokens (batch,) of each step.

        Leaving the loop early, or cancelling it, gives back what the writing took.
        """
        return stream(self._writer(input_ids, attention_mask, options))

    async def compile_generation(
        self,
        shapes: Iterable[Shape],
        progress_callback: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> None:
        """Compile now what :meth:`generate` takes for prompts of these shapes (batch, sequence) and these ``options``.

        Reading a prompt and each step are programs, one a size of the cache up to ``max_new_tokens``.
        ``progress_callback(done, total)`` counts those of one shape. Raises as :meth:`generate` does.
        """
        check_listener("progress_callback", progress_callback)
        for shape in map(_counts, shapes):
            writer = self._writer(np.zeros(shape, np.int32), None, options)
            await writer.compile(progress_callback or (lambda done, total: None))

    def _writer(self, input_ids: Any, attention_mask: Any, options: Mapping[str, Any]) -> GenerationSession:
        if not isinstance(self.architecture, Decoder):
            raise TensorCommonsError(f"{self.name} ({self.architecture.model_type}) does not generate text")
        chosen = Options.of(self.architecture.generation, options)
        decode = self.tokenizer.decode if self.tokenizer is not None else None
        checks = options.get("pad_token_id") is not None
        return GenerationSession(
            self, self.architecture, input_ids, attention_mask, chosen, decode, checks_padding=checks
        )

    def steps(self) -> DecodePrograms:
        """The programs for writing, where the model is now. Raises TensorReleased after :meth:`unload`."""
        self._check_loaded()
        if self._steps is None:
            assert isinstance(self.architecture, Decoder)
            self._steps = DecodePrograms(
                self.name, self.architecture, dict(self._weights), self.device
            )  # a move replaces those here
        return self._steps

    def unload(self) -> None:
        """Let the model's weights go; those that other models hold stay. Safe to call twice."""
        if not self._unloaded:
            self._unloaded = True
            self._weights.clear()
            self.traces = self._new_traces()
            self._steps = None
            self.tokenizer = None
            self.why_no_tokenizer = "it was unloaded"
            self.manager.release_model_tensors(self.name)

    def request(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None, once: dict[Hashable, Any] | None = None
    ) -> ModelRequest:
        """The model's part of a run. ``once`` has what models prepare once a run. Raises as :meth:`__call__` does."""
        known, asked = self.architecture.outputs, self.architecture.defaults if outputs is None else outputs
        wanted = tuple(asked) if isinstance(asked, Iterable) and not isinstance(asked, str) else ()
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            raise TensorCommonsError(
                f"{self.name} has no output {quoted(missing or asked)}; outputs are {', '.join(known)}"
            )
        self._check_loaded()
        once, alike = {} if once is None else once, (self.architecture.inputs, *map(_by_object, inputs.items()))
        if alike not in once:
            prepared = self._prepare(inputs)
            once[alike] = prepared, _arguments(prepared.arrays)
        prepared, arguments = once[alike]
        trace = self.traces.of(arguments, wanted)
        return ModelRequest(self.name, (wanted, arguments), trace, prepared.arrays, wanted, prepared.cuts)

    def bytes_to_run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> int:
        """Device bytes that a run of ``inputs`` takes beside the weights, as planned. Raises as :meth:`__call__`."""
        return bytes_to_run(self.device, self.request(inputs, outputs).trace.nodes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, wherever they are now."""
        storages = {tensor.node.storage for tensor in self._weights.values()}
        return sum(storage.nbytes for storage in storages if storage is not None)

    def least_need(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Need:
        """The least memory that a run of ``inputs`` takes where weights come and go. Raises as :meth:`__call__`."""
        return least_need(self.device, self.request(inputs, outputs).trace.nodes)

    async def compile(
        self,
        shapes: Iterable[Shape],
        outputs: Sequence[str] | None = None,
        progress_callback: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile for inputs of these shapes now, rather than at the first call of each.

        A shape is (batch, sequence) of text, (batch, height, width) of images.

        ``outputs`` are those that will be asked for, by default the model's own. ``progress_callback(done, total)`` is
        called before the first shape and after each.

        Raises:
            ShapeMismatch: a shape is empty or longer than the model's maximum.
            TensorReleased: the model was unloaded.
        """
        check_listener("progress_callback", progress_callback)
        todo = {}
        for shape in map(_counts, shapes):
            inputs = self.architecture.inputs.example(shape)
            todo[tuple(array.shape for array in self._prepare(inputs).arrays.values())] = inputs
        tell = progress_callback or (lambda done, total: None)
        tell(0, len(todo))
        for done, inputs in enumerate(todo.values(), 1):
            await self.manager.compile_together([(self, inputs)], [outputs])
            tell(done, len(todo))

    def _new_traces(self) -> Traces:
        """Traces over the weights where they are now."""
        architecture, weights, device = self.architecture, dict(self._weights), self.device

        def forward(arguments: Mapping[str, Node]) -> Mapping[str, Node]:
            given = {name: Tensor.symbolic(node, device) for name, node in arguments.items()}
            return {name: tensor.node for name, tensor in architecture.forward(weights, given).items()}

        def example() -> Arguments:
            return _arguments(
                architecture.inputs.prepare(architecture.inputs.example(), architecture.model_type).arrays
            )

        return Traces(device, forward, example)

    def _check_loaded(self) -> None:
        if self._unloaded:
            raise TensorReleased(f"{self.name} was unloaded; load it again with from_pretrained()")

    def _prepare(self, inputs: Mapping[str, Any]) -> Prepared:
        self._check_loaded()
        unknown = sorted(set(inputs) - set(self.input_names))
        if unknown:
            raise TensorCommonsError(
                f"{self.name} does not take {', '.join(unknown)}; inputs: {', '.join(self.input_names)}"
            )
        return self.architecture.inputs.prepare(inputs, self.name)


def _arguments(arrays: Arrays) -> Arguments:
    return tuple([(name, Spec(array.shape, as_dtype(array.dtype))) for name, array in arrays.items()])


def _by_object(named: tuple[str, Any]) -> tuple[str, int]:
    return named[0], id(named[1])


def _counts(shape: Any) -> Shape:
    """``shape``, if it is one. Raises ShapeMismatch where it is not."""
    if not isinstance(shape, (tuple, list)) or any(type(count) is not int or count < 0 for count in shape):
        raise ShapeMismatch(f"a shape to compile for is whole numbers, as (batch, sequence), not {quoted(shape)}")
    return tuple(shape)
