"""The description of a program for ``webnn.js``: its graphs, its stages, and the tensors between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...bridge.runtime import Slices
from ...dtypes import float32
from ...shapes import Shape, size_of
from ..base import BlockSpec, Computation, Spec, Value
from .builder import EMPTY
from .constants import RowGraph
from .decoding import constant_weights
from .fields import field_tensors
from .lowering import physical
from .lowering.context import LoweringContext
from .multicore import WHOLE, Slot, Stage
from .splitting import Calls, Kind, Subgraph, bytes_of, reserved

AXES = 8  # of an MLTensor in Chromium
SMALL = 2**14  # bytes of a vector that is packed with others
MANY = 16  # such vectors of a graph, from which on that pays


class Description:
    """Description of a program for ``webnn.js``, made while its stages are added in their order.

    Between stages values lie in tensors of the program. One that no later level needs is taken again.
    """

    def __init__(self, plan: Computation, most: int) -> None:
        self.plan = plan
        self.most = most  # bytes of one graph
        self.hidden = self.reserved = 0  # bytes that LiteRT keeps for all graphs, and their address space
        self.graphs: dict[str, dict[str, Any]] = {}
        self.sources: list[tuple[Computation, int, int]] = []  # of each stage: its computation, part and parts
        self.stages: list[dict[str, Any]] = []
        self.row_graphs: list[RowGraph] = []  # those of a decoding step that multiply by weights
        self.fixed: list[tuple[str, Shape]] = []
        self.host: dict[int, tuple[int, int]] = {}  # by offset in the block: the fixed tensor, and bytes
        self.nbytes = 0
        self._beside: dict[int, int] = {}  # by leaf: the first handle of a run for its fields but the first
        after = plan.leaves
        for value in sorted((each for each in plan.values if each.op is None and not each.host), key=_index):
            self._beside[value.index] = after
            if isinstance(value.spec, BlockSpec):
                after += len(field_tensors(value.spec.format, value.spec.weight_shape)) - 1
        self._first_output = after  # among the handles of a run
        self._places: dict[Slot, int] = {}
        self._free: dict[tuple[str, Shape], list[int]] = {}

    @property
    def held(self) -> list[Slot]:
        """The slots that lie in tensors of the program."""
        return list(self._places)

    def free(self, slots: Iterable[Slot]) -> None:
        """Let later levels write to the tensors of ``slots``, which none of them needs."""
        for slot in slots:
            place = self._places.pop(slot)
            self._free.setdefault(self.fixed[place], []).append(place)

    def add(self, stage: Stage, lowering: LoweringContext, *, packs: bool) -> Slices[None]:
        """Add the graphs of ``stage``; with ``packs`` its small leaves are one tensor, see :meth:`_packed`."""
        values = stage.computation.values
        stored = [(slot, number) for slot, number in zip(stage.gives, stage.computation.outputs, strict=True)]
        stored = [(slot, number) for slot, number in stored if lowering.operands[number].node != EMPTY]
        calls = lowering.b.finished([lowering.operands[number] for _, number in stored])
        yield
        if not calls.nodes:
            return
        place, calls = self._packed(stage, calls) if packs else (-1, calls)
        targets = {
            node: self._target(slot, values[number].spec)
            for node, (slot, number) in zip(calls.outputs, stored, strict=True)
        }
        targets[len(calls.nodes)] = -1 - place  # what the vector's input refers to
        subgraphs = calls.subgraphs(self.most)
        yield
        weights = constant_weights(stage.computation) if stage.rows and len(subgraphs) == 1 else set()
        if weights:
            results = [number for _, number in stored]
            self.row_graphs.append(self._row_graph(stage, subgraphs[0], weights, results, targets))
        crossing: dict[int, int] = {}  # places of what a subgraph gives to later ones, by node
        for place, subgraph in enumerate(subgraphs):
            inputs = [
                (node, self._source(stage, values[number], subgraph.calls.kinds[node]))
                if number >= 0
                else (node, targets[-1 - number])
                for node, number in subgraph.calls.inputs
            ]
            for node in subgraph.gives:
                if node not in targets:
                    crossing[node] = self._place(calls.kinds[node], bytes_of(calls.kinds[node]))
                    targets[node] = -1 - crossing[node]
            outputs = [
                (node, targets[given]) for node, given in zip(subgraph.calls.outputs, subgraph.gives, strict=True)
            ]
            self._dispatch(stage, subgraph, inputs, outputs)
            self.sources.append((stage.computation, place, len(subgraphs)))
            yield
            later = {-1 - number for each in subgraphs[place + 1 :] for _, number in each.calls.inputs}
            for node in [node for node in crossing if node not in later]:
                self._free.setdefault(calls.kinds[node], []).append(crossing.pop(node))

    def _packed(self, stage: Stage, calls: Calls) -> tuple[int, Calls]:
        """Add a graph that makes one vector of many small leaves; return its place, and ``calls`` that slice it.

        A page's thread takes 4 µs for each input of a graph, and a model has a hundred biases and norms. The vector is
        made again only where one of these leaves is another one or was written.
        """
        values = stage.computation.values
        small = [
            (node, number)
            for node, number in calls.inputs
            if not values[number].host and calls.kinds[node][0] == "float32" and len(calls.kinds[node][1]) == 1
            if bytes_of(calls.kinds[node]) <= SMALL
        ]
        if len(small) < MANY:
            return -1, calls
        sizes = [calls.kinds[node][1][0] for node, _ in small]
        vector = Spec((sum(sizes),), float32)
        leaves = [values[number] for _, number in small]
        kinds = [*(calls.kinds[node] for node, _ in small), tensor_kind(vector)]
        concat = ["concat", [{"v": node} for node in range(len(small))], 0]
        place = self._new(tensor_kind(vector), vector.nbytes)
        self._dispatch(
            stage,
            Subgraph(Calls([*(calls.nodes[node] for node, _ in small), concat], kinds, [len(small)]), (len(small),)),
            [(node, self._source(stage, leaf, kinds[node])) for node, leaf in enumerate(leaves)],
            [(len(small), -1 - place)],
            once=True,
        )
        self.sources.append((stage.computation, 0, 1))
        starts = dict(zip((node for node, _ in small), itertools.accumulate(sizes, initial=0), strict=False))
        return place, calls.with_slices(starts, ["input", "float32", [sum(sizes)], -2 - len(calls.nodes)])

    def _row_graph(
        self, stage: Stage, subgraph: Subgraph, weights: set[int], results: Sequence[int], targets: Mapping[int, int]
    ) -> RowGraph:
        calls, values = subgraph.calls, stage.computation.values
        numbers = tuple(number for _, number in calls.inputs)
        return RowGraph(
            len(self.stages),
            stage.computation,
            subgraph.structure,
            slots=tuple(self._source(stage, values[number], calls.kinds[node]) for node, number in calls.inputs),
            values=numbers,
            weights=tuple(place for place, number in enumerate(numbers) if number in weights),
            results=tuple(results),
            outputs=tuple(targets[node] for node in subgraph.gives),
        )

    def _dispatch(
        self,
        stage: Stage,
        subgraph: Subgraph,
        inputs: list[tuple[int, int]],
        outputs: list[tuple[int, int]],
        *,
        once: bool = False,
    ) -> None:
        """Add a graph and its dispatch. Layers that differ in their weights only are one graph, for each of the parts
        that run side by side."""
        nodes, results = subgraph.calls.nodes, subgraph.calls.outputs
        key = f"{stage.part} {subgraph.structure}"
        if key not in self.graphs:
            self.hidden += subgraph.calls.hidden_bytes()
            self.reserved += reserved(subgraph.calls.block_bytes)
        graph = self.graphs.setdefault(key, {"index": len(self.graphs), "nodes": nodes, "outputs": results})
        self.stages.append({"graph": graph["index"], "once": once, "inputs": inputs, "outputs": outputs})

    def _source(self, stage: Stage, value: Value, kind: Kind) -> int:
        if value.host:
            if value.index not in self.host:
                self.host[value.index] = (self._new(tensor_kind(value.spec), value.spec.nbytes), value.spec.nbytes)
            return -1 - self.host[value.index][0]
        slot = stage.needs[value.index]
        source = self.plan.values[slot[0]]
        if source.op is None:
            place = 0
            if isinstance(source.spec, BlockSpec):
                place = field_tensors(source.spec.format, source.spec.weight_shape).index(kind)
            return source.index if not place else self._beside[source.index] + place - 1
        return self._output(slot) if slot not in self._places else -1 - self._places[slot]

    def _target(self, slot: Slot, spec: Spec) -> int:
        if slot[1] == WHOLE and slot[0] in self.plan.outputs:
            return self._output(slot)
        self._places[slot] = self._place(tensor_kind(spec), spec.nbytes)
        return -1 - self._places[slot]

    def _place(self, tensor: Kind, nbytes: int) -> int:
        """A tensor of the program for what a later graph needs: one that nothing needs any more, or a new one."""
        free = self._free.get(tensor)
        return free.pop() if free else self._new(tensor, nbytes)

    def _output(self, slot: Slot) -> int:
        return self._first_output + self.plan.outputs.index(slot[0])

    def _new(self, tensor: tuple[str, Shape], nbytes: int) -> int:
        self.fixed.append(tensor)
        self.nbytes += nbytes
        return len(self.fixed) - 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "fixed": self.fixed,
            "host": [(place, offset, nbytes) for offset, (place, nbytes) in self.host.items()],
            "outputs": [tensor_kind(self.plan.values[number].spec) for number in self.plan.outputs],
            "graphs": list(self.graphs.values()),
            "stages": self.stages,
        }


def _index(value: Value) -> int:
    return value.index


def tensor_kind(spec: Spec) -> tuple[str, Shape]:
    """An MLTensor's dtype and shape; what has more axes than any lies flat, for other devices to compute with."""
    shape = spec.shape if len(spec.shape) <= AXES else (size_of(spec.shape),)
    return physical(spec.dtype), shape
