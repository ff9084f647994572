"""The programs of one model's generation: one for each shape, replayed for every token.

Between steps only host arrays (the tokens, the number of filled slots) and the storages of the cache change, which each
run binds anew. So a step compiles nothing until the cache has to grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.device import Device
from ..graph.bound import BoundProgram, compile_graph
from ..graph.node import argument
from ..graph.parted import PartedProgram
from ..graph.profile import run_of
from ..graph.program import Chain, Program
from ..nn import Weights
from ..ops import concat, kv_cache_append, reshape, zeros
from ..ops.choosing import likeliest, repetition_penalty, sample
from ..shapes import Shape
from ..sharing.storage import Storage
from ..tensor import Tensor
from .decoder import Decoder, KVState

Tensors: TypeAlias = "dict[str, Tensor]"
Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Arrays: TypeAlias = "Mapping[str, Array]"
Specs: TypeAlias = "Mapping[str, Spec]"
Compiled: TypeAlias = "tuple[BoundProgram, Specs]"  # a program and the specs of its results
TOKENS = "tokens so far"  # in a cache, (batch, 1, capacity, 1) int32


@dataclass(frozen=True)
class Choice:
    """Use of a step's logits: to return them, or to choose the next token of each row from them.

    A step that ``penalizes`` repetitions keeps the tokens so far in its cache, and has an input "penalty" (batch,). One
    that samples has an input "settings" (batch, 5): see :func:`sample`. Both are float32.
    """

    kind: Literal["logits", "likeliest", "sample"]
    penalizes: bool = False

    @property
    def is_token(self) -> bool:
        """True if the device chooses, so that a step's result can be the input of the next one."""
        return self.kind != "logits"

    def inputs(self, batch: int) -> dict[str, Spec]:
        """Return the specs of its inputs."""
        settings = {"settings": Spec((batch, 5), dtypes.float32)} if self.kind == "sample" else {}
        penalty = {"penalty": Spec((batch,), dtypes.float32)} if self.penalizes else {}
        return {**settings, **penalty}

    def apply(self, logits: Tensor, given: Tensors, past: KVState) -> Tensor:
        """Return the result of a step: ``logits``, or tokens (batch, 1) int32 or ``NOT_A_NUMBER``."""
        if self.penalizes:
            ids = given["input_ids"]
            column = reshape(ids, (ids.shape[0], 1, ids.shape[1], 1))
            past.grown[TOKENS] = kept = kv_cache_append(past.cache[TOKENS], column, given["filled"])
            tokens = reshape(kept, (kept.shape[0], kept.shape[2]))
            end = given["filled"] + given["count"]
            logits = repetition_penalty(logits, tokens, given["start"], end, given["penalty"])
        if self.kind == "sample":
            return sample(logits, given["settings"])
        return likeliest(logits) if self.kind == "likeliest" else logits


LOGITS = Choice("logits")


