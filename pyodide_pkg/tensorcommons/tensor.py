"""Tensor: an array on a device, computed when it is read.

A tensor is a node of a graph. Ops on tensors add nodes; nothing runs until ``await t.read()`` (or ``realize``), which
runs everything that the result needs as one program. A computed tensor is a leaf with a storage; reshape, permute,
slice and broadcast of it are layouts over the same bytes.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from . import dtypes
from .backends.base import Spec
from .backends.current import default_device, device_of
from .backends.device import Device
from .bridge.runtime import WouldWaitError, can_suspend, run_now, suspend
from .errors import (
    DeviceLost,
    DeviceMismatch,
    DeviceUnavailable,
    ReadRequired,
    ShapeMismatch,
    TensorCommonsError,
    UnsupportedDtype,
)
from .graph.bound import compile_graph
from .graph.constant import constant
from .graph.graph import Graph
from .graph.node import Node
from .graph.views import resolve_view
from .sharing.lock import using
from .sharing.provenance import Origin, content_identity
from .sharing.storage import Storage, made_inside
from .sharing.transfer import cross

if TYPE_CHECKING:
    from .dtypes import DType
    from .shapes import Layout, Shape

SMALL = 1024  # elements
SHOWN = 2**24  # bytes up to which repr() reads values
T = TypeVar("T")
TensorLike: TypeAlias = "Tensor | np.ndarray[Any, Any] | float | int | bool | Sequence[Any]"


class Tensor:
    """An n-dimensional array. ``shape`` is a tuple of ints, ``dtype`` one of :data:`tensorcommons.dtypes.ALL`.

    ``device`` is its Device. Operators, and indexing by ints, slices, ``None``, ``...`` and arrays of ints or bools,
    follow the Python array API standard; they and the functions of the package return new tensors, which are computed
    when they are read. ``bool(x)``, ``float(x)``, ``x.item()``, ``np.asarray(x)`` and others read without ``await``: on
    the CPU device always, elsewhere where the runtime can suspend Python (else ReadRequired). ``x[key] = value``
    changes ``x`` alone: tensors that were made from it, views too, keep their values.

    >>> x = tc.asarray([[1, 2], [3, 4]])
    >>> x.shape, x.ndim, x.size, x.nbytes, str(x.dtype)
    ((2, 2), 2, 4, 16, 'int32')
    >>> print((x * 2).mT.numpy())
    [[2 6]
     [4 8]]
    >>> y = await (x + 1).realize()
    >>> print(await y.read())
    [[2 3]
     [4 5]]
    >>> await y.to("cpu") is y
    True
    >>> y.release()
    """

    __array_ufunc__ = None  # numpy_array + tensor is a Tensor, and np.exp(tensor) a TypeError
    __array_priority__ = 1000.0

    def __init__(self, node: Node, device: Device | None) -> None:
        self._node = node
        self.own_device = device  # None: made of constants alone, so that any device can compute it

    @property
    def device(self) -> Device:
        """Device of the values; the default device if no other tensor decided it."""
        return self.own_device if self.own_device is not None else default_device()

    @classmethod
    def symbolic(cls, node: Node, device: Device | None) -> Tensor:
        """Create a tensor that ``node`` computes."""
        return cls(node, device)

    @classmethod
    def of_storage(cls, storage: Storage, spec: Spec) -> Tensor:
        """Create a tensor over the bytes of ``storage``, row-major."""
        return cls(Node(None, {}, (), spec, storage=storage), storage.device)

    @property
    def node(self) -> Node:
        """The graph node of this tensor."""
        return self._node

    @property
    def spec(self) -> Spec:
        """Shape and dtype together."""
        return self._node.spec

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return self._node.spec.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self._node.spec.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of a dense copy."""
        return self.spec.nbytes

    def __repr__(self) -> str:
        state = "" if resolve_view(self._node) else ", not computed yet"
        text = self._shown()
        end = f"{state}>" if text is None else f": {text}>"
        return f"<Tensor {self.dtype}{list(self.shape)} on {self.device.kind}{end}"

    def __str__(self) -> str:
        text = self._shown()
        return repr(self) if text is None else text

    def __format__(self, spec: str) -> str:
        """Format the value of a tensor without axes; others only without a format."""
        return format(self.item(), spec) if spec and not self.shape else format(str(self), spec)

    def _shown(self) -> str | None:
        """Return the values as NumPy prints them, or ``None`` if they cannot be had at once."""
        if not self.device.facts.is_host or self.nbytes > SHOWN:
            return None
        try:
            return str(run_now(self.read(), turns=True))
        except (WouldWaitError, TensorCommonsError):
            return None

    def __copy__(self) -> Tensor:
        """Return another tensor of the same value, over the same bytes."""
        return Tensor(self._node, self.own_device)

    def __deepcopy__(self, memo: object) -> Tensor:
        return self.__copy__()

    def __reduce_ex__(self, protocol: object) -> Any:
        return asarray, (self._read_now("pickling of a tensor"), self.dtype.name)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self._read_one("bool() of a tensor"))

    def __float__(self) -> float:
        return float(self._read_one("float() of a tensor"))

    def __int__(self) -> int:
        return int(self._read_one("int() of a tensor"))

    def __complex__(self) -> complex:
        return complex(self._read_one("complex() of a tensor"))

    def __index__(self) -> int:
        if self.dtype.kind not in ("int", "uint"):
            raise TypeError(f"a tensor of {self.dtype} is not an index: it must be an integer")
        return operator.index(self._read_one("a tensor as an index"))

    def __contains__(self, value: object) -> bool:
        return bool((self._read_now("a search in a tensor") == np.asarray(value)).any())

    def item(self, *index: int) -> Any:
        """Return the only element, or that at ``index``, as a Python number. Reads without ``await``.

        Raises:
            ReadRequired: the device cannot be waited for here.
            ShapeMismatch: there is not just one element.

        >>> tc.sum([1, 2]).item()
        3
        """
        if index:
            return self[index[0] if len(index) == 1 and isinstance(index[0], tuple) else index].item()
        return self._read_one("item() of a tensor")

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers. Reads without ``await``, as :meth:`item`.

        >>> tc.asarray([[1, 2]]).tolist()
        [[1, 2]]
        """
        return self._read_now("tolist() of a tensor").tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return the values for ``np.asarray(t)``; computes them if needed.

        Raises:
            ReadRequired: the device cannot be waited for here. The error is also a TypeError.
            ValueError: ``copy=False``; values are always copied.
        """
        if copy is False:
            raise ValueError("copy=False is not supported: the values of a tensor are always copied")
        return self._read_now("np.asarray() of a tensor").astype(dtype or self.dtype.numpy, copy=False)

    def _read_one(self, what: str) -> Any:
        """Read the only element as a Python number."""
        if self.size != 1:
            raise ShapeMismatch(f"{what} needs one element, not shape {self.shape}: use tc.any() or tc.all()")
        return self._read_now(what).item()

    def _read_now(self, what: str) -> np.ndarray[Any, Any]:
        """Read without ``await``. Raises ReadRequired, which names the attempt ``what``, if that is not possible."""
        is_host = self.device.facts.is_host
        if is_host:
            try:
                return run_now(self.read(), turns=True)
            except WouldWaitError:  # the device is busy
                pass
        if can_suspend():
            result: np.ndarray[Any, Any] = suspend(self.read())
            return result
        why = "while the device is busy" if is_host else f"for the {self.device.kind} device"
        raise ReadRequired(
            f"{what} cannot wait {why}: use `await t.read()`, or tc.stack() and tc.concat() to join tensors"
        )

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """Return the package, whose names are those of the Python array API standard.

        Raises:
            ValueError: ``api_version`` is not a version that the package follows.
        """
        package = sys.modules[__package__]
        if api_version not in (None, "2021.12", "2022.12", "2023.12", package.__array_api_version__):
            raise ValueError(f"the array API version {api_version!r} is not supported: 2021.12 to 2024.12 are")
        return package

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Export a copy of the values by DLPack, in host memory.

        Raises:
            BufferError: ``copy=False``; or the values are on another device.
        """
        if copy is False or not self.device.facts.is_host:
            raise BufferError("DLPack exports a copy of a tensor on the CPU device: use copy=None, and np.asarray(t)")
        if stream is not None:
            raise ValueError("the CPU device has no streams: stream must be None")
        return self._read_now("DLPack").__dlpack__(max_version=max_version, dl_device=dl_device)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's name for host memory."""
        if not self.device.facts.is_host:
            raise BufferError(f"DLPack has no name for the {self.device.kind} device: read the tensor")
        return 1, 0

    def to_device(self, device: Device | str, /, *, stream: Any = None) -> Tensor:
        """Return the tensor on ``device``: itself if it is there, else a copy; reads without ``await``. See :meth:`to`.

        Raises:
            ReadRequired: the device of the values cannot be waited for here.
            DeviceUnavailable: ``device`` does not exist, or cannot be opened.
            ValueError: ``stream`` is not None.

        >>> tc.asarray([1, 2]).to_device("cpu").device.kind
        'cpu'
        """
        if stream is not None:
            raise ValueError("devices have no streams here: stream must be None")
        place = device_of(device)
        if place is self.device:
            return self
        if self.own_device is None:
            return Tensor(self._node, place)
        return asarray(self._read_now("to_device()"), dtype=self.dtype, device=place)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("iteration over a tensor without axes")
        return (self[i] for i in range(self.shape[0]))

    if TYPE_CHECKING:  # ops/__init__.py sets these: ops import this module

        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __add__(self, other: TensorLike) -> Tensor: ...
        def __radd__(self, other: TensorLike) -> Tensor: ...
        def __sub__(self, other: TensorLike) -> Tensor: ...
        def __rsub__(self, other: TensorLike) -> Tensor: ...
        def __mul__(self, other: TensorLike) -> Tensor: ...
        def __rmul__(self, other: TensorLike) -> Tensor: ...
        def __truediv__(self, other: TensorLike) -> Tensor: ...
        def __rtruediv__(self, other: TensorLike) -> Tensor: ...
        def __floordiv__(self, other: TensorLike) -> Tensor: ...
        def __rfloordiv__(self, other: TensorLike) -> Tensor: ...
        def __mod__(self, other: TensorLike) -> Tensor: ...
        def __rmod__(self, other: TensorLike) -> Tensor: ...
        def __pow__(self, other: TensorLike) -> Tensor: ...
        def __rpow__(self, other: TensorLike) -> Tensor: ...
        def __matmul__(self, other: TensorLike) -> Tensor: ...
        def __rmatmul__(self, other: TensorLike) -> Tensor: ...
        def __and__(self, other: TensorLike) -> Tensor: ...
        def __rand__(self, other: TensorLike) -> Tensor: ...
        def __or__(self, other: TensorLike) -> Tensor: ...
        def __ror__(self, other: TensorLike) -> Tensor: ...
        def __xor__(self, other: TensorLike) -> Tensor: ...
        def __rxor__(self, other: TensorLike) -> Tensor: ...
        def __lshift__(self, other: TensorLike) -> Tensor: ...
        def __rlshift__(self, other: TensorLike) -> Tensor: ...
        def __rshift__(self, other: TensorLike) -> Tensor: ...
        def __rrshift__(self, other: TensorLike) -> Tensor: ...
        def __lt__(self, other: TensorLike) -> Tensor: ...
        def __le__(self, other: TensorLike) -> Tensor: ...
        def __gt__(self, other: TensorLike) -> Tensor: ...
        def __ge__(self, other: TensorLike) -> Tensor: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __hash__(self) -> int: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: TensorLike) -> None: ...
        @property
        def T(self) -> Tensor:  # noqa: N802 - the array API's name
            """The axes of a matrix exchanged; a view."""

        @property
        def mT(self) -> Tensor:  # noqa: N802 - the array API's name
            """The last two axes exchanged; a view."""

    def replace(self, changed: Tensor) -> None:
        """Take the value of ``changed``, as ``x[key] = value`` does."""
        self._node, self.own_device = changed.node, changed.own_device

    def release(self) -> None:
        """Free the tensor's bytes now, rather than when nothing refers to it. Safe to call twice.

        Bytes that a manager keeps (a model's weights, a shared tensor, an activation for later runs) stay.
        """
        leaf = resolve_view(self._node)
        if leaf and leaf[0].storage is not None and not leaf[0].storage.is_kept:
            leaf[0].storage.release()

    async def realize(self) -> Tensor:
        """Compute the tensor on its device without reading it, and return the tensor.

        Raises the errors of :meth:`read`.
        """
        await realize([self])
        return self

    async def read(self) -> np.ndarray[Any, Any]:
        """Compute the tensor if needed, and return its values as a NumPy array of the same shape and dtype.

        Raises:
            TensorReleased: the bytes were released.
            MemoryBudgetError: computing it does not fit.
            DeviceError: the device rejected an operation.
            DeviceLost: the device was lost, and the values cannot be restored.
        """
        return (await read_together([self]))[0]

    async def to(self, device: Device | str) -> Tensor:
        """Return the tensor on ``device`` (a Device or a kind): itself if it is there already, else an exact copy.

        The copy goes through host memory, unless the devices can lend each other their bytes.

        Raises:
            MemoryBudgetError: the copy does not fit.
            DeviceUnavailable: there is no such device, or it was lost and cannot be opened again.
        """
        device = device_of(device)
        if device is self.device:
            return self
        if self.own_device is None:
            return Tensor(self._node, device)
        if self.device.lends_to(device) or device.lends_to(self.device):
            await self.realize()
            storage, layout = _bytes_of(self)
            if layout.is_contiguous and layout.size * self.dtype.itemsize == storage.nbytes:
                copy, _ = await cross(storage, device, "activations", Spec(self.shape, self.dtype), storage.identity)
                return Tensor.of_storage(copy, Spec(self.shape, self.dtype))
        values = await self.read()
        await device.recover()
        device.count_crossing("host", values.nbytes)
        await device.budget.ensure([], values.nbytes)
        return asarray(values, dtype=self.dtype, device=device)

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the values without ``await``: on the CPU device, and where Pyodide can suspend the running Python.

        Raises:
            TensorCommonsError: Python cannot be suspended here; use ``await t.read()``. Otherwise as :meth:`read`.

        >>> tc.asarray([1.5, 2.5]).numpy().tolist()
        [1.5, 2.5]
        """
        if not self.device.facts.is_host and not can_suspend():
            raise TensorCommonsError(
                "this Python cannot be suspended here, so .numpy() cannot wait for the device: "
                "use `await tensor.read()`"
            )
        return self._read_now(".numpy()")


def as_tensor(value: TensorLike, like: Iterable[object] = ()) -> Tensor:
    """Convert ``value`` to a tensor on the device of the first tensor in ``like``; a number takes that tensor's dtype.

    The default device is used if none of them is on a device.

    Raises:
        UnsupportedDtype: that dtype cannot represent the number.
    """
    if isinstance(value, Tensor):
        return value
    peers = [other for other in like if isinstance(other, Tensor)]
    number = value.item() if isinstance(value, np.generic) else value
    if peers and isinstance(number, (int, float)):
        return Tensor(constant(number, peers[0].dtype), peers[0].own_device)
    device = next((peer.own_device for peer in peers if peer.own_device is not None), None)
    return asarray(value, device=device)


def asarray(obj: TensorLike, dtype: object = None, device: Device | str | None = None) -> Tensor:
    """Convert ``obj`` (array, list, number, Tensor) to a tensor on ``device``, of its own dtype or ``dtype``.

    ``device`` is a Device or a kind ("cpu", "webgpu", "webnn": that of the last ``open_devices()``); the default is
    that of :func:`set_default_device`, or the CPU device. float64 becomes float32, and Python ints become int32; only
    the CPU device has float64, for ``dtype="float64"``. A tensor is cast with ``tc.astype`` and moved with ``t.to``
    before; :func:`tensorcommons.asarray` does both.
    """
    place = None if device is None else device_of(device)
    if isinstance(obj, Tensor):
        if dtype is None or dtypes.as_dtype(dtype) is obj.dtype:
            return obj if place is None else obj.to_device(place)
        raise TensorCommonsError("a tensor is cast by tc.astype(t, dtype)")
    place = place or default_device()
    array = dtypes.host_array(obj)
    kind = dtypes.default_dtype(obj, array) if dtype is None else dtypes.as_dtype(dtype)
    if kind is dtypes.float64 and not place.facts.is_host:
        raise UnsupportedDtype(f"the {place.kind} device has no float64: use float32")
    dense = np.ascontiguousarray(dtypes.converted(array, kind.numpy)).reshape(array.shape)
    data = memoryview(dense.reshape(-1).view(np.uint8))
    identity = origin = None
    if dense.size <= SMALL:  # an identity by content pays, and a copy of the bytes is cheap
        identity, origin = content_identity(data, dense.shape, kind), Origin.of_bytes(bytes(data))
    spec = Spec(dense.shape, kind)
    return Tensor.of_storage(Storage.upload(place, data, "activations", identity, origin, spec), spec)


async def realize(tensors: Sequence[Tensor]) -> None:
    """Compute several tensors as one program; their common subexpressions are computed once.

    Each result has the bits that it has when it is computed alone.
    """
    pending = [tensor for tensor in tensors if resolve_view(tensor.node) is None]
    if not pending:
        return
    devices = dict.fromkeys(tensor.own_device for tensor in pending if tensor.own_device is not None)
    if len(devices) > 1:
        raise DeviceMismatch("realize", devices)
    device = next(iter(devices), None) or default_device()  # tensors of constants alone have no device: any will do
    outputs = await (await compile_graph(device, *[[tensor.node] for tensor in pending])).run()
    for tensor, (storage, spec) in zip(pending, outputs, strict=True):
        tensor._node, tensor.own_device = Node(None, {}, (), spec, storage=storage), device


async def read_together(tensors: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Return the values of several tensors, computed as one program and read by one copy from each device.

    Raises:
        TensorReleased: the bytes of a tensor were released.
        TensorCommonsError: a value is not a tensor.

    >>> total, largest = await tc.read_together([tc.sum([1, 2]), tc.max([1, 2])])
    >>> int(total), int(largest)
    (3, 2)
    """
    for value in tensors:
        if not isinstance(value, Tensor):
            raise TensorCommonsError(f"read_together() takes tensors, not {type(value).__name__}")
    if None in [tensor.node.storage for tensor in tensors]:
        await realize(tensors)
    found = [(tensor, *_bytes_of(tensor)) for tensor in tensors]
    raw: dict[int, tuple[memoryview, bool]] = {}  # the bytes, and whether this call owns them
    for device in {storage.device: None for _, storage, _ in found}:
        ours = [(i, entry) for i, entry in enumerate(found) if entry[1].device is device]
        storages = [storage for _, (_, storage, _) in ours]
        ranges = [_range_of(tensor, layout) for _, (tensor, _, layout) in ours]
        try:
            async with using(storages):
                await device.budget.ensure(storages, 0)
                whole = [(storage.handle, *each) for storage, each in zip(storages, ranges, strict=True)]
                pieces, own = await device.read_together(whole), len(whole) == 1
        except (DeviceLost, DeviceUnavailable):  # restore from a copy, from the origin, or by computing again
            contents = [await storage.content() for storage in storages]
            pieces = [data[start : start + size] for data, (start, size) in zip(contents, ranges, strict=True)]
            own = False
        raw.update({i: (piece, own) for (i, _), piece in zip(ours, pieces, strict=True)})
    return [_array_of(tensor, layout, *raw[i]) for i, (tensor, _, layout) in enumerate(found)]


