"""``explain_plan``: a model's run as text, as it is planned under the limit that there is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..backends.base import Attributes, Command
from ..backends.device import Device
from ..errors import TensorCommonsError, quoted
from ..graph.bound import BoundProgram
from ..graph.elementwise_fusion import operations_of
from ..graph.graph import Graph
from ..graph.parted import PartedProgram
from ..graph.profile_table import nodes_of
from ..graph.program import Program
from ..graph.reuse import ReusePoint
from .contract import Movable
from .runner import Runner

SHOWN = 12  # kinds of steps, reuse points and parts that are listed; more are counted


def explain_plan(model: Movable, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> str:
    """Describe how ``model`` runs on ``inputs``, the arrays of a call by name, in lines of text; nothing runs.

    The text says what the operations become by merging and fusion, the dispatches by number (where nothing is reused),
    the bytes of the arena, the reuse points (values that later runs take from the activation cache), the parts of a run
    and why each is on its device, and of a model that is larger than the limit in how many segments its weights stream,
    and how many bytes each run moves.

    Raises:
        ShapeMismatch: the model cannot take the inputs.
        TensorReleased: the model was unloaded.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> model = await tc.from_pretrained("./models/splade-tiny", manager=manager)
    >>> print(tc.explain_plan(model, {"input_ids": np.array([[101, 2009, 102]])}))
    splade-tiny is on cpu ...arena: 50,176 bytes...
    >>> manager.close()
    """
    runner: Runner = model.manager.runner
    run = runner.prepared(model.device, model.request(inputs, outputs))
    fused = run.fused
    program = BoundProgram(model.device, fused, f"fused {fused.structure}").outline()
    steps = sum(len(plan.plan.steps) for plan in program.plans)
    lines = [
        model.explain(),
        f"{fused.traced} operations, {run.executed} after merging equal ones, {steps} after fusion",
        *_fused(program),
        *_dispatches(program),
        *_memory(program),
        *_reuse(run.cuts),
    ]
    if isinstance(program, PartedProgram):
        lines += _parts(program, fused)
    else:
        lines.append(f"all of it runs on {model.device.kind} as one program")
    return "\n".join(lines)


def _fused(program: Program | PartedProgram) -> Iterator[str]:
    """Yield a line for each kind of fused step."""
    kinds = Counter(
        kind for plan in program.plans for step in plan.plan.steps if (kind := _kind(step.op.name, step.attrs))
    )
    lines = [f"  fused {count} \N{MULTIPLICATION SIGN} {kind}" for kind, count in kinds.most_common()]
    yield from _first(lines, SHOWN, "kinds")


def shader_source(model: Movable, inputs: Mapping[str, Any], step: int, outputs: Sequence[str] | None = None) -> str:
    """Return the WGSL of dispatch ``step`` of a run of ``model`` on ``inputs``, the arrays of a call by name.

    Dispatches are numbered as in :func:`explain_plan`, and in the rows of a profile of a run that reuses nothing.

    Raises:
        TensorCommonsError: the run has no such dispatch, or the dispatch is on a device without shaders.
        ShapeMismatch: the model cannot take the inputs.
        TensorReleased: the model was unloaded.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256, devices=await tc.open_devices())
    >>> model = await tc.from_pretrained("./models/splade-tiny", manager=manager, device="webgpu")
    >>> "@compute" in tc.shader_source(model, {"input_ids": np.array([[101, 2009, 102]])}, step=1)
    True
    >>> manager.close()
    """
    fused = model.manager.runner.prepared(model.device, model.request(inputs, outputs)).fused
    commands = list(_commands(BoundProgram(model.device, fused, f"fused {fused.structure}").outline()))
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < len(commands):
        numbers = f"0 to {len(commands) - 1}" if commands else "none"
        raise TensorCommonsError(
            f"step {quoted(step)} is not a dispatch of this run of {model.name}, which has {numbers}"
        )
    device, command = commands[step]
    if not command.source:
        raise TensorCommonsError(
            f"dispatch {step} ({command.kernel}) runs on {device.kind}, which has no shaders: move the model to webgpu"
        )
    return command.source


def _commands(program: Program | PartedProgram) -> Iterator[tuple[Device, Command]]:
    """Yield the commands of a run in their order, each with its device."""
    for each in program.programs if isinstance(program, PartedProgram) else [program]:
        for plan in each.plans:
            for command in each.device.backend.commands(plan.plan):
                yield each.device, command


def _dispatches(program: Program | PartedProgram) -> Iterator[str]:
    """Yield a line for each kind of dispatch, with the numbers of those that are equal."""
    numbers: dict[str, list[int]] = {}
    for number, (device, command) in enumerate(_commands(program)):
        output = command.work[-1].output
        shape = "\N{MULTIPLICATION SIGN}".join(map(str, output.shape)) or "()"
        names = nodes_of(command.work)
        shown = "+".join(names) if len(names) < SHOWN else f"graph of {len(names)} nodes"
        part = f" {command.part + 1}/{command.parts}" if command.parts > 1 else ""
        line = f"{shown}{part} to {shape} {output.dtype} by {command.kernel} on {device.kind}"
        numbers.setdefault(line, []).append(number)
    yield f"{sum(map(len, numbers.values()))} dispatches:"
    lines = [f"  {_listed(list(map(str, found)))}: {line}" for line, found in numbers.items()]
    yield from _first(lines, 4 * SHOWN, "kinds")


def _first(lines: Sequence[str], most: int, what: str) -> Iterator[str]:
    """Yield the first ``most`` of ``lines``, and a line with the number of the others."""
    yield from lines[:most]
    if len(lines) > most:
        yield f"  and {len(lines) - most} {what} more"


def _listed(names: Sequence[str]) -> str:
    """Return the first of ``names``, and the number of the others."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _kind(name: str, attrs: Attributes) -> str:
    """Name the operations of a fused step; empty where it is one operation."""
    if name == "chain":
        return f"elementwise: {', '.join(operations_of(attrs['formula']))}"
    if name == "linears":
        return f"{attrs['count']} products of one value"
    if name == "linear_parts":
        return f"a product whose depth is cut in {attrs['count']}, added up by its norm"
    if name == "sum_norm":
        terms: Any = attrs["terms"]
        words = {"taken": "embedding", "parts": "parts of a product", "repeated": "positions", "whole": "value"}
        return f"layer_norm of {' + '.join(words.get(kind, kind) for kind, _ in terms)}"
    more = [str(attrs["activation"])] if attrs.get("activation") else []
    more += ["residual"] if attrs.get("residual") is True else []
    return " + ".join([name, *more]) if more else ""


