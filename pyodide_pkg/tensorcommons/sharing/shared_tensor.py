"""A tensor by name, for several models: who may have it, who holds it, and views that show a part of it.

A SharedTensor is a name over an entry of the registry. Two names with the same content share one entry, until one of
them is written: then that one gets bytes of its own.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from weakref import ref

import numpy as np

from ..backends.base import Spec
from ..dtypes import DType
from ..errors import (
    ManagerClosed,
    NotAConsumer,
    ShapeMismatch,
    TensorReleased,
    UnsupportedDtype,
    ViewOutOfBounds,
    quoted,
)
from ..shapes import Layout, Shape
from ..tensor import Tensor
from .provenance import content_identity
from .registry import REGISTERED, Entry
from .storage import Storage


def as_bytes(data: Any, spec: Spec) -> memoryview:
    """``data`` (array, list, number or raw bytes) as the dense bytes of ``spec``.

    Raises ShapeMismatch for another size, UnsupportedDtype where the values would change in kind.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        raw = memoryview(data)
        raw = raw.cast("B") if raw.c_contiguous else memoryview(raw.tobytes())
        if raw.nbytes != spec.nbytes:
            raise ShapeMismatch(
                f"{raw.nbytes:,} bytes do not make {spec.shape} of {spec.dtype} ({spec.nbytes:,} bytes)"
            )
        return raw
    array = np.asarray(data)
    if array.shape != spec.shape:
        raise ShapeMismatch(f"data of shape {array.shape} does not fit a tensor of shape {spec.shape}")
    if array.dtype != spec.dtype.numpy and not (
        np.can_cast(array.dtype, spec.dtype.numpy, "same_kind") or isinstance(data, (int, float, list, tuple))
    ):
        raise UnsupportedDtype(f"data of {array.dtype} would change as {spec.dtype}; cast it, or register that dtype")
    with np.errstate(all="ignore"):  # float16 has its infinities
        dense = np.ascontiguousarray(array, spec.dtype.numpy).reshape(array.shape)
        if dense.dtype.kind in "iub" and dense.dtype != array.dtype and not np.array_equal(dense, array):
            raise UnsupportedDtype(f"data has values that {spec.dtype} cannot hold: {array.min()} to {array.max()}")
    return memoryview(dense.reshape(-1).view(np.uint8))


class Owner(Protocol):
    """The manager that a tensor is registered with, as it needs it; ``tensors.SharedTensors`` documents it."""

    def pin(self, tensor: SharedTensor) -> None:
        """See :meth:`SharedTensor.pin`."""
        ...

    def add_view(
        self,
        parent: SharedTensor,
        name: str,
        shown: Layout,
        offset: Sequence[int],
        size: Sequence[int],
        model: str | None,
        base: Shape | None = None,
    ) -> SharedTensorView:
        """See :meth:`SharedTensor.create_view`."""
        ...

    async def copy_tensor(self, tensor: SharedTensor, storage_type: str, name: str | None) -> SharedTensor:
        """See :meth:`SharedTensor.copy_to`."""
        ...

    async def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """Read the values."""
        ...

    async def overwrite(
        self, tensor: SharedTensor, pieces: Sequence[tuple[int, memoryview]], content: str | None
    ) -> None:
        """Write ``pieces`` (byte offset, bytes) into ``tensor``."""
        ...

    def changed(self) -> None:
        """Tell the subscribers."""
        ...