class DecodePrograms:
    """Compiled steps of ``decoder`` over the ``weights`` of the model ``name``.

    ``last`` is the program that ran last, and the number of its calls into JavaScript.
    """

    def __init__(self, name: str, decoder: Decoder, weights: Weights, device: Device) -> None:
        self._name = name
        self.decoder = decoder
        self.device = device
        self.last: tuple[Program | PartedProgram, int] | None = None
        self._weights = weights
        self._kept: dict[tuple[Any, ...], Compiled] = {}

    @property
    def runs_ahead(self) -> bool:
        """True if a step should start before the previous step's token is read: not if host and device share a CPU."""
        return self.device.backend.takes_graphs or not self.device.is_software

    @property
    def longest(self) -> int:
        """Most tokens of a prompt in a step. A piece that takes long delays a cancellation, and others on its CPU."""
        return 256 if self.device.is_software or self.device.backend.takes_graphs else 2048

    @property
    def samples(self) -> bool:
        """True if a step can draw tokens, or penalize repetitions, on the device."""
        return self.device.backend.samples

    @property
    def runs_several(self) -> bool:
        """True if several steps can be one call."""
        return self.device.backend.chains_runs

    # --- running ---

    async def begin(self, inputs: Arrays) -> Tensors:
        """Compute the tensors that all steps of a generation read: the encoder's output for ``inputs``, if any."""
        if self.decoder.start_token is None:
            return {}
        return await self._run(await self.compile_begin(inputs["input_ids"].shape), inputs, {})

    def _cache(self, batch: int, capacity: int, choice: Choice) -> dict[str, Spec]:
        tokens = {TOKENS: Spec((batch, 1, capacity, 1), dtypes.int32)} if choice.penalizes else {}
        return {**self.decoder.cache(batch, capacity), **tokens}

    async def empty(self, batch: int, capacity: int, choice: Choice) -> Tensors:
        """Create an empty cache. Tensors of one shape share a storage; the first step gives each its own."""
        specs = self._cache(batch, capacity, choice)
        made = {
            spec: await zeros(spec.shape, dtype=spec.dtype, device=self.device).realize()
            for spec in dict.fromkeys(specs.values())
        }
        return {name: made[spec] for name, spec in specs.items()}

    async def grow(self, cache: Tensors, batch: int, old: int, new: int, choice: Choice) -> Tensors:
        """Copy the cache to one with more slots."""
        return await self._run(await self.compile_grow(batch, old, new, choice), {}, cache)

    async def extend(
        self, ids: Array | Tensor, inputs: Arrays, cache: Tensors, capacity: int, fixed: Tensors, choice: Choice
    ) -> tuple[Tensor, Tensors]:
        """Run a step over the tokens ``ids`` (batch, sequence). Returns its result and the extended cache.

        The result is the logits (batch, vocabulary), or the token of each row, (batch, 1) int32, which can be passed as
        the next ``ids`` without reading it. ``inputs`` include those of ``choice``. The old ``cache`` is donated.
        """
        is_stored = isinstance(ids, Tensor)
        memory = {name: tensor.spec for name, tensor in fixed.items()}
        program = await self.compile_extend(ids.shape, capacity, memory, choice, is_stored=is_stored)
        stored = {**cache, **{_fixed(name): tensor for name, tensor in fixed.items()}}
        if isinstance(ids, Tensor):
            stored["input_ids"] = ids
        else:
            inputs = {"input_ids": ids, **inputs}
        results = await self._run(program, inputs, stored, tuple(cache))
        return results.pop("next"), results

    async def extend_by(
        self, ids: Tensor, inputs: Sequence[Arrays], cache: Tensors, capacity: int, fixed: Tensors, choice: Choice
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Run a step of one token for each of ``inputs``, in one call.

        The first step processes ``ids`` (batch, 1), each other one the token that the one before chose. Returns the
        last token, the tokens of all steps (steps, batch, 1), and the extended cache. The old ``cache`` is donated.

        Raises:
            MemoryBudgetError, RunsInParts: the steps have to run one by one.
        """
        memory = {name: tensor.spec for name, tensor in fixed.items()}
        program = await self.compile_extend(ids.shape, capacity, memory, choice, is_stored=True)
        stored = {**cache, **{_fixed(name): tensor for name, tensor in fixed.items()}, "input_ids": ids}
        chain = Chain(inputs, list(program[1]).index("next"), program[0].place_of("input_ids"))
        results = await self._run(program, {}, stored, tuple(cache), chain)
        return results.pop("next"), results.pop("every"), results

    async def _run(
        self,
        program: Compiled,
        inputs: Arrays,
        stored: Tensors,
        donated: Sequence[str] = (),
        chain: Chain | None = None,
    ) -> Tensors:
        """Run a program. Tensors named in ``donated`` are consumed: appending to them writes in place."""
        (bound, results), before = program, self.device.backend.calls
        with run_of(self._name):
            storages = {name: _storage(tensor) for name, tensor in stored.items()}
            answer = await bound.run(inputs, storages, donated, chain)
        self.last = bound.program, self.device.backend.calls - before
        return {name: Tensor.of_storage(*result) for name, result in zip([*results, "every"], answer, strict=False)}

    # --- compiling, the first time ---

    async def compile_begin(self, shape: Shape) -> Compiled:
        """Compile the encoder for inputs of this shape."""
        inputs = dict.fromkeys(("input_ids", "attention_mask"), Spec(shape, dtypes.int32))
        return await self._compile(
            ("begin", shape), inputs, {}, lambda given, _: self.decoder.begin(self._weights, given)
        )

    async def compile_grow(self, batch: int, old: int, new: int, choice: Choice) -> Compiled:
        """Compile the copy of a cache of ``old`` slots to one of ``new`` slots."""
        before, after = self._cache(batch, old, choice), self._cache(batch, new, choice)

        def grown(_: Tensors, stored: Tensors) -> Tensors:
            return {name: self._longer(part, after[name]) for name, part in stored.items()}

        return await self._compile(("grow", batch, old, new, choice.penalizes), {}, before, grown)

    async def compile_extend(
        self, shape: Shape, capacity: int, fixed: Specs, choice: Choice, *, is_stored: bool
    ) -> Compiled:
        """Compile a step over tokens of this shape; ``is_stored`` if they are a tensor on the device, not an array."""
        key = ("extend", shape, capacity, choice, is_stored, *(spec.shape for spec in fixed.values()))
        if self._is_kept(key):
            return self._kept[key]
        cache = self._cache(shape[0], capacity, choice)

        def step(given: Tensors, stored: Tensors) -> Tensors:
            given = {**given, "input_ids": (stored if is_stored else given)["input_ids"]}
            past = KVState.stepwise(given, {name: stored[name] for name in cache})
            logits = self.decoder.step(self._weights, given, {name: stored[_fixed(name)] for name in fixed}, past)
            return {"next": choice.apply(logits, given, past), **past.grown}

        shapes = {"start": shape[:1], "filled": (), "count": (1,)}
        stored = {**cache, **{_fixed(name): spec for name, spec in fixed.items()}}
        if is_stored:
            stored["input_ids"] = Spec(shape, dtypes.int32)
        else:
            shapes["input_ids"] = shape
        inputs = {name: Spec(size, dtypes.int32) for name, size in shapes.items()}
        return await self._compile(key, {**inputs, **choice.inputs(shape[0])}, stored, step)

    async def _compile(
        self,
        key: tuple[Any, ...],
        inputs: Specs,
        stored: Specs,
        trace: Callable[[Tensors, Tensors], Tensors],
    ) -> Compiled:
        """Compile ``trace`` for inputs and stored tensors of these specs, or return the kept program."""
        if not self._is_kept(key):
            given = {name: self._symbol(spec, name) for name, spec in inputs.items()}
            leaves = {name: self._symbol(spec, name, is_stored=True) for name, spec in stored.items()}
            results = trace(given, leaves)
            bound = await compile_graph(self.device, [tensor.node for tensor in results.values()])
            self._kept[key] = bound, {name: tensor.spec for name, tensor in results.items()}
        return self._kept[key]

    def _is_kept(self, key: tuple[Any, ...]) -> bool:
        return key in self._kept and not self._kept[key][0].is_outdated

    def _symbol(self, spec: Spec, name: str, *, is_stored: bool = False) -> Tensor:
        return Tensor.symbolic(argument(name, spec, is_stored=is_stored), self.device)

    def _longer(self, part: Tensor, spec: Spec) -> Tensor:
        """Append slots of zeros to ``part``, up to the shape of ``spec``."""
        shape = (*part.shape[:2], spec.shape[2] - part.shape[2], part.shape[3])
        return concat([part, zeros(shape, dtype=part.dtype, device=self.device)], axis=2)


def _fixed(name: str) -> str:
    """Return the name of the leaf for a tensor that all steps read."""
    return f"fixed {name}"


def _storage(tensor: Tensor) -> Storage:
    assert tensor.node.storage is not None
    return tensor.node.storage
