"""``compile``: trace a function of tensors once for each combination of argument shapes, then replay it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backends.base import Spec
from .backends.current import default_device, device_of
from .backends.device import Device
from .dtypes import as_dtype, default_dtype
from .errors import DeviceMismatch, TensorCommonsError, quoted
from .graph.bound import BoundProgram, compile_graph
from .graph.graph import Graph
from .graph.node import Node, argument
from .graph.rewrite import given, rebuild
from .sharing.storage import Storage
from .tensor import Tensor, asarray

HOST_BYTES = 2**16  # a larger array gets a device buffer of its own


@dataclass(frozen=True)
class _Trace:
    """A traced function: a program over the leaves of its arguments, and the structure of its result."""

    bound: BoundProgram
    answer: Any  # the function's result, with a slot in place of each tensor


class Compiled:
    """A compiled function: ``await compiled(...)`` returns the function's result with its tensors computed.

    ``traces`` counts the calls of the function itself.

    >>> double = tc.compile(lambda x: x * 2)
    >>> for n in range(3):
    ...     result = await double(tc.asarray([n]))
    >>> double.traces, result.numpy().tolist()
    (1, [4])
    """

    def __init__(
        self, function: Callable[..., Any], device: Device | None = None, donate_argnames: Collection[str] = ()
    ) -> None:
        self.function = function
        self.traces = 0
        self._device = device
        self._signature = inspect.signature(function) if donate_argnames else None
        self._donated = frozenset(donate_argnames)
        self._kept: dict[Hashable, _Trace] = {}

    def __repr__(self) -> str:
        return f"<Compiled {getattr(self.function, '__name__', self.function)!s}, {self.traces} traces>"

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function. Tensors and arrays are its inputs; all other arguments are constants of the trace.

        Raises:
            TensorCommonsError: a constant is not hashable, or the function is a coroutine.
            DeviceMismatch: the arguments are on several devices.
        """
        found: list[Any] = []
        form = _take_apart((args, kwargs), found)
        device = self._device_of(found)
        values = [_argument(value, device) for value in found]
        key = (_frozen(form), *map(_kind, values))
        try:
            trace = self._kept.get(key)
        except TypeError as error:
            raise TensorCommonsError(
                f"an argument of {self!r} must be a tensor, an array or hashable: {error}"
            ) from error
        if trace is None or trace.bound.is_outdated:
            trace = self._kept[key] = await self._trace(form, values, device)
        storages: dict[str, Storage] = {}
        for i, value in enumerate(values):
            if isinstance(value, Tensor):
                leaves = [value.node] if value.node.storage is not None else Graph([value.node]).leaves
                storages |= {_name(i, j): leaf.storage for j, leaf in enumerate(leaves) if leaf.storage is not None}
        inputs = {_name(i, 0): value for i, value in enumerate(values) if isinstance(value, np.ndarray)}
        results = await trace.bound.run(inputs, storages, self._given_up(args, kwargs, found))
        return _put_together(trace.answer, [Tensor.of_storage(*result) for result in results])

    def _given_up(self, args: Any, kwargs: Any, found: Sequence[Any]) -> set[str]:
        """Return the names of the donated arguments' leaves. Only whole tensors can be donated."""
        if self._signature is None:
            return set()
        given = self._signature.bind(*args, **kwargs).arguments
        donated: list[Any] = []
        _take_apart([given[name] for name in self._donated if name in given], donated)
        owners = {id(value) for value in donated}
        return {_name(i, 0) for i, value in enumerate(found) if id(value) in owners}

    def _device_of(self, values: Sequence[Any]) -> Device:
        devices = {id(v.own_device): v.own_device for v in values if isinstance(v, Tensor) and v.own_device is not None}
        if self._device is not None:
            devices.setdefault(id(self._device), self._device)
        if len(devices) > 1:
            raise DeviceMismatch(f"the arguments of {self!r}", devices.values())
        return next(iter(devices.values()), None) or default_device()

    async def _trace(self, form: Any, values: Sequence[Tensor | np.ndarray[Any, Any]], device: Device) -> _Trace:
        """Call the function on symbolic tensors and compile its result."""
        symbols = [Tensor.symbolic(_without_numbers(value, i), device) for i, value in enumerate(values)]
        args, kwargs = _put_together(form, symbols)
        answer = self.function(*args, **kwargs)
        if inspect.isawaitable(answer):
            getattr(answer, "close", lambda: None)()
            raise TensorCommonsError(f"{self!r} is a coroutine; compile() needs a plain function")
        self.traces += 1
        outputs: list[Any] = []
        form = _take_apart(answer, outputs)
        nodes = [(value if isinstance(value, Tensor) else asarray(value, device=device)).node for value in outputs]
        return _Trace(await compile_graph(device, nodes), form)


