"""Programs in parts: a graph that runs as several programs, one after another (:mod:`~.partition`).

What crosses between devices goes through the host where neither can lend the other its bytes, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar
from weakref import ref

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..backends.recovery import surviving
from ..bridge.runtime import Slices, in_slices
from ..sharing.storage import Storage
from ..sharing.transfer import cross
from .graph import Graph
from .partition import Part
from .passes import planned
from .plan import Planned
from .program import Program
from .streaming import Residents, Stream, residents_of

T = TypeVar("T")
_Copies: TypeAlias = dict[tuple[Device, int], Storage]  # of a run's values, by device and number


@dataclass
class Traffic:
    """Traffic of one run between devices, in bytes but for the counts ``transfers`` and ``rented`` of them.

    ``moved`` are weights that were brought to the device, and ``resident`` those that stay there between runs;
    ``transferred`` came from one device to another, in ``transfers``, ``rented`` of them without the host.
    """

    moved: int = 0
    resident: int = 0
    transfers: int = 0
    transferred: int = 0
    rented: int = 0


class PartedProgram:
    """A graph that runs in parts, each a program of its device: the counterpart of :class:`~.program.Program`.

    Copies of weights on other devices are kept as long as the compiled programs, until the weight is written or
    released. A fallback that is lost and does not come back is replaced by the next one. ``streamed`` is the most bytes
    of weights that a part may have where weights are streamed (:mod:`~.streaming`), else 0. ``working_bytes`` are those
    of the whole graph's arena and outputs, ``traffic`` that of the run that ended last.
    """

    uncounted = 0, 0  # the devices of the parts count their programs

    def __init__(
        self,
        device: Device,
        structure: str,
        graph: Graph,
        fused: Graph,
        parts: Sequence[Part],
        why: Mapping[str, str],
        working_bytes: int,
        streamed: int,
    ) -> None:
        self.device = device
        self.structure = structure
        self.nodes = graph.traced
        self.executed = graph.executed
        self.parts = tuple(parts)
        self.why = dict(why)
        self.working_bytes = working_bytes
        self.streamed = streamed
        self.steps = sum(part.graph.executed for part in parts)
        self.traffic = Traffic()
        self.programs: list[Program] = []  # those of the parts, once they are planned
        self.is_compiled = False
        self._kept: dict[tuple[Device, str], Storage] = {}  # copies of weights, by device and identity
        self._runs = 0
        numbers = {node: number for number, node in enumerate(fused.nodes)}
        self._outputs = [(numbers[node], node.spec) for node in fused.outputs]
        self._leaves = [numbers[node] for node in fused.leaves]
        self._specs = [node.spec for node in fused.nodes]
        last = {number: index for index, part in enumerate(parts) for number in (*part.needed, *part.made)}
        last |= {number: len(parts) for number, _ in self._outputs}
        self._ends: list[set[int]] = [set() for _ in range(len(parts) + 1)]  # values, by the last part that needs them
        for number, index in last.items():
            self._ends[index].add(number)
        self._residents: dict[Any, Residents] = {}

    @property
    def plans(self) -> Sequence[Planned[Any]]:
        """Plans of the parts."""
        return [program.planned for program in self.programs]

    @property
    def dispatches(self) -> int:
        """Commands of one run, of all parts."""
        return sum(program.dispatches for program in self.programs)

    @property
    def devices(self) -> list[dict[str, Any]]:
        """The parts' devices in order, with the number of nodes that each runs; ``why`` has the reasons by op."""
        return [{"device": part.device.kind, "nodes": part.graph.executed} for part in self.parts]

    @property
    def idle_bytes(self) -> int:
        """Bytes of the weights' copies that :meth:`discard` frees; the parts' programs are counted by their devices."""
        return 0 if self._runs else sum(copy.nbytes for copy in self._kept.values() if copy.is_resident)

    def bytes_to_run(self, taken: Collection[int] = ()) -> int:
        """Bytes that a run takes on the program's own device beside its leaves."""
        return sum(program.bytes_to_run() for program in self.programs if program.device is self.device)

    def plan(self) -> Slices[None]:
        """Plan every part, pass by pass. Parts of one structure on one device are one program."""
        made: dict[tuple[Device, str], Program] = {}
        for part in self.parts:
            key = part.device, f"part {part.graph.structure}"
            if key not in made:
                made[key] = part.device.programs.get(key[1]) or Program(
                    *key, (yield from planned.slices(part.device, part.graph)), part.graph
                )
        self.programs = [made[part.device, f"part {part.graph.structure}"] for part in self.parts]

    async def compile(self) -> None:
        """Compile every part, unless they are compiled. Raises as a program does."""
        if not self.is_compiled:
            await self._with_fallbacks(self._compiled)
        self.device.keep_program(self)

    async def _compiled(self) -> None:
        await in_slices(self.plan())
        for program in dict.fromkeys(self.programs):
            await program.compile()
        self.is_compiled = True

    async def _with_fallbacks(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, which survives the loss of a fallback; the caller handles that of the program's own device."""
        return await surviving(work, lambda: {part.device for part in self.parts} - {self.device}, self._replace)

    async def _replace(self, lost: Device) -> bool:
        """Put the next fallback in the place of one that is gone. The parts are compiled by the next attempt."""
        other = self.device.fallback
        if other is None or other is lost:
            return False
        self.parts = tuple(replace(p, device=other) if p.device is lost else p for p in self.parts)
        self.is_compiled = False
        return True

    async def run(
        self,
        leaves: Sequence[Storage],
        inputs: Mapping[str, np.ndarray[Any, Any]],
        donated: Collection[int] = (),
    ) -> list[tuple[Storage, Spec]]:
        """Run all parts; raises as a program does. Outputs are on the program's own device."""
        self._runs += 1
        try:
            return await self._with_fallbacks(lambda: self._run(leaves, inputs, donated))
        finally:
            self._runs -= 1
            if not self.device.keeps(self):  # forgotten while it ran
                self.discard()
            for part in self.parts:
                part.device.drop_programs()

    async def _run(
        self, leaves: Sequence[Storage], inputs: Mapping[str, np.ndarray[Any, Any]], donated: Collection[int]
    ) -> list[tuple[Storage, Spec]]:
        if not self.is_compiled:  # a fallback was replaced
            await self._compiled()
        values = dict(zip(self._leaves, leaves, strict=True))
        copies, traffic, last = _Copies(), Traffic(), self._last_uses()
        given_up = self._given_up(leaves, donated)
        stream = self._stream(values, traffic) if self.streamed else None
        try:
            for index, (part, program) in enumerate(zip(self.parts, self.programs, strict=True)):
                arguments = [await self._on(part.device, each, values[each], copies, traffic) for each in part.needed]
                if stream is not None:
                    await stream.begin(index, program.bytes_to_run())
                ends = self._ends[index]
                places = [place for place, number in enumerate(part.needed) if number in given_up & ends]
                results = await program.run(arguments, inputs, places)
                if stream is not None:
                    stream.ran(index)
                values.update({number: storage for number, (storage, _) in zip(part.made, results, strict=True)})
                for number in ends:  # their bytes go back with the last reference
                    del values[number]
                for number in part.needed:
                    if last[part.device, number] == index:
                        copies.pop((part.device, number), None)
                del arguments, results
            outputs = [
                (await self._on(self.device, number, values[number], copies, traffic), spec)
                for number, spec in self._outputs
            ]
        except BaseException:  # a traceback that is kept would keep them
            for number in values.keys() - set(self._leaves):
                values[number].release()
            for copy in set(copies.values()) - set(self._kept.values()):
                copy.release()
            raise
        finally:
            if stream is not None:
                traffic.moved = stream.moved
                await stream.close()
        self.traffic = traffic
        return outputs

    def _last_uses(self) -> dict[tuple[Device, int], int]:
        """Map device and value to the last part there that needs the value; an output to the number of parts."""
        last = {(part.device, each): index for index, part in enumerate(self.parts) for each in part.needed}
        return last | {(self.device, number): len(self.parts) for number, _ in self._outputs}

    def _given_up(self, leaves: Sequence[Storage], donated: Collection[int]) -> set[int]:
        """Return the numbers of the donated leaves that a part may write in place: those that one part needs."""
        if not donated or any(part.device is not self.device for part in self.parts):
            return set()
        uses = Counter(leaves)
        parts = Counter(number for part in self.parts for number in part.needed)
        places = [place for place in donated if uses[leaves[place]] == 1]
        return {self._leaves[place] for place in places if parts[self._leaves[place]] == 1}

    def _stream(self, values: Mapping[int, Storage], traffic: Traffic) -> Stream:
        """Return the stream of the weights among the leaves ``values``, part by part."""
        reads, found = self.residents(values)
        traffic.resident = sum(values[number].nbytes for number in found.weights)
        stay = {values[number] for number in found.weights}
        return Stream(self.device, [[values[number] for number in part] for part in reads], stay, found.alone)

    def residents(self, leaves: Mapping[int, Storage]) -> tuple[list[list[int]], Residents]:
        """Return the weights of ``leaves`` that each part reads on the device, by number, and those that stay there.

        A part on the fallback reads copies, which are made from wherever the weights are.
        """
        weights = {number for number, storage in leaves.items() if storage.category == "weights"}
        reads = [
            [number for number in part.needed if number in weights and part.device is self.device]
            for part in self.parts
        ]
        others = sum(storage.nbytes for number, storage in leaves.items() if number not in weights)
        room = self.device.budget.room(set(leaves.values())) - others
        key = room, frozenset(weights)
        if key not in self._residents:
            sizes = {number: leaves[number].nbytes for number in weights}
            rooms = [room - nbytes for nbytes in self._taken_beside()]
            self._residents = {key: residents_of(reads, sizes, rooms)}
        return reads, self._residents[key]

    def _taken_beside(self) -> list[int]:
        """Return the bytes of each part beside its leaves: kept by programs, arena, values between parts, copies."""
        programs = list(dict.fromkeys(self.programs))
        kept = max((program.working_bytes - program.output_bytes for program in programs), default=0)
        kept += sum(program.kept_bytes for program in programs)
        between, taken, leaves, last = 0, [], set(self._leaves), self._last_uses()
        home = dict.fromkeys(self._leaves, self.device)
        copies: set[tuple[Device, int]] = set()
        for index, part in enumerate(self.parts):
            home |= dict.fromkeys(part.made, part.device)
            here = {(part.device, number) for number in part.needed if home[number] is not part.device}
            between += sum(self._specs[number].nbytes for number in part.made)
            between += sum(self._specs[number].nbytes for _, number in here - copies)
            copies |= here
            taken.append(kept + between)
            between -= sum(self._specs[number].nbytes for number in self._ends[index] if number not in leaves)
            gone = {key for key in here if last[key] == index}
            between -= sum(self._specs[number].nbytes for _, number in gone)
            copies -= gone
        return taken

    async def _on(self, device: Device, number: int, storage: Storage, copies: _Copies, traffic: Traffic) -> Storage:
        """Return a value on ``device``, copied once a run; a weight is copied once."""
        if storage.device is device:
            return storage
        key = device, number
        if key not in copies:
            weight = (device, storage.identity) if storage.is_known and storage.category == "weights" else None
            known = self._kept.get(weight) if weight is not None else None
            if known is None or not known.is_resident:
                known, way = await cross(storage, device, "weights" if weight else "activations", self._specs[number])
                traffic.transfers += 1
                traffic.transferred += known.nbytes
                traffic.rented += way == "rented"
                if weight is not None and not self.streamed:
                    self._keep(weight, known, storage)
            copies[key] = known
        return copies[key]

    def _keep(self, weight: tuple[Device, str], copy: Storage, original: Storage) -> None:
        """Keep the copy of a weight until that is written or released."""
        self._kept[weight] = copy
        program = ref(self)

        def drop() -> None:
            if (known := program()) is not None:
                known._kept.pop(weight, None)

        original.when_changed(drop)

    def abandon(self) -> None:
        """Keep the copies of weights: they are on other devices than the one that was lost."""

    def discard(self) -> None:
        """Free the copies of weights; the parts' devices discard the programs."""
        if not self._runs:
            self._kept.clear()
