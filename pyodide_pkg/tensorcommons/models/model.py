"""A loaded model: an architecture with its weights on a device, called with arrays, returning tensors by name.

The first call of a shape traces the architecture's forward into a graph; later calls replay the compiled program. The
architecture defines the inputs and pads them (architecture.py, text.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..backends.select import Decision
from ..dtypes import DType, float32
from ..errors import ShapeMismatch, TensorCommonsError, TensorReleased, check_listener, quoted
from ..graph.needs import Need, bytes_to_run, least_need
from ..graph.node import Node
from ..graph.traces import Arguments, Traces
from ..hub.open_cache import CacheSpec
from ..hub.tokenizer import Tokenizer
from ..nn import Param, Weight, Weights
from ..shapes import Shape
from ..sharing.contract import Request
from ..sharing.manager import TensorSharingManager
from ..tensor import Tensor
from .adapter import Adapter, adapter_of, held_name
from .adapter import chosen as chosen_adapters
from .adapter_loading import load_adapter
from .adapter_set import NO_ADAPTERS, AdapterSet
from .architecture import Architecture, Prepared, arguments_of, example_inputs, precision_on
from .batch import Batch
from .beam_session import BeamSession
from .decode_programs import DecodePrograms
from .decoder import Decoder, product_of
from .generation import GenerationSession, complete, stream
from .generation_options import Options
from .preprocessing import ImageProcessor
from .sentence import SentenceUse
from .weight_loader import Progress

MOST_SETS = 64  # sets of adapters for which traces and programs are kept
RELATED = 2  # sets used last, whose calls may reuse what other calls of the model compute

logger = logging.getLogger("tensorcommons")


@dataclass
class Adapted:
    """The traces and generations of a model's calls with one set of ``adapters``."""

    adapters: AdapterSet
    traces: Traces
    batch: Batch | None = None