def compile(
    function: Callable[..., Any], *, device: Device | str | None = None, donate_argnames: Sequence[str] = ()
) -> Compiled:
    """Compile ``function`` to one program for each combination of argument shapes.

    The function is traced when it is called with new shapes; later calls replay the program in one call.

    The function takes and returns tensors, also nested in tuples, lists and dicts, and computes with the ops of this
    package. Side effects (printing, counting) happen only while it is traced. A tensor that the function refers to
    without taking it as an argument keeps its storage, so the next call uses values written to it meanwhile. Arrays
    among the arguments go to ``device`` (a Device or a kind), else to the device of the tensors beside them, else to
    the default device; small arrays are written by the call itself.

    The tensors in the arguments named in ``donate_argnames`` are donated, as in JAX: a result that
    ``kv_cache_append`` computes from one reuses its bytes if nothing else in the call needs them, and reading the
    argument raises TensorReleased from then on. Tensors that a manager keeps are copied instead. A call that fails
    while it runs may have consumed the donated tensors.

    Raises:
        TensorCommonsError: ``function`` is not a function, or a name in ``donate_argnames`` is not an argument of it.
        DeviceUnavailable: ``device`` is not a device.

    >>> @tc.compile
    ... def norm(x):
    ...     return tc.sqrt(tc.sum(x * x))
    >>> print((await norm(tc.asarray([3.0, 4.0]))).numpy())
    5.0
    """
    if not callable(function):
        raise TensorCommonsError(f"compile() takes a function, not {quoted(function)}")
    place = None if device is None else device_of(device)
    known = inspect.signature(function).parameters if donate_argnames else {}
    if not isinstance(donate_argnames, (list, tuple, set, frozenset)) or any(n not in known for n in donate_argnames):
        raise TensorCommonsError(
            f"donate_argnames must be a list of arguments of the function ({', '.join(known)}), "
            f"not {quoted(donate_argnames)}"
        )
    return Compiled(function, place, donate_argnames)


def _argument(value: Any, device: Device) -> Tensor | np.ndarray[Any, Any]:
    """Return the input of a run for ``value``: a tensor, or an array small enough to be written by the run."""
    if isinstance(value, Tensor):
        return value
    if value.nbytes > HOST_BYTES:
        return asarray(value, device=device)
    return np.asarray(value, default_dtype(value, value).numpy)


def _kind(value: Tensor | np.ndarray[Any, Any]) -> Hashable:
    """Return the part of an argument that a trace depends on."""
    if isinstance(value, np.ndarray):
        return "array", value.dtype.name, value.shape
    node = value.node
    return (node.spec, node.nbytes) if node.storage is not None else Graph([node]).structure


@dataclass(frozen=True)
class _Slot:
    """The place of a tensor: its index in the list of tensors."""

    index: int


def _take_apart(value: Any, found: list[Any]) -> Any:
    """Return ``value`` with a slot in place of every tensor and array, and append these to ``found``."""
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
    """Return ``form`` with the ``values`` in place of its slots: the inverse of :func:`_take_apart`."""
    if isinstance(form, _Slot):
        return values[form.index]
    if isinstance(form, dict):
        return {key: _put_together(item, values) for key, item in form.items()}
    if isinstance(form, (tuple, list)):
        items = [_put_together(item, values) for item in form]
        return type(form)(*items) if hasattr(form, "_fields") else type(form)(items)
    return form


def _frozen(form: Any) -> Hashable:
    """Return ``form`` as a key. Constants that compare equal but trace differently (1, 1.0 and True; 0.0 and -0.0)
    get different keys, and NaN equals itself.
    """
    if isinstance(form, dict):
        return dict, tuple((_frozen(key), _frozen(item)) for key, item in form.items())
    if isinstance(form, (tuple, list)):
        return type(form), tuple(map(_frozen, form))
    if isinstance(form, (float, complex, np.generic)):
        return type(form), repr(form)
    return type(form), form


def _name(argument: int, leaf: int) -> str:
    return f"argument {argument}, leaf {leaf}"


def _without_numbers(value: Tensor | np.ndarray[Any, Any], number: int) -> Node:
    """Return the node of ``value`` over named leaves, which each run binds to storages or arrays."""
    if isinstance(value, np.ndarray):
        return argument(_name(number, 0), Spec(value.shape, as_dtype(value.dtype)), is_stored=False)
    graph = Graph([value.node])
    names = {id(leaf): _name(number, i) for i, leaf in enumerate(graph.leaves)}
    (root,) = rebuild(graph.outputs, lambda node: given(names[id(node)], node) if id(node) in names else None)
    return root
