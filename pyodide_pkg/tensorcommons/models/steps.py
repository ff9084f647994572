"""The programs of one model's generation: one a shape, replayed for every token.

What changes from step to step are arrays of the host (the tokens, how many slots are filled) and the storages of the
cache; both are said by each run. So a step compiles nothing, until the cache has to grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.device import Device
from ..graph.node import Node
from ..graph.program import BoundProgram, compile_graph
from ..ops import concat, zeros
from ..sharing.storage import Storage
from ..tensor import Tensor
from .decoder import Decoder, Past

Tensors: TypeAlias = "dict[str, Tensor]"
Arrays: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"
FORWARD_INPUTS = ("input_ids", "start", "filled", "count")


class Steps:
    """Compiled steps of ``decoder`` over ``weights``."""

    def __init__(self, decoder: Decoder, weights: Mapping[str, Tensor], device: Device) -> None:
        self.decoder = decoder
        self.device = device
        self._weights = weights
        self._kept: dict[tuple[Any, ...], tuple[BoundProgram, tuple[str, ...]]] = {}

    async def begin(self, inputs: Arrays) -> Tensors:
        """What all steps of a generation read; for an encoder-decoder the encoder's answer to ``inputs``."""
        if self.decoder.start_token is None:
            return {}
        return await self._run("begin", inputs, {}, lambda given, _: self.decoder.begin(self._weights, given))

    async def empty(self, batch: int, capacity: int) -> Tensors:
        """A cache with nothing in it. Parts of one shape are one storage: the first step gives each its own."""
        specs = self.decoder.cache(batch, capacity)
        made = {
            spec: await zeros(spec.shape, dtype=spec.dtype, device=self.device).realize()
            for spec in dict.fromkeys(specs.values())
        }
        return {name: made[spec] for name, spec in specs.items()}

    async def grow(self, cache: Tensors, batch: int, capacity: int) -> Tensors:
        """The same cache with more slots."""
        specs = self.decoder.cache(batch, capacity)

        def grown(_: Tensors, stored: Tensors) -> Tensors:
            return {
                name: concat(
                    [part, zeros(_behind(part.spec, specs[name]), dtype=part.dtype, device=self.device)], axis=2
                )
                for name, part in stored.items()
            }

        return await self._run("grow", {}, cache, grown, capacity)

    async def extend(self, inputs: Arrays, cache: Tensors, fixed: Tensors) -> tuple[Tensor, Tensors]:
        """Logits (batch, vocabulary) after the tokens of ``inputs``, and the cache with them in it."""

        def step(given: Tensors, stored: Tensors) -> Tensors:
            past = Past.stepwise(given, {name: stored[name] for name in cache})
            logits = self.decoder.step(self._weights, given, {name: stored[f"fixed {name}"] for name in fixed}, past)
            return {"logits": logits, **past.grown}

        stored = {**cache, **{f"fixed {name}": tensor for name, tensor in fixed.items()}}
        results = await self._run("extend", inputs, stored, step, donated=tuple(cache))
        return results.pop("logits"), results

    async def _run(
        self,
        kind: str,
        inputs: Arrays,
        stored: Tensors,
        trace: Callable[[Tensors, Tensors], Tensors],
        *more: int,
        donated: Sequence[str] = (),
    ) -> Tensors:
        """Run the program of ``trace`` for inputs and stored tensors of these shapes, compiled the first time.

        Tensors that are ``donated`` are given up: what is appended to them is written in place.
        """
        shapes = [(name, value.shape) for values in (inputs, stored) for name, value in values.items()]
        key = (kind, *more, *shapes)
        if key not in self._kept or self._kept[key][0].is_outdated:
            given = {name: self._symbol(Spec(array.shape, dtypes.int32), name) for name, array in inputs.items()}
            leaves = {name: self._symbol(t.spec, name, is_stored=True) for name, t in stored.items()}
            results = trace(given, leaves)
            bound = await compile_graph(self.device, [tensor.node for tensor in results.values()])
            self._kept[key] = bound, tuple(results)
        bound, names = self._kept[key]
        answer = await bound.run(inputs, {name: _storage(tensor) for name, tensor in stored.items()}, donated)
        return {name: Tensor.of_storage(*result) for name, result in zip(names, answer, strict=True)}

    def _symbol(self, spec: Spec, name: str, *, is_stored: bool = False) -> Tensor:
        return Tensor.symbolic(Node(None, {}, (), spec, name=name, is_stored=is_stored), self.device)


def _behind(old: Spec, new: Spec) -> Sequence[int]:
    """The shape of the slots that come behind those of ``old``."""
    return (*old.shape[:2], new.shape[2] - old.shape[2], old.shape[3])


def _storage(tensor: Tensor) -> Storage:
    assert tensor.node.storage is not None
    return tensor.node.storage
