"""A loaded model: an architecture with its weights on a device, called with arrays, returning tensors by name.

The first call of a shape traces the architecture's forward into a graph; later calls replay the compiled program. The
architecture defines the inputs and pads them (architecture.py, text.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..backends.select import Decision
from ..errors import ShapeMismatch, TensorCommonsError, TensorReleased, check_listener, quoted
from ..graph.needs import Need, bytes_to_run, least_need
from ..graph.node import Node
from ..graph.traces import Traces
from ..hub.tokenizer import Tokenizer
from ..nn import Weights
from ..shapes import Shape
from ..sharing.contract import Request
from ..sharing.manager import TensorSharingManager
from ..tensor import Tensor
from .architecture import Architecture, Prepared, arguments_of, example_inputs, precision_on
from .batch import Batch
from .beam_session import BeamSession
from .decode_programs import DecodePrograms
from .decoder import Decoder, product_of
from .generation import GenerationSession, complete, stream
from .generation_options import Options
from .preprocessing import ImageProcessor
from .sentence import SentenceUse

logger = logging.getLogger("tensorcommons")


class Model:
    """A model loaded by :func:`from_pretrained`. ``await model(**inputs)`` returns its outputs by name.

    ``model_type`` is the architecture's name and ``config`` its typed configuration. ``input_names`` are the names of
    the inputs; for text ``input_ids``, ``attention_mask`` and so on, each (batch, sequence). ``is_unloaded`` is true
    after :meth:`unload`, or if the manager was closed.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> model = await tc.from_pretrained("./models/all-MiniLM-L6-v2", manager=manager)
    >>> await model.compile([(1, 16)])
    >>> ids = np.array([[101, 1996, 4937, 102]])
    >>> outputs = await model(input_ids=ids)
    >>> (await outputs["last_hidden_state"].read()).shape
    (1, 4, 384)
    >>> model.weight_bytes, model.weight_formats
    (90852864, {'float32': 90852864})
    >>> model.bytes_to_run({"input_ids": ids}) > 0
    True
    >>> model.explain()
    'all-MiniLM-L6-v2 is on cpu (WebAssembly...'
    >>> await model.to("cpu") is model
    True
    >>> model.unload()
    >>> manager.close()
    """

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        weights: Weights,
        stored: Mapping[str, Spec],
        device: Device,
        manager: TensorSharingManager,
        tokenizer: Tokenizer | None,
        why: str = "it was asked for",
        processor: ImageProcessor | None = None,
        precision: str = "exact",
    ) -> None:
        self.name = name
        self.device = device
        self.why = why  # the reason for the choice of the device
        self.manager = manager
        self.tokenizer = tokenizer
        self.processor = processor
        self.precision = precision  # that was asked for; a device without "fast" products computes exactly
        self.architecture = architecture
        self.model_type, self.config = architecture.model_type, architecture.config
        self.input_names = architecture.inputs.names
        self._weights = dict(weights)
        self._stored = dict(stored)
        self.traces = self._new_traces()
        self._batch: Batch | None = None
        self.is_unloaded = False
        self.why_no_tokenizer = "it was loaded without one"
        self.use = SentenceUse()
        self._warned: set[str] = set()
        manager.attach(self)

    @property
    def specs(self) -> dict[str, Spec]:
        """Shape and dtype of each weight on the device, by name; empty after :meth:`unload`."""
        specs = {param.name: weight.data.spec for param, weight in self._weights.items()}
        for param, weight in self._weights.items():
            if weight.order is not None:
                specs[f"{param.name}.order"] = weight.order.spec
        return specs

    @property
    def stored_specs(self) -> dict[str, Spec]:
        """See ``sharing.contract.Movable``."""
        return {name: spec for name, spec in self._stored.items() if not self.is_unloaded}

    @property
    def product(self) -> str:
        """See ``sharing.contract.Movable``."""
        return product_of(self.architecture)

    def explain(self) -> str:
        """Return one sentence that names the device of the model, the reason for it, and the other devices."""
        return f"{self.name} is on {self.manager.devices.explain(Decision(self.device, self.why))}"

    def warn_once(self, text: str) -> None:
        """Log a warning about the model, unless the same text was logged before."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning("%s: %s", self.name, text)

    def __repr__(self) -> str:
        return f"<Model {self.name} on {self.device.kind}{', unloaded' if self.is_unloaded else ''}>"

    async def __call__(self, *, outputs: Sequence[str] | None = None, **inputs: Any) -> dict[str, Tensor]:
        """Run the model on arrays, named as the inputs in `transformers`; :attr:`input_names` lists the names.

        For text: ``input_ids``, ``attention_mask`` and others, int (batch, sequence). For images: ``pixel_values``,
        float (batch, 3, height, width). ``outputs`` names the outputs to compute, by default those of the same model in
        `transformers`. They are tensors, such as "last_hidden_state" (batch, sequence, hidden) and "logits", which
        stay on the device until they are read.

        Raises:
            TensorCommonsError: an input is missing or unknown, or has values outside the model's range.
            ShapeMismatch: shapes are inconsistent, or exceed the model's maximum length.
            TensorReleased: the model was unloaded.
            MemoryBudgetError: the run does not fit.
        """
        return (await self.manager.run_together([(self, inputs)], [outputs]))[0]

    async def to(self, device: str | Device, progress_callback: Callable[[int, int], None] | None = None) -> Model:
        """Move the model to ``device`` (a kind, a Device, or "auto") and return the model.

        Weights that exist on the new device are shared there; weights that no other model holds are freed on the old
        one. Runs that have started finish on the old device. ``progress_callback(done, total)`` gets bytes. After a
        failure or a cancellation the model is on the old device.

        Raises:
            DeviceUnavailable: the device is not available; the message has the reason.
            MemoryBudgetError: the weights exceed the limit, or (DeviceMemoryError) the memory of the device.
            TensorReleased: the model was unloaded.
        """
        self._check_loaded()
        check_listener("progress_callback", progress_callback)
        decision = self.manager.devices.decide_for(self.name, self.stored_specs, device, self.product)
        if decision.device is self.device:
            self.why = decision.why
        else:
            await self.manager.move(self, decision, *([progress_callback] if progress_callback else []))
        return self

    def moved(self, decision: Decision, weights: Mapping[str, Tensor]) -> None:
        """See ``sharing.contract.Movable``."""
        self.device, self.why = decision.device, decision.why
        for param, weight in self._weights.items():
            data = weights.get(param.name, weight.data)
            order = weights.get(f"{param.name}.order", weight.order) if weight.order is not None else None
            precision = precision_on(self.device, self.precision)
            self._weights[param] = replace(weight, data=data, precision=precision, order=order)
        self.traces = self._new_traces()
        self._batch = None

    async def generate(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        on_token: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> Any:
        """Continue the prompts ``input_ids`` (batch, sequence) and return all tokens, (batch, sequence + new) int32.

        Shorter prompts are padded on the left, with ``attention_mask`` 0 there. The tokens of an encoder-decoder begin
        with the start token instead of the prompt. ``options`` are those of
        :class:`~tensorcommons.models.generation_options.Options`; they override the model's own
        (``generation_config.json``, or ``config.json`` if that is missing). With ``num_return_sequences`` n, each
        prompt has n consecutive rows, with ``num_beams`` its best texts, the best one first. ``on_token`` gets the
        tokens (batch,) of each step; with beams it is refused.

        With ``output_logprobs=True`` the result is a pair: the tokens, and the logarithms of the probabilities of the
        new ones, (batch, new) float32, after all processors and filters, NaN for padding. ``on_token`` then gets pairs.

        Raises:
            TensorCommonsError: the model does not generate, an option is unknown, out of range or unsupported, or the
                model's scores are NaN.
            ShapeMismatch: the prompts have another shape or dtype, or leave no room for new tokens.
            MemoryBudgetError: keys and values do not fit beside the model.
            TensorReleased: the model was unloaded.

        >>> manager = tc.TensorSharingManager(max_memory_mb=512)
        >>> model = await tc.from_pretrained("./models/SmolLM2-135M-Instruct", manager=manager, dtype="float16")
        >>> prompt = model.tokenizer.encode_batch(["The capital of France is"]).input_ids
        >>> await model.compile_generation([prompt.shape], max_new_tokens=4)
        >>> tokens = await model.generate(prompt, max_new_tokens=4)
        >>> model.tokenizer.decode(tokens[0])
        'The capital of France is Paris...'
        >>> steps = [step async for step in model.stream(prompt, max_new_tokens=2)]
        >>> steps == list(tokens[0, prompt.shape[1] :][:2, None])
        True
        >>> manager.close()
        """
        check_listener("on_token", on_token)
        session = self._session(input_ids, attention_mask, options)
        if on_token is not None:
            session.check_streaming()
        return await complete(session, on_token)

    def stream(self, input_ids: Any, attention_mask: Any = None, **options: Any) -> AsyncIterator[Any]:
        """Generate as :meth:`generate` does, as an iterator over the tokens (batch,) of each step.

        With ``output_logprobs=True`` it yields pairs of the tokens and their log-probabilities. Several beams
        (``num_beams``) are refused: their tokens are known when the search ends.

        Closing the iterator, or cancelling the loop, frees the memory of the generation.
        """
        session = self._session(input_ids, attention_mask, options)
        session.check_streaming()
        return stream(session)

    async def prefill(self, input_ids: Any, attention_mask: Any = None) -> None:
        """Compute keys and values of prompts (batch, sequence) ahead, so that texts that begin with them begin sooner.

        They are kept as those of every text are, 16 tokens at a time, while nothing else needs their memory. Raises the
        errors of :meth:`generate`.

        >>> manager = tc.TensorSharingManager(max_memory_mb=512)
        >>> model = await tc.from_pretrained("./models/SmolLM2-135M-Instruct", manager=manager, dtype="float16")
        >>> prompt = model.tokenizer.encode_batch(["The capital of France is the city of " * 4]).input_ids
        >>> await model.prefill(prompt)
        >>> tokens = await model.generate(prompt, max_new_tokens=1)
        >>> manager.get_stats()["generation"]["reused_tokens"]
        32
        >>> manager.close()
        """
        session = self._session(input_ids, attention_mask, {"max_new_tokens": 1})
        try:
            await session.prefill()
        finally:
            session.close()

    async def compile_generation(
        self,
        shapes: Iterable[Shape],
        progress_callback: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> None:
        """Compile the programs of :meth:`generate` for prompts of these shapes (batch, sequence) and these ``options``.

        There is a program for each piece of a prompt and for each size of the pools up to ``max_new_tokens``.
        ``progress_callback(done, total)`` counts the programs of one shape. Raises the errors of :meth:`generate`.
        """
        check_listener("progress_callback", progress_callback)
        for shape in map(_checked_shape, shapes):
            session = self._session(np.zeros(shape, np.int32), None, options)
            await session.compile(progress_callback or (lambda done, total: None))

    def _session(self, input_ids: Any, attention_mask: Any, options: Mapping[str, Any]) -> GenerationSession:
        if not isinstance(self.architecture, Decoder):
            raise TensorCommonsError(f"{self.name} ({self.architecture.model_type}) does not generate text")
        chosen = Options.of(self.architecture.generation, options)
        decode = self.tokenizer.decode if self.tokenizer is not None else None
        checks = options.get("pad_token_id") is not None
        kind = BeamSession if chosen.num_beams > 1 else GenerationSession
        return kind(self, self.architecture, input_ids, attention_mask, chosen, decode, checks_padding=checks)

    def batch(self) -> Batch:
        """Return the generations on the current device. Raises TensorReleased after :meth:`unload`."""
        self._check_loaded()
        if self._batch is None:
            assert isinstance(self.architecture, Decoder)
            weights = dict(self._weights)  # a copy: a move changes the model's own table
            self._batch = Batch(DecodePrograms(self.name, self.architecture, weights, self.device))
        return self._batch

    def unload(self) -> None:
        """Release the model's weights; those that other models hold stay on the device. Safe to call twice."""
        if not self.is_unloaded:
            self.is_unloaded = True
            self._weights.clear()
            self.traces = self._new_traces()
            self._batch = None
            self.tokenizer = None
            self.why_no_tokenizer = "it was unloaded"
            self.manager.release_model_tensors(self.name)

    def request(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None, once: dict[Hashable, Any] | None = None
    ) -> Request:
        """Build the request for one call. ``once`` caches what several models of a run prepare in common.

        Raises the errors of :meth:`__call__`.
        """
        known, asked = self.architecture.outputs, self.architecture.defaults if outputs is None else outputs
        wanted = tuple(asked) if isinstance(asked, Iterable) and not isinstance(asked, str) else ()
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            raise TensorCommonsError(
                f"{self.name} has no output {quoted(missing or asked)}; outputs: {', '.join(known)}"
            )
        self._check_loaded()
        objects = [(name, id(value)) for name, value in inputs.items()]
        alike = () if once is None else (self.architecture.inputs, *objects)  # a lone call hashes nothing
        once = {} if once is None else once
        prepared: Prepared = once.get(alike) or once.setdefault(alike, self._prepare(inputs))
        shapes = prepared.shapes
        trace = self.traces.of(arguments_of(shapes), wanted)
        return Request(self.name, (wanted, shapes), trace, prepared.arrays, wanted, prepared.cuts)

    def bytes_to_run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> int:
        """Return the planned device bytes of a run of ``inputs``, without the weights.

        Raises the errors of :meth:`__call__`.
        """
        return bytes_to_run(self.device, self.request(inputs, outputs).trace.nodes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, on the device or evicted."""
        return sum(self.weight_formats.values())

    @property
    def weight_formats(self) -> dict[str, int]:
        """Bytes of the weights by format: a dtype, or a block format such as "q8_0"."""
        weights = self._weights.values()
        formats = {weight.data.node.storage: weight.format for weight in weights}
        formats |= {each.order.node.storage: each.order.dtype.name for each in weights if each.order is not None}
        totals = Counter[str]()
        for storage, form in formats.items():
            totals[form] += storage.nbytes if storage is not None else 0
        return dict(totals)

    def least_need(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Need:
        """Return the least memory for a run of ``inputs`` that streams its weights.

        Raises the errors of :meth:`__call__`.
        """
        return least_need(self.device, self.request(inputs, outputs).trace.nodes)

    async def compile(
        self,
        shapes: Iterable[Shape],
        outputs: Sequence[str] | None = None,
        progress_callback: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compile for inputs of these shapes now, instead of at the first call of each.

        A shape is (batch, sequence) for text, (batch, height, width) for images. ``outputs`` are those of the later
        calls, by default the model's own. ``progress_callback(done, total)`` is called before the first shape and
        after each.

        Raises:
            ShapeMismatch: a shape is empty or longer than the model's maximum.
            TensorReleased: the model was unloaded.
        """
        check_listener("progress_callback", progress_callback)
        self._check_loaded()
        todo = {}
        for shape in map(_checked_shape, shapes):
            inputs = self.architecture.inputs.example(shape)
            todo[tuple(array.shape for array in self._prepare(inputs).arrays.values())] = inputs
        report = progress_callback or (lambda done, total: None)
        report(0, len(todo))
        for done, inputs in enumerate(todo.values(), 1):
            await self.manager.compile_together([(self, inputs)], [outputs])
            report(done, len(todo))

    def _new_traces(self) -> Traces:
        """Create traces over the weights on the current device."""
        architecture, weights, device = self.architecture, dict(self._weights), self.device

        def forward(arguments: Mapping[str, Node]) -> Mapping[str, Node]:
            given = {name: Tensor.symbolic(node, device) for name, node in arguments.items()}
            return {name: tensor.node for name, tensor in architecture.forward(weights, given).items()}

        return Traces(device, forward, lambda: arguments_of(example_inputs(architecture).shapes))

    def _check_loaded(self) -> None:
        if self.is_unloaded:
            raise TensorReleased(f"{self.name} was unloaded; load it again with from_pretrained()")

    def _prepare(self, inputs: Mapping[str, Any]) -> Prepared:
        unknown = sorted(set(inputs) - set(self.input_names))
        if unknown:
            raise TensorCommonsError(
                f"{self.name} has no input {quoted(', '.join(unknown))}; inputs: {', '.join(self.input_names)}"
            )
        return self.architecture.inputs.prepare(inputs, self.name)


def _checked_shape(shape: Any) -> Shape:
    """Return ``shape`` as a tuple. Raises ShapeMismatch unless it is a sequence of integers from 0."""
    if not isinstance(shape, (tuple, list)) or any(type(count) is not int or count < 0 for count in shape):
        raise ShapeMismatch(f"a shape must be integers from 0, such as (batch, sequence), not {quoted(shape)}")
    return tuple(shape)
