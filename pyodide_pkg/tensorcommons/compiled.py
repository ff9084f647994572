"""``compile``: a function of tensors, traced once for each shape of its arguments and replayed from then on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends.device import Device
from .errors import DeviceUnavailable, TensorCommonsError
from .graph.graph import Graph
from .graph.node import Node
from .graph.program import BoundProgram, compile_graph
from .tensor import Tensor, asarray


@dataclass(frozen=True)
class _Trace:
    """What tracing a function gave: a program over its arguments' leaves, and the shape of its answer."""

    bound: BoundProgram
    answer: Any  # the function's result, with numbers where its tensors were


class Compiled:
    """A compiled function: ``await compiled(...)`` gives what the function gives, its tensors computed.

    ``traces`` counts how often the function itself was called.
    """

    def __init__(self, function: Callable[..., Any], device: Device | None = None) -> None:
        self.function = function
        self.traces = 0
        self._device = device
        self._kept: dict[Hashable, _Trace] = {}

    def __repr__(self) -> str:
        return f"<Compiled {getattr(self.function, '__name__', self.function)!s}, {self.traces} traces>"

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it. Tensors and arrays are arguments; everything else is part of what is traced, and must be hashable.

        Raises:
            TensorCommonsError: an argument is neither, or the function is a coroutine.
            DeviceUnavailable: no argument is on a device, and ``compile`` was given none.
        """
        found: list[Any] = []
        form = _take_apart((args, kwargs), found)
        device = self._device_of(found)
        tensors = [value if isinstance(value, Tensor) else asarray(value, device=device) for value in found]
        graphs = [Graph([tensor.node]) for tensor in tensors]
        key = (_frozen(form), *(graph.structure for graph in graphs))
        try:
            trace = self._kept.get(key)
        except TypeError as error:
            raise TensorCommonsError(f"an argument of {self!r} is neither a tensor nor hashable: {error}") from error
        if trace is None or trace.bound.is_outdated:
            trace = self._kept[key] = await self._trace(form, graphs, device)
        arguments = {
            _name(i, j): leaf.storage
            for i, graph in enumerate(graphs)
            for j, leaf in enumerate(graph.leaves)
            if leaf.storage is not None
        }
        results = [Tensor.of_storage(*result) for result in await trace.bound.run(arguments=arguments)]
        return _put_together(trace.answer, results)

    def _device_of(self, values: Sequence[Any]) -> Device:
        devices = {id(v.device): v.device for v in values if isinstance(v, Tensor) and v.device is not None}
        if self._device is not None:
            devices.setdefault(id(self._device), self._device)
        if len(devices) != 1:
            reason = (
                f"its arguments are on {len(devices)} devices" if devices else "none of its arguments is on a device"
            )
            raise DeviceUnavailable("any", f"{self!r}: {reason}; move them with .to(), or give compile() a device")
        return next(iter(devices.values()))

    async def _trace(self, form: Any, graphs: Sequence[Graph], device: Device) -> _Trace:
        """Call the function on tensors without numbers."""
        symbols = [Tensor.symbolic(_without_numbers(graph, i), device) for i, graph in enumerate(graphs)]
        args, kwargs = _put_together(form, symbols)
        answer = self.function(*args, **kwargs)
        if inspect.isawaitable(answer):
            getattr(answer, "close", lambda: None)()
            raise TensorCommonsError(f"{self!r} is a coroutine; what is traced must be a plain function")
        self.traces += 1
        outputs: list[Any] = []
        form = _take_apart(answer, outputs)
        nodes = [(value if isinstance(value, Tensor) else asarray(value, device=device)).node for value in outputs]
        return _Trace(await compile_graph(device, nodes), form)


def compile(function: Callable[..., Any], *, device: Device | None = None) -> Compiled:
    """``function`` as one program a shape: traced when it sees new shapes, replayed by one call afterwards.

    The function takes and gives tensors, in tuples, lists and dicts if it likes, and computes with the ops of this
    package; what it does besides (printing, counting) happens while it is traced only. Tensors that it refers to
    without being given them keep their storage: writing one is seen by the next call. Arrays among the arguments go to
    ``device``, or to the device of the tensors beside them.

    Raises TensorCommonsError for what is no function, or no device.
    """
    if not callable(function) or not isinstance(device, (Device, type(None))):
        raise TensorCommonsError(f"compile() takes a function and a Device, not {function!r:.60} and {device!r:.60}")
    return Compiled(function, device)


@dataclass(frozen=True)
class _Slot:
    """Where a tensor stood."""

    index: int


def _take_apart(value: Any, found: list[Any]) -> Any:
    """``value`` with a slot for every tensor and array, which are added to ``found``."""
    if isinstance(value, (Tensor, np.ndarray)):
        found.append(value)
        return _Slot(len(found) - 1)
    if isinstance(value, dict):
        return {key: _take_apart(item, found) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_take_apart(item, found) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _put_together(form: Any, values: Sequence[Any]) -> Any:
    """The reverse of :func:`_take_apart`."""
    if isinstance(form, _Slot):
        return values[form.index]
    if isinstance(form, dict):
        return {key: _put_together(item, values) for key, item in form.items()}
    if isinstance(form, (tuple, list)):
        items = [_put_together(item, values) for item in form]
        return type(form)(*items) if hasattr(form, "_fields") else type(form)(items)
    return form


def _frozen(form: Any) -> Hashable:
    """``form`` as a key: 1, 1.0 and True are equal, but not the same to trace."""
    if isinstance(form, dict):
        return dict, tuple((key, _frozen(item)) for key, item in form.items())
    if isinstance(form, (tuple, list)):
        return type(form), tuple(map(_frozen, form))
    return type(form), form


def _name(argument: int, leaf: int) -> str:
    return f"argument {argument}, leaf {leaf}"


def _without_numbers(graph: Graph, argument: int) -> Node:
    """The node that ``graph`` computes, over leaves that each run is given anew."""
    renewed: dict[int, Node] = {}
    leaves = {id(leaf): _name(argument, i) for i, leaf in enumerate(graph.leaves)}
    for node in graph.nodes:
        if id(node) in leaves:
            renewed[id(node)] = Node(None, {}, (), node.spec, name=leaves[id(node)], is_stored=True)
        else:
            inputs = tuple(renewed[id(child)] for child in node.inputs)
            renewed[id(node)] = Node(node.op, node.attrs, inputs, node.spec, name=node.name)
    return renewed[id(graph.outputs[0])]