class Model:
    """A model loaded by :func:`from_pretrained`. ``await model(**inputs)`` returns its outputs by name.

    ``model_type`` is the architecture's name and ``config`` its typed configuration. ``input_names`` are the names of
    the inputs; for text ``input_ids``, ``attention_mask`` and so on, each (batch, sequence). ``precision`` is the
    option that it was loaded with, ``cache_dtype`` the dtype of keys and values in its generations. ``is_unloaded`` is
    true after :meth:`unload`, or if the manager was closed.

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
        cache_dtype: DType = float32,
    ) -> None:
        self.name = name
        self.device = device
        self.why = why  # the reason for the choice of the device
        self.manager = manager
        self.tokenizer = tokenizer
        self.processor = processor
        self.precision = precision  # that was asked for; a device without "fast" products computes exactly
        self.cache_dtype = cache_dtype  # of keys and values in a generation
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
        self._adapters: dict[str, Adapter] = {}
        self._adapted: dict[tuple[Any, ...], Adapted] = {}
        manager.attach(self)

    @property
    def specs(self) -> dict[str, Spec]:
        """Shape and dtype of each weight on the device, by name, with those of adapters; none after :meth:`unload`."""
        specs = {param.name: weight.data.spec for param, weight in self._weights.items()}
        for param, weight in self._weights.items():
            if weight.order is not None:
                specs[f"{param.name}.order"] = weight.order.spec
        return specs | {name: spec for adapter in self._adapters.values() for name, spec in adapter.specs.items()}

    @property
    def stored_specs(self) -> dict[str, Spec]:
        """See ``sharing.contract.Movable``."""
        own = {name: spec for name, spec in self._stored.items() if not self.is_unloaded}
        return own | {name: spec for adapter in self._adapters.values() for name, spec in adapter.specs.items()}

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
        stay on the device until they are read. ``adapter`` is a loaded adapter or its name, or a list with one for each
        row of the batch; None, the default, is the base.

        Raises:
            TensorCommonsError: an input is missing or unknown, or has values outside the model's range; or an adapter
                is unknown.
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
        for adapter in self._adapters.values():
            adapter.moved(weights)
        self.traces = self._new_traces()
        self._batch = None
        self._adapted.clear()

    # --- adapters ---

    async def load_adapter(
        self,
        source: str | bytes | Mapping[str, bytes],
        adapter_name: str | None = None,
        *,
        progress_callback: Progress | None = None,
        cache: CacheSpec = "auto",
        token: str | None = None,
    ) -> Adapter:
        """Load a LoRA adapter in PEFT's layout: ``adapter_config.json`` and ``adapter_model.safetensors``.

        ``source``, ``progress_callback``, ``cache`` and ``token`` are those of :func:`from_pretrained`.
        ``adapter_name`` (1 to 80 characters) selects the adapter in calls; the default is the name of the folder. The
        model's own weights do not change. After an error or a cancellation nothing of the adapter stays.

        Raises:
            InvalidWeights: a file is damaged, does not fit the model, or has settings that are not supported.
            DownloadError: a file is missing or its connection broke.
            MemoryBudgetError: its weights do not fit under the limit.
            TensorCommonsError: another adapter of the model has the name, or it is empty or too long.
            TensorReleased: the model was unloaded.

        >>> import json
        >>> module, rng = "base_model.model.encoder.layer.5.output.dense", np.random.default_rng(1)
        >>> down, up = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 1536), (384, 4)))
        >>> table = {
        ...     f"{module}.lora_A.weight": {"dtype": "F32", "shape": [4, 1536], "data_offsets": [0, 24576]},
        ...     f"{module}.lora_B.weight": {"dtype": "F32", "shape": [384, 4], "data_offsets": [24576, 30720]},
        ... }
        >>> header = json.dumps(table).encode()
        >>> config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["output.dense"]}
        >>> files = {
        ...     "adapter_config.json": json.dumps(config).encode(),
        ...     "adapter_model.safetensors": len(header).to_bytes(8, "little") + header + down.tobytes() + up.tobytes(),
        ... }
        >>> manager = tc.TensorSharingManager(max_memory_mb=256)
        >>> model = await tc.from_pretrained("./models/all-MiniLM-L6-v2", manager=manager)
        >>> adapter = await model.load_adapter(files, "fr")
        >>> model.adapters, model.adapter("fr") is adapter
        (['fr'], True)
        >>> outputs = await model(input_ids=np.array([[101, 1996, 4937, 102]] * 2), adapter=["fr", None])
        >>> outputs["last_hidden_state"].shape
        (2, 4, 384)
        >>> adapter.unload()
        >>> manager.close()
        """
        self._check_loaded()
        return await load_adapter(self, source, adapter_name, progress_callback, cache, token)

    @property
    def adapters(self) -> list[str]:
        """Names of the loaded adapters, in the order in which they were loaded."""
        return list(self._adapters)

    def adapter(self, name: str) -> Adapter:
        """Return a loaded adapter. Raises TensorCommonsError if the model has none of that name."""
        return adapter_of(self, name)

    def loaded_adapters(self) -> list[Adapter]:
        """Return the loaded adapters, in the order in which they were loaded."""
        return list(self._adapters.values())

    def add_adapter(self, adapter: Adapter) -> None:
        """Take a loaded adapter."""
        self._adapters[adapter.name] = adapter

    def forget_adapter(self, adapter: Adapter) -> None:
        """Drop what was compiled for an adapter, and release its weights."""
        del self._adapters[adapter.name]
        for key in [key for key in self._adapted if adapter.name in key[1:]]:
            del self._adapted[key]
            self.manager.runner.forget(self.name, key)
        held = self.manager.registry.held_by(self.name)
        prefix = held_name(adapter.name, "")
        self.manager.release_tensors(self.name, [name for name in held if name.startswith(prefix)])

    def present_specs(self) -> dict[Param, Spec]:
        """Return the specs of the base's weights on the device."""
        return {param: weight.data.spec for param, weight in self._weights.items()}

    def weights(self) -> dict[Param, Weight]:
        """Return a copy of the table of the base's weights."""
        return dict(self._weights)

    def with_weights(self, name: str, device: Device, weights: Mapping[Param, Weight]) -> Model:
        """Return a model of another name that differs in its weights, which it holds."""
        stored = dict(self._stored)
        for param, weight in weights.items():
            if weight.data is not self._weights[param].data:
                stored[param.name] = weight.data.spec
                stored.pop(f"{param.name}.order", None)
        shared = self.manager, self.tokenizer, self.why, self.processor, self.precision, self.cache_dtype
        model = Model(name, self.architecture, weights, stored, device, *shared)
        model.use, model.why_no_tokenizer = self.use, self.why_no_tokenizer
        return model

    def _adapted_by(self, found: AdapterSet) -> Adapted:
        """Return what is kept for calls with a set of adapters."""
        key = found.key
        if key not in self._adapted:
            while len(self._adapted) >= MOST_SETS:
                oldest = next(iter(self._adapted))
                del self._adapted[oldest]
                self.manager.runner.forget(self.name, oldest)
            self._adapted[key] = Adapted(found, self._new_traces(found))
            self.manager.runner.loaded()  # runs of others keep what it can use
        kept = self._adapted[key] = self._adapted.pop(key)  # the last one used is the last one
        return kept

    @property
    def related_traces(self) -> list[Traces]:
        """See ``sharing.contract.Movable``."""
        return [self.traces, *(each.traces for each in list(self._adapted.values())[-RELATED:])]

    async def generate(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        on_token: Callable[[Any], None] | None = None,
        adapter: Any = None,
        **options: Any,
    ) -> Any:
        """Continue the prompts ``input_ids`` (batch, sequence) and return all tokens, (batch, sequence + new) int32.

        Shorter prompts are padded on the left, with ``attention_mask`` 0 there. The tokens of an encoder-decoder begin
        with the start token instead of the prompt. ``options`` are those of
        :class:`~tensorcommons.models.generation_options.Options`; they override the model's own
        (``generation_config.json``, or ``config.json`` if that is missing). With ``num_return_sequences`` n, each
        prompt has n consecutive rows, with ``num_beams`` its best texts, the best one first. ``on_token`` gets the
        tokens (batch,) of each step; with beams it is refused. ``adapter`` is the name of a loaded adapter, or a list
        of one for each prompt; None is the base.

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
        session = self._session(input_ids, attention_mask, options, adapter)
        if on_token is not None:
            session.check_streaming()
        return await complete(session, on_token)

    def stream(
        self, input_ids: Any, attention_mask: Any = None, *, adapter: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        """Generate as :meth:`generate` does, as an iterator over the tokens (batch,) of each step.

        With ``output_logprobs=True`` it yields pairs of the tokens and their log-probabilities. Several beams
        (``num_beams``) are refused: their tokens are known when the search ends.

        Closing the iterator, or cancelling the loop, frees the memory of the generation.
        """
        session = self._session(input_ids, attention_mask, options, adapter)
        session.check_streaming()
        return stream(session)

    async def prefill(self, input_ids: Any, attention_mask: Any = None, *, adapter: Any = None) -> None:
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
        session = self._session(input_ids, attention_mask, {"max_new_tokens": 1}, adapter)
        try:
            await session.prefill()
        finally:
            session.close()

    async def compile_generation(
        self,
        shapes: Iterable[Shape],
        progress_callback: Callable[[int, int], None] | None = None,
        *,
        adapter: Any = None,
        **options: Any,
    ) -> None:
        """Compile the programs of :meth:`generate` for prompts of these shapes (batch, sequence) and these ``options``.

        There is a program for each piece of a prompt and for each size of the pools up to ``max_new_tokens``.
        ``progress_callback(done, total)`` counts the programs of one shape. Raises the errors of :meth:`generate`.
        """
        check_listener("progress_callback", progress_callback)
        for shape in map(_checked_shape, shapes):
            session = self._session(np.zeros(shape, np.int32), None, options, adapter)
            await session.compile(progress_callback or (lambda done, total: None))

    def _session(
        self, input_ids: Any, attention_mask: Any, options: Mapping[str, Any], adapter: Any
    ) -> GenerationSession:
        if not isinstance(self.architecture, Decoder):
            raise TensorCommonsError(f"{self.name} ({self.architecture.model_type}) does not generate text")
        chosen = Options.of(self.architecture.generation, options)
        decode = self.tokenizer.decode if self.tokenizer is not None else None
        checks = options.get("pad_token_id") is not None
        kind = BeamSession if chosen.num_beams > 1 else GenerationSession
        self._check_loaded()
        return kind(
            *(self, self.architecture, input_ids, attention_mask, chosen, decode),
            adapters=partial(chosen_adapters, self, adapter),
            checks_padding=checks,
        )

    def batch(self, adapters: AdapterSet | None = None) -> Batch:
        """Return the generations on the current device, of the base or with these adapters.

        Raises TensorReleased after :meth:`unload`, and if one of the adapters was unloaded.
        """
        self._check_loaded()
        assert isinstance(self.architecture, Decoder)
        if adapters is None:
            if self._batch is None:
                self._batch = Batch(self._programs(NO_ADAPTERS))
            return self._batch
        if gone := [each.name for each in adapters.adapters if self._adapters.get(each.name) is not each]:
            raise TensorReleased(f"adapter {gone[0]} was unloaded; load it again with load_adapter()")
        kept = self._adapted_by(adapters)
        if kept.batch is None:
            kept.batch = Batch(self._programs(kept.adapters))
        return kept.batch

    def _programs(self, adapters: AdapterSet) -> DecodePrograms:
        assert isinstance(self.architecture, Decoder)
        weights = dict(self._weights)  # a copy: a move changes the model's own table
        return DecodePrograms(self.name, self.architecture, weights, self.device, adapters, self.cache_dtype)

    def unload(self) -> None:
        """Release the model's weights; those that other models hold stay on the device. Safe to call twice."""
        if not self.is_unloaded:
            self.is_unloaded = True
            self._weights.clear()
            for adapter in self._adapters.values():
                adapter.closed()
            self._adapters.clear()
            self._adapted.clear()
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
        inputs = dict(inputs)
        adapter = inputs.pop("adapter", None)
        objects = [(name, id(value)) for name, value in inputs.items()]
        alike = () if once is None else (self.architecture.inputs, *objects)  # a lone call hashes nothing
        once = {} if once is None else once
        prepared: Prepared = once.get(alike) or once.setdefault(alike, self._prepare(inputs))
        shapes, arrays = prepared.shapes, prepared.arrays
        adapters = None if adapter is None else chosen_adapters(self, adapter, len(next(iter(arrays.values()))))
        if adapters is None:
            trace = self.traces.of(arguments_of(shapes), wanted)
            return Request(self.name, (wanted, shapes), trace, arrays, wanted, prepared.cuts)
        kept = self._adapted_by(adapters.adapters)
        arguments = (*arguments_of(shapes), *kept.adapters.specs(len(adapters.slots)).items())
        arrays = arrays | kept.adapters.arrays(adapters.slots)
        trace = kept.traces.of(arguments, wanted)
        key = wanted, shapes, kept.adapters.key
        return Request(self.name, key, trace, arrays, wanted, prepared.cuts)

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

    def _new_traces(self, adapters: AdapterSet | None = None) -> Traces:
        """Create traces over the weights on the current device, with those of ``adapters``."""
        architecture, weights, device = self.architecture, dict(self._weights), self.device

        def forward(arguments: Mapping[str, Node]) -> Mapping[str, Node]:
            given = {name: Tensor.symbolic(node, device) for name, node in arguments.items()}
            used = weights if adapters is None else adapters.weights(weights, given)
            return {name: tensor.node for name, tensor in architecture.forward(used, given).items()}

        def example() -> Arguments:
            shapes = example_inputs(architecture).shapes
            more = {} if adapters is None else adapters.specs(shapes[0][1][0])
            return (*arguments_of(shapes), *more.items())

        return Traces(device, forward, example)

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