class SharedTensor:
    """A registered tensor. Get one from ``register_shared_tensor`` or ``get_shared_tensor`` of the manager.

    ``producer_model`` made it, ``consumer_models`` may acquire it; ``storage_type`` is the kind of its device.
    """

    def __init__(self, manager: Owner, name: str, entry: Entry, producer: str | None, consumers: Sequence[str]) -> None:
        self._manager = ref(manager)  # which refers to its tensors: it is gone when its users let go of it
        self.name = name
        self.entry = entry
        self.producer_model = producer
        self.consumer_models: set[str] = set()
        self.awaited: set[str] = set()  # granted, and had no turn yet
        self.registrations = 1
        self.copied: tuple[SharedTensor, str] | None = None  # the tensor that it is a copy of, and the content then
        self.views: dict[str, SharedTensorView] = {}
        self.is_freed = False
        self.writing = asyncio.Lock()  # one write at a time: views of one tensor may meet in one word
        entry.register(name)
        self.grant(consumers)

    def __repr__(self) -> str:
        state = "freed" if self.is_freed else self.entry.storage.condition
        return f"<SharedTensor {self.name!r} {self.dtype}{list(self.shape)} on {self.storage_type}, {state}>"

    @property
    def manager(self) -> Owner:
        """The manager that it is registered with. Raises ManagerClosed where that is gone."""
        manager = self._manager()
        if manager is None:
            raise ManagerClosed(
                f"the manager of {quoted(self.name)} is gone: keep a reference to it for as long as you use it"
            )
        return manager

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return self.entry.spec.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.entry.spec.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.entry.spec.nbytes

    @property
    def storage_type(self) -> str:
        """The kind of device that it is on: "cpu", "webgpu" or "webnn"."""
        return self.entry.storage.device.kind

    @property
    def identity(self) -> str:
        """Identity of the bytes: their SHA-256 with dtype and shape, or a unique name after a partial write."""
        return self.entry.storage.identity

    @property
    def holders(self) -> list[str]:
        """The models that hold the tensor itself; see :attr:`views` for those that hold a part."""
        return [] if self.is_freed else [model for model, names in self.entry.names.items() if self.key in names]

    @property
    def key(self) -> str:
        """The registry's key of its holds."""
        return REGISTERED + self.name

    @property
    def reference_count(self) -> int:
        """Number of holds: of the tensor, and of its views."""
        return len(self.holders) + sum(len(view.holders) for view in self.views.values())

    @property
    def is_pinned(self) -> bool:
        """True if :meth:`pin` keeps it on its device and from being freed."""
        return self.name in self.entry.pins

    @property
    def tensor(self) -> Tensor:
        """The tensor for use in ops; it shows the shared bytes, never a copy. Raises TensorReleased once freed."""
        self.check()
        return Tensor.of_storage(self.entry.storage, self.entry.spec)

    def check(self) -> None:
        """Raises TensorReleased if the tensor was freed."""
        if self.is_freed:
            raise TensorReleased(f"shared tensor {quoted(self.name)} was freed; register it again")

    def may_acquire(self, model: str) -> bool:
        """Return whether ``model`` made the tensor or was granted it."""
        return model == self.producer_model or model in self.consumer_models

    def tell(self) -> None:
        """Tell the manager's subscribers of a change, where there is a manager."""
        manager = self._manager()
        if manager is not None:
            manager.changed()

    def grant(self, models: Iterable[str]) -> None:
        """Let ``models`` acquire the tensor. It is not freed before those that are new have had their turn."""
        self.awaited |= set(models) - self.consumer_models
        self.consumer_models.update(models)

    def hold(self, model: str) -> bool:
        """Have ``model``, which may, hold the tensor. False if it did so already."""
        self.awaited.discard(model)
        return self.entry.hold(model, self.key)

    def acquire(self, model: str) -> bool:
        """Have ``model`` hold the tensor. False if it did so already. Raises NotAConsumer if it was not granted."""
        self.check()
        if not self.may_acquire(model):
            raise NotAConsumer(
                f"model {quoted(model)} was not granted tensor {quoted(self.name)}; "
                "grant it with share_tensor_between_models()"
            )
        self.entry.storage.touch()
        new = self.hold(model)
        if new:
            self.tell()
        return new

    def release(self, model: str) -> bool:
        """End the hold of ``model``. False if it held nothing; no count ever goes below what is held."""
        ended = not self.is_freed and self.entry.let_go(model, self.key)
        if ended:
            self.tell()
        return ended

    def forget(self, model: str) -> None:
        """``model`` is done with the tensor and its views, whether it ever came for them or not."""
        self.awaited.discard(model)
        for view in self.views.values():
            view.awaited.discard(model)

    def pin(self) -> None:
        """Keep the tensor on its device and from being freed, until :meth:`unpin`.

        The bytes are there when this returns, if they are there now, or if they are in host memory and there is room
        or what makes room need not be waited for. Otherwise the next use brings them back. From then on they stay.

        Raises MemoryBudgetError if all that is pinned could not be on the devices together; nothing changed then.
        """
        self.manager.pin(self)

    def unpin(self) -> None:
        """Undo :meth:`pin`. Does nothing if it is not pinned."""
        self.entry.unpin(self.name)
        self.tell()

    def can_be_freed(self) -> bool:
        """Return whether nobody holds it or a view of it, nothing pins it, and every listed consumer had its turn.

        A consumer had its turn when it acquired and released it, or ended by ``release_model_tensors``.
        """
        awaited = self.awaited or any(view.awaited for view in self.views.values())
        return not (self.reference_count or self.is_pinned or awaited)

    def create_view(
        self, name: str, offset: Sequence[int], size: Sequence[int], model: str | None = None
    ) -> SharedTensorView:
        """A part of the tensor, from ``offset`` on and ``size`` long in each dimension; no bytes of its own.

        ``model`` is granted the view and holds it.

        Raises:
            ViewOutOfBounds: it reaches past the tensor, is empty, or has another number of dimensions.
        """
        return self.manager.add_view(self, name, Layout.contiguous(self.shape), offset, size, model)

    async def copy_to(self, storage_type: str, name: str | None = None) -> SharedTensor:
        """The same content on another device, registered as ``name``, with producer and grants.

        The name is ``<name>_<storage_type>`` unless another is given. Copying to that name again brings the copy up to
        date: it gets what this tensor has now, for everybody who holds it.

        Raises:
            DeviceUnavailable, UnsupportedDtype: the device cannot hold it; nothing moved.
            TensorCommonsError: the name is taken by something else, or the copy was written itself since it was made.
        """
        return await self.manager.copy_tensor(self, storage_type, name)

    async def read(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array."""
        manager = self._manager()
        return await (manager.read(self.tensor) if manager is not None else self.tensor.read())

    async def write(self, data: Any) -> None:
        """Replace all values; ``data`` as in ``register_shared_tensor``. Other names with the old content keep it.

        Raises ShapeMismatch or UnsupportedDtype; nothing changed then.
        """
        raw = memoryview(bytes(as_bytes(data, self.entry.spec)))
        await self.manager.overwrite(self, [(0, raw)], content_identity(raw, self.shape, self.dtype))

    def get_memory_usage(self) -> int:
        """Device bytes of the tensor, shared or not."""
        return self.nbytes


class SharedTensorView:
    """A part of a SharedTensor: the parent's own bytes through another layout."""

    def __init__(self, parent: SharedTensor, name: str, layout: Layout, offset: Shape) -> None:
        self.parent = parent
        self.name = name
        self.layout = layout
        self.offset = offset
        self.consumer_models: set[str] = set()
        self.awaited: set[str] = set()  # granted, and had no turn yet

    def __repr__(self) -> str:
        return f"<SharedTensorView {self.name!r} {list(self.shape)} of {self.parent.name!r}>"

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return self.layout.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.parent.dtype

    @property
    def holders(self) -> list[str]:
        """The models that hold the view."""
        if self.parent.is_freed:
            return []
        return [model for model, names in self.parent.entry.names.items() if self.key in names]

    @property
    def key(self) -> str:
        """The registry's key of its holds."""
        return REGISTERED + self.name

    @property
    def reference_count(self) -> int:
        """Number of models that hold the view."""
        return len(self.holders)

    @property
    def tensor(self) -> Tensor:
        """The view for use in ops: slices of the parent's tensor, without a copy."""
        whole = self.parent.tensor
        return whole[tuple(slice(start, start + size) for start, size in zip(self.offset, self.shape, strict=True))]

    def grant(self, models: Iterable[str]) -> None:
        """Let ``models`` acquire the view. Its parent is not freed before those that are new have had their turn."""
        self.awaited |= set(models) - self.consumer_models
        self.consumer_models.update(models)

    def hold(self, model: str) -> bool:
        """Have ``model``, which may, hold the view. False if it did so already."""
        self.awaited.discard(model)
        self.parent.awaited.discard(model)  # who was granted the whole and takes a part has had its turn
        return self.parent.entry.hold(model, self.key)

    def acquire(self, model: str) -> bool:
        """Have ``model`` hold the view, which keeps the parent alive. False if it did so already.

        Raises NotAConsumer if it was granted neither the view nor its parent.
        """
        self.parent.check()
        if model not in self.consumer_models and not self.parent.may_acquire(model):
            raise NotAConsumer(
                f"model {quoted(model)} was not granted view {quoted(self.name)}; "
                "grant it with share_tensor_between_models()"
            )
        self.parent.entry.storage.touch()
        new = self.hold(model)
        if new:
            self.parent.tell()
        return new

    def release(self, model: str) -> bool:
        """End the hold of ``model``. False if it held nothing."""
        ended = not self.parent.is_freed and self.parent.entry.let_go(model, self.key)
        if ended:
            self.parent.tell()
        return ended

    def create_view(
        self, name: str, offset: Sequence[int], size: Sequence[int], model: str | None = None
    ) -> SharedTensorView:
        """A part of this part; see :meth:`SharedTensor.create_view`."""
        return self.parent.manager.add_view(self.parent, name, self.layout, offset, size, model, self.offset)

    async def read(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array."""
        manager = self.parent._manager()
        return await (manager.read(self.tensor) if manager is not None else self.tensor.read())

    async def write(self, data: Any) -> None:
        """Replace the values that the view shows, in the parent's bytes. Other names with the old content keep it."""
        raw = memoryview(bytes(as_bytes(data, Spec(self.shape, self.dtype))))
        await self.parent.manager.overwrite(self.parent, runs(self.layout, self.dtype.itemsize, raw), None)

    def get_memory_usage(self) -> int:
        """0: the bytes are the parent's."""
        return 0


def runs(layout: Layout, itemsize: int, data: memoryview) -> list[tuple[int, memoryview]]:
    """Dense ``data`` cut into the contiguous runs that ``layout`` has in its storage: (byte offset, bytes)."""
    if layout.size == 0:
        return []
    inner = len(layout.shape)
    length = 1
    while inner and (layout.strides[inner - 1] == length or layout.shape[inner - 1] == 1):
        length *= layout.shape[inner - 1]
        inner -= 1
    pieces = []
    for number, index in enumerate(np.ndindex(*layout.shape[:inner])):
        start = layout.offset + sum(i * stride for i, stride in zip(index, layout.strides, strict=False))
        pieces.append((start * itemsize, data[number * length * itemsize : (number + 1) * length * itemsize]))
    return pieces


def view_layout(shown: Layout, offset: Sequence[int], size: Sequence[int], name: str) -> Layout:
    """The layout of a part of ``shown``. Raises ViewOutOfBounds with the numbers."""
    try:
        offset, size = [operator.index(start) for start in offset], [operator.index(length) for length in size]
    except TypeError:
        raise ViewOutOfBounds(f"view {quoted(name)}: offset and size are whole numbers, one a dimension") from None
    if len(offset) != len(shown.shape) or len(size) != len(shown.shape):
        raise ViewOutOfBounds(
            f"view {quoted(name)}: offset {tuple(offset)} and size {tuple(size)} do not match {shown.shape}"
        )
    for start, length, whole in zip(offset, size, shown.shape, strict=True):
        if start < 0 or length < 1 or start + length > whole:
            raise ViewOutOfBounds(
                f"view {quoted(name)}: {tuple(offset)} + {tuple(size)} reaches past {shown.shape}, or is empty"
            )
    for axis, (start, length) in enumerate(zip(offset, size, strict=True)):
        shown = shown.slice(axis, start, start + length)
    return shown


def storage_of(tensor: Tensor) -> Storage | None:
    """The storage of a tensor that is there already, dense and whole; else ``None``."""
    node = tensor.node
    return node.storage if node.op is None else None