def _memory(program: Program | PartedProgram) -> Iterator[str]:
    arenas = [plan.plan.arena_bytes for plan in program.plans]
    bounds = [plan.arena_lower_bound for plan in program.plans]
    results = sum(sum(plan.plan.output_bytes) for plan in program.plans[-1:])
    if any(arenas):
        yield f"arena: {max(arenas):,} bytes (no plan can do with less than {max(bounds):,}), outputs {results:,}"
    else:
        yield f"arena: the device's own, outputs {results:,} bytes"


def _reuse(cuts: Sequence[ReusePoint]) -> Iterator[str]:
    names = [f"{cut.node.op.name} {cut.node.spec.shape}" for cut in cuts if cut.node.op is not None]
    yield f"reuse points: {_listed(names) or 'none'}"


def _parts(program: PartedProgram, fused: Graph) -> Iterator[str]:
    for op, reason in program.why.items():
        yield f"{program.device.kind} does not take {op}: {reason}"
    leaves = {n: node.storage for n, node in enumerate(fused.nodes) if node.is_stored and node.storage is not None}
    reads: Sequence[Sequence[int]] = [[] for _ in program.parts]
    stay: frozenset[int] = frozenset()
    if program.streamed:
        reads, found = program.residents(leaves)
        stay = found.weights
        total = sum(leaves[number].nbytes for number in {number for part in reads for number in part})
        yield (
            f"streams: {total:,} bytes of weights do not fit under the limit, so they come and go in "
            f"{len(program.parts)} segments. {sum(leaves[number].nbytes for number in stay):,} bytes stay, and each "
            f"run (of a generation: each token) moves {found.moved:,}"
        )
    lines = []
    for number, (part, read) in enumerate(zip(program.parts, reads, strict=True), 1):
        nbytes = sum(leaves[each].nbytes for each in read)
        moving = sum(leaves[each].nbytes for each in read if each not in stay)
        weights = f", {nbytes:,} bytes of weights, {moving:,} of them brought for it" if program.streamed else ""
        count = part.graph.executed
        operations = f"{count} operation{'s' if count > 1 else ''}"
        lines.append(f"  part {number}: {operations} on {part.device.kind}{weights}")
    yield from _first(lines, SHOWN, "parts")
