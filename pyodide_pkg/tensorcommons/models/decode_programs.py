"""The programs of one model's generation: one for each shape, replayed for every token.

Between steps only host arrays (the tokens, the tables of pages) and the storages of the pools change, which each run
binds anew. So a step compiles nothing until the pools, or a table, have to grow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.device import Device
from ..dtypes import DType
from ..graph.bound import BoundProgram, compile_graph
from ..graph.node import argument
from ..graph.parted import PartedProgram
from ..graph.profile import run_of
from ..graph.program import Chain, Program
from ..nn import Weights
from ..ops import concat, repeat, reshape, zeros
from ..ops.choosing import likeliest, repetition_penalty, sample
from ..ops.paging import BEFORE, NEW, PAGES, paged_append, paged_rows
from ..shapes import Shape
from ..sharing.storage import Storage
from ..tensor import Tensor
from .adapter_set import NO_ADAPTERS, AdapterSet
from .decoder import PAGE, Decoder, KVState

Tensors: TypeAlias = "dict[str, Tensor]"
Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Arrays: TypeAlias = "Mapping[str, Array]"
Specs: TypeAlias = "Mapping[str, Spec]"
Compiled: TypeAlias = "tuple[BoundProgram, Specs]"  # a program and the specs of its results
TOKENS = "tokens so far"  # in pools, (pages, 1, PAGE, 1) int32


@dataclass(frozen=True)
class Choice:
    """Use of a step's logits: to return them, or to choose the next token of each row from them.

    A step that ``penalizes`` repetitions has an input "penalty" (rows,). One that samples has an input "settings",
    (rows, 5): see :func:`sample`. Both are float32. With ``every``, the tokens or logits are those after each new token
    (rows * sequence, ...), instead of each row's last.
    """

    kind: Literal["logits", "likeliest", "sample"]
    penalizes: bool = False
    every: bool = False

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
        """Return the result of a step: ``logits``, or tokens (rows, 1) int32 or ``NOT_A_NUMBER``."""
        if self.penalizes:
            table = given["table"]
            tokens = paged_rows(past.grown[TOKENS], table)
            tokens = reshape(tokens, (tokens.shape[0], tokens.shape[2]))
            first, end = zeros((table.shape[0],), dtype="int32"), table[:, BEFORE] + table[:, NEW]
            logits = repetition_penalty(logits, tokens, first, end, given["penalty"])
        if self.kind == "sample":
            return sample(logits, given["settings"])
        return likeliest(logits) if self.kind == "likeliest" else logits


LOGITS, LIKELIEST = Choice("logits"), Choice("likeliest")


class DecodePrograms:
    """Compiled steps of ``decoder`` over the ``weights`` of the model ``name``, with ``adapters``.

    ``cache_dtype`` is that of keys and values in pages: float32 or float16. They are computed in float32.
    ``last`` is the program that ran last, and the number of its calls into JavaScript.
    """

    def __init__(
        self, name: str, decoder: Decoder, weights: Weights, device: Device, adapters: AdapterSet = NO_ADAPTERS,
        cache_dtype: DType = dtypes.float32,
    ) -> None:  # fmt: skip
        self._name = name
        self._cache_dtype = cache_dtype
        self.decoder = decoder
        self.device = device
        self.adapters = adapters
        self.last: tuple[Program | PartedProgram, int] | None = None
        self._weights = weights
        self._kept: dict[tuple[Any, ...], Compiled] = {}

    def identity(self) -> str:
        """Return a hash of all that keys and values depend on beside tokens: the graph of a step, and its weights."""

        def given(name: str, *shape: int) -> Tensor:
            return self._symbol(Spec(shape, dtypes.int32), name)

        fixed: Tensors = {}
        arguments = {name: self._symbol(spec, name) for name, spec in self.adapters.specs(1).items()}
        weights = self.adapters.weights(self._weights, arguments)
        if self.decoder.start_token is not None:
            source = {name: given(f"source {name}", 1, 8) for name in ("input_ids", "attention_mask")}
            fixed = self.decoder.begin(weights, source)
        inputs = {"input_ids": given("input_ids", 1, 1), "table": given("table", 1, PAGES + 1)}
        pools = {name: self._symbol(spec, name, is_stored=True) for name, spec in self.pools(1).items()}
        past = KVState.paged(inputs["input_ids"], inputs["table"], pools)
        self.decoder.step(weights, inputs, fixed, past)
        keys = [f"{name} {past.grown[name].node.key}" for name in sorted(past.grown)]
        return hashlib.sha256(repr((sorted(pools), keys)).encode()).hexdigest()

    @property
    def runs_ahead(self) -> bool:
        """True if a step should start before the previous step's token is read: not if host and device share a CPU."""
        return self.device.backend.takes_graphs or not self.device.is_software

    @property
    def follows_lengths(self) -> bool:
        """True if attention takes as long as a text has tokens, however many pages its table has room for."""
        (pool, *_), (heads, size) = self.decoder.pools(1, self._cache_dtype).values(), self.decoder.keys
        query, table = Spec((1, heads, 1, size), dtypes.float32), Spec((1, PAGES + 1), dtypes.int32)
        return self.device.backend.attends_in_pages([query, pool, pool, table])

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

    async def begin(self, inputs: Arrays, copies: int = 1) -> Tensors:
        """Compute the tensors that all steps of a generation read: the encoder's output for ``inputs``, if any.

        Each of its rows is repeated ``copies`` times.
        """
        if self.decoder.start_token is None:
            return {}
        return await self._run(await self.compile_begin(inputs["input_ids"].shape, copies), inputs, {})

    def pools(self, pages: int) -> dict[str, Spec]:
        """Return the specs of pools of so many pages, by name; with the tokens where the device penalizes them."""
        tokens = {TOKENS: Spec((pages, 1, PAGE, 1), dtypes.int32)} if self.samples else {}
        return {**self.decoder.pools(pages, self._cache_dtype), **tokens}

    async def empty(self, pages: int) -> Tensors:
        """Create empty pools. Those of one shape share a storage; the first step gives each its own."""
        specs = self.pools(pages)
        made = {
            spec: await zeros(spec.shape, dtype=spec.dtype, device=self.device).realize()
            for spec in dict.fromkeys(specs.values())
        }
        return {name: made[spec] for name, spec in specs.items()}

    async def grow(self, pools: Tensors, old: int, new: int) -> Tensors:
        """Copy the pools of ``old`` pages to pools of ``new`` pages."""
        return await self._run(await self.compile_grow(old, new), {}, pools)

    async def copy(self, pools: Tensors, sources: Array, targets: Array) -> Tensors:
        """Copy pages to other pages, each the one page of a row of the tables. The old ``pools`` are donated."""
        program = await self.compile_copy(len(sources), next(iter(pools.values())).shape[0])
        return await self._run(program, {"sources": sources, "targets": targets}, pools, tuple(pools))

    async def extend(
        self, ids: Array | Tensor, inputs: Arrays, pools: Tensors, fixed: Tensors, choice: Choice
    ) -> tuple[Tensor, Tensors]:
        """Run a step over the tokens ``ids`` (rows, sequence). Returns its result and the extended pools.

        The result is the logits (rows, vocabulary), or the token of each row, (rows, 1) int32, which can be passed as
        the next ``ids`` without reading it. ``inputs`` are "table" (:mod:`~..ops.paging`) and those of ``choice``. The
        old ``pools`` are donated.
        """
        is_stored = isinstance(ids, Tensor)
        program = await self._step(ids.shape, inputs, pools, fixed, choice, is_stored=is_stored)
        stored = {**pools, **{_fixed(name): tensor for name, tensor in fixed.items()}}
        if isinstance(ids, Tensor):
            stored["input_ids"] = ids
        else:
            inputs = {"input_ids": ids, **inputs}
        results = await self._run(program, inputs, stored, tuple(pools))
        return results.pop("next"), results

    async def extend_by(
        self, ids: Tensor, inputs: Sequence[Arrays], pools: Tensors, fixed: Tensors, choice: Choice
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Run a step of one token for each of ``inputs``, in one call.

        The first step processes ``ids`` (rows, 1), each other one the token that the one before chose. Returns the last
        token, the tokens of all steps (steps, rows, 1), and the extended pools. The old ``pools`` are donated.

        Raises:
            MemoryBudgetError, RunsInParts: the steps have to run one by one.
        """
        program = await self._step(ids.shape, inputs[0], pools, fixed, choice, is_stored=True)
        stored = {**pools, **{_fixed(name): tensor for name, tensor in fixed.items()}, "input_ids": ids}
        chain = Chain(inputs, list(program[1]).index("next"), program[0].place_of("input_ids"))
        results = await self._run(program, {}, stored, tuple(pools), chain)
        return results.pop("next"), results.pop("every"), results

    async def _step(
        self, shape: Shape, inputs: Arrays, pools: Tensors, fixed: Tensors, choice: Choice, *, is_stored: bool
    ) -> Compiled:
        pages, count = next(iter(pools.values())).shape[0], inputs["table"].shape[1] - PAGES
        memory = {name: tensor.spec for name, tensor in fixed.items()}
        return await self.compile_extend(shape, pages, count, memory, choice, is_stored=is_stored)

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

    async def compile_begin(self, shape: Shape, copies: int = 1) -> Compiled:
        """Compile the encoder for inputs of this shape; see :meth:`begin`."""
        inputs = dict.fromkeys(("input_ids", "attention_mask"), Spec(shape, dtypes.int32))

        def begun(given: Tensors, _: Tensors) -> Tensors:
            made = self.decoder.begin(self.adapters.weights(self._weights, given), given)
            return {name: repeat(tensor, copies, axis=0) for name, tensor in made.items()} if copies > 1 else made

        return await self._compile(("begin", shape, copies), inputs, {}, begun)

    async def compile_grow(self, old: int, new: int) -> Compiled:
        """Compile the copy of pools of ``old`` pages to pools of ``new`` pages."""
        after = self.pools(new)

        def grown(_: Tensors, stored: Tensors) -> Tensors:
            return {name: self._longer(pool, after[name]) for name, pool in stored.items()}

        return await self._compile(("grow", old, new), {}, self.pools(old), grown)

    async def compile_copy(self, rows: int, pages: int) -> Compiled:
        """Compile the copy of ``rows`` pages to other pages, of pools of ``pages`` pages."""
        tables = dict.fromkeys(("sources", "targets"), Spec((rows, PAGES + 1), dtypes.int32))

        def copied(given: Tensors, pools: Tensors) -> Tensors:
            return {
                name: paged_append(pool, paged_rows(pool, given["sources"]), given["targets"])
                for name, pool in pools.items()
            }

        return await self._compile(("copy", rows, pages), tables, self.pools(pages), copied)

    async def compile_extend(
        self, shape: Shape, pages: int, count: int, fixed: Specs, choice: Choice, *, is_stored: bool
    ) -> Compiled:
        """Compile a step over tokens of this shape, of rows with up to ``count`` of the ``pages`` of the pools.

        ``is_stored`` if the tokens are a tensor on the device, not an array.
        """
        key = ("extend", shape, pages, count, choice, is_stored, *(spec.shape for spec in fixed.values()))
        if self._is_kept(key):
            return self._kept[key]
        pools = self.pools(pages)

        def step(given: Tensors, stored: Tensors) -> Tensors:
            given = {**given, "input_ids": (stored if is_stored else given)["input_ids"]}
            ids, table = given["input_ids"], given["table"]
            past = KVState.paged(ids, table, {name: stored[name] for name in pools}, every=choice.every)
            if TOKENS in pools:
                column = reshape(ids, (ids.shape[0], 1, ids.shape[1], 1))
                past.grown[TOKENS] = paged_append(past.pools[TOKENS], column, table)
            weights = self.adapters.weights(self._weights, given)
            logits = self.decoder.step(weights, given, {name: stored[_fixed(name)] for name in fixed}, past)
            return {"next": choice.apply(logits, given, past), **past.grown}

        inputs = {"table": Spec((shape[0], PAGES + count), dtypes.int32), **choice.inputs(shape[0])}
        inputs |= self.adapters.specs(shape[0])
        stored = {**pools, **{_fixed(name): spec for name, spec in fixed.items()}}
        (stored if is_stored else inputs)["input_ids"] = Spec(shape, dtypes.int32)
        return await self._compile(key, inputs, stored, step)

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

    def _longer(self, pool: Tensor, spec: Spec) -> Tensor:
        """Append pages of zeros to ``pool``, up to the shape of ``spec``."""
        shape = (spec.shape[0] - pool.shape[0], *pool.shape[1:])
        return concat([pool, zeros(shape, dtype=pool.dtype, device=self.device)], axis=0)


def _fixed(name: str) -> str:
    """Return the name of the leaf for a tensor that all steps read."""
    return f"fixed {name}"


def _storage(tensor: Tensor) -> Storage:
    assert tensor.node.storage is not None
    return tensor.node.storage