def _bytes_of(tensor: Tensor) -> tuple[Storage, Layout]:
    """Return the storage of a computed tensor, and its layout there."""
    found = resolve_view(tensor.node)
    assert found is not None and found[0].storage is not None
    return found[0].storage, found[1]


def _range_of(tensor: Tensor, layout: Layout) -> tuple[int, int]:
    """Return the offset and the number of bytes from a tensor's first element to its last."""
    low, high = layout.extent
    if low == high:  # an empty view may begin past the end of its storage
        return 0, 0
    return low * tensor.dtype.itemsize, (high - low) * tensor.dtype.itemsize


def _array_of(tensor: Tensor, layout: Layout, raw: memoryview, own: bool) -> np.ndarray[Any, Any]:
    low, high = layout.extent
    if low == high:
        return np.zeros(tensor.shape, tensor.dtype.numpy)
    flat = np.frombuffer(raw, tensor.dtype.numpy)
    if layout.is_contiguous:
        dense = flat.reshape(tensor.shape)
        return dense if own and dense.flags.writeable else dense.copy()
    strides = [stride * tensor.dtype.itemsize for stride in layout.strides]
    return np.array(np.lib.stride_tricks.as_strided(flat[layout.offset - low :], layout.shape, strides))


@contextmanager
def scope() -> Iterator[Callable[[T], T]]:
    """Free the bytes of every tensor made inside the block, at its end.

    Pass results through the function that the block gets to keep them: ``with scope() as keep: y = keep(exp(x))``. The
    function takes a tensor, or a tuple, list or dict of tensors. Bytes that a manager holds (weights, shared tensors)
    always stay. Without a scope, the bytes of a tensor are freed when nothing refers to it.

    >>> with tc.scope() as keep:
    ...     doubled = tc.asarray([1, 2]) * 2
    ...     total = keep(await tc.sum(doubled).realize())
    >>> int(total)
    6
    """
    kept: list[Tensor] = []

    def keep(value: T) -> T:
        items = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else (value,)
        for item in items:
            if not isinstance(item, Tensor):
                raise TensorCommonsError(f"keep() takes tensors, not {type(item).__name__}")
            kept.append(item)
        return value

    with made_inside() as made:
        try:
            yield keep
        finally:
            needed = {id(leaf.storage) for tensor in kept for leaf in Graph([tensor.node]).leaves}
            for reference in made:
                storage = reference()
                if storage is not None and not storage.is_kept and id(storage) not in needed:
                    storage.release()
