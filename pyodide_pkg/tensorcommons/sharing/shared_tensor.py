"""Tensors that several models share by name, and views that show a part of one.

A SharedTensor is a name over an entry of the registry. Two names with the same content share one entry, until one of
them is written: then that one gets bytes of its own.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import ref

import numpy as np

from ..backends.base import Spec
from ..dtypes import DType
from ..errors import (
    ManagerClosed,
    TensorReleased,
    quoted,
)
from ..shapes import Layout, Shape
from ..tensor import Tensor
from .grants import Granted
from .provenance import content_identity
from .registry import Entry
from .storage import Storage
from .values import as_bytes, runs


class Owner(Protocol):
    """The manager that a tensor is registered with, as it needs it; ``tensors.SharedTensors`` documents it."""

    def pin(self, tensor: SharedTensor) -> None:
        """See :meth:`SharedTensor.pin`."""

    def add_view(
        self, shown: Shown, name: str, offset: Sequence[int], size: Sequence[int], model: str | None
    ) -> SharedTensorView:
        """See :meth:`SharedTensor.create_view`."""

    def check_open(self) -> None:
        """Raise ManagerClosed after it was closed."""

    async def copy_tensor(self, tensor: SharedTensor, storage_type: str, name: str | None) -> SharedTensor:
        """See :meth:`SharedTensor.copy_to`."""

    async def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """Read the values."""

    async def overwrite(
        self, tensor: SharedTensor, pieces: Sequence[tuple[int, memoryview]], content: str | None
    ) -> None:
        """Write ``pieces`` (byte offset, bytes) into ``tensor``."""

    def changed(self) -> None:
        """Report a change to the subscribers."""


class Shown(Granted):
    """A tensor, or a part of one: what ``layout`` shows of its bytes, from ``offset`` on."""

    layout: Layout
    offset: Shape

    @property
    @abstractmethod
    def whole(self) -> SharedTensor:
        """The tensor that it is, or is a part of."""

    @property
    @abstractmethod
    def tensor(self) -> Tensor:
        """The values for use in ops, without a copy. Raises TensorReleased once they are freed."""

    @property
    def shape(self) -> Shape:
        """Sizes of the axes."""
        return self.layout.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.whole.entry.spec.dtype

    def create_view(
        self, name: str, offset: Sequence[int], size: Sequence[int], model: str | None = None
    ) -> SharedTensorView:
        """Create a view: ``size`` elements from ``offset`` on in each dimension, without bytes of its own.

        ``model`` is granted the view and holds it.

        Raises:
            ViewOutOfBounds: it reaches past what is shown, is empty, or has another number of dimensions.
        """
        return self.whole.manager.add_view(self, name, offset, size, model)

    async def read(self) -> np.ndarray[Any, Any]:
        """Read the values as a NumPy array."""
        manager = self.whole._manager()
        return await (manager.read(self.tensor) if manager is not None else self.tensor.read())


class SharedTensor(Shown):
    """A registered tensor, from ``register_shared_tensor`` or ``get_shared_tensor`` of the manager.

    ``producer_model`` made it, ``consumer_models`` may acquire it; ``storage_type`` is the kind of its device.

    >>> manager = tc.TensorSharingManager(max_memory_mb=16)
    >>> table = manager.register_shared_tensor("table", (2, 2), producer_model="encoder", data=[[1, 2], [3, 4]])
    >>> table.shape, str(table.dtype), table.nbytes, table.storage_type
    ((2, 2), 'float32', 16, 'cpu')
    >>> table.grant(["reader"])
    >>> table.acquire("reader")
    True
    >>> table.holders, table.reference_count
    (['encoder', 'reader'], 2)
    >>> await table.write([[5, 6], [7, 8]])
    >>> print(await table.read())
    [[5. 6.]
     [7. 8.]]
    >>> print((table.tensor * 2).numpy())
    [[10. 12.]
     [14. 16.]]
    >>> row = table.create_view("row", offset=(1, 0), size=(1, 2))
    >>> print(await row.read(), row.get_memory_usage(), table.get_memory_usage())
    [[7. 8.]] 0 16
    >>> copy = await table.copy_to("cpu", name="copy")
    >>> copy.identity == table.identity
    True
    >>> table.pin()
    >>> table.is_pinned
    True
    >>> table.unpin()
    >>> [table.release(model) for model in ("encoder", "reader")]
    [True, True]
    >>> table.can_be_freed()
    True
    >>> manager.close()
    """

    def __init__(self, manager: Owner, name: str, entry: Entry) -> None:
        self._manager = ref(manager)  # weak: the manager refers to its tensors
        super().__init__(name)
        self.entry = entry
        self.layout, self.offset = Layout.contiguous(entry.spec.shape), (0,) * len(entry.spec.shape)
        self.producer_model: str | None = None
        self.views: dict[str, SharedTensorView] = {}
        self.is_freed = False
        self.writing = asyncio.Lock()  # one write at a time: views of one tensor may meet in one word
        entry.register(name)

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
    def whole(self) -> SharedTensor:
        """The tensor itself."""
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.entry.spec.nbytes

    @property
    def storage_type(self) -> str:
        """Kind of its device: "cpu", "webgpu" or "webnn"."""
        return self.entry.storage.device.kind

    @property
    def identity(self) -> str:
        """Identity of the bytes: their SHA-256 with dtype and shape, or a unique name after a partial write."""
        return self.entry.storage.identity

    @property
    def reference_count(self) -> int:
        """Number of holds: of the tensor, and of its views."""
        return len(self.holders) + sum(len(view.holders) for view in self.views.values())

    @property
    def is_pinned(self) -> bool:
        """True between :meth:`pin` and :meth:`unpin`."""
        return self.name in self.entry.pins

    @property
    def tensor(self) -> Tensor:
        """The tensor for use in ops; it shows the shared bytes, never a copy. Raises TensorReleased once freed."""
        self.check()
        return Tensor.of_storage(self.entry.storage, self.entry.spec)

    def check(self) -> None:
        """Raise TensorReleased if the tensor was freed."""
        if self.is_freed:
            raise TensorReleased(f"shared tensor {quoted(self.name)} was freed; register it again")

    def free(self) -> None:
        """End the tensor: its name no longer keeps the bytes."""
        self.is_freed = True
        self.entry.unregister(self.name)

    def produced_by(self, model: str) -> None:
        """Have ``model``, which made the tensor if no other one did before, hold it."""
        self.producer_model = self.producer_model or model
        self.consumer_models.add(model)
        self.hold(model)

    @property
    def _keys(self) -> set[str]:
        """The registry's keys of its holds and of those of its views."""
        return {self.key, *(view.key for view in self.views.values())}

    @property
    def is_alone(self) -> bool:
        """True if no other name, model or tensor has its bytes."""
        entry = self.entry
        held = any(names - self._keys for names in entry.names.values())
        return not (held or entry.registered - {self.name} or entry.given)

    def take(self, fresh: Entry) -> Entry:
        """Have ``fresh`` as entry, for all holders and pins. Return the entry before."""
        entry, self.entry = self.entry, fresh
        fresh.register(self.name)
        for model, names in list(entry.names.items()):
            for key in self._keys & names:
                entry.release(model, key)
                fresh.hold(model, key)
        entry.unregister(self.name)
        if self.name in entry.pins:
            entry.unpin(self.name)
            fresh.pin(self.name)
        return entry

    def notify(self) -> None:
        """Report a change to the manager's subscribers, where there is a manager."""
        manager = self._manager()
        if manager is not None:
            manager.changed()

    def forget(self, model: str) -> None:
        """End the turns of ``model``: it is not awaited for the tensor or its views."""
        self.awaited.discard(model)
        for view in self.views.values():
            view.awaited.discard(model)

    def pin(self) -> None:
        """Keep the tensor on its device until :meth:`unpin`; it is neither evicted nor freed.

        The bytes are there when this returns, if they are there now, or if they are in host memory and there is room
        or what makes room need not be waited for. Otherwise the next use brings them back. From then on they stay.

        Raises MemoryBudgetError if all that is pinned could not be on the devices together; nothing changed then.
        """
        self.manager.pin(self)

    def unpin(self) -> None:
        """Undo :meth:`pin`. Does nothing if it is not pinned."""
        self.entry.unpin(self.name)
        self.notify()

    def can_be_freed(self) -> bool:
        """Return True if it has no holder, no held view and no pin, and no consumer is still to come.

        A consumer is done when it has acquired and released the tensor, or was ended by ``release_model_tensors``.
        """
        awaited = self.awaited or any(view.awaited for view in self.views.values())
        return not (self.reference_count or self.is_pinned or awaited)

    async def copy_to(self, storage_type: str, name: str | None = None) -> SharedTensor:
        """Register the same content on another device as ``name``, with producer and grants.

        The default name is ``<name>_<storage_type>``. Copying to that name again updates the copy for all of its
        holders.

        Raises:
            DeviceUnavailable, UnsupportedDtype: the device cannot hold it; nothing moved.
            TensorCommonsError: the name is taken by something else, or the copy was written itself since it was made.
        """
        return await self.manager.copy_tensor(self, storage_type, name)

    async def write(self, data: Any) -> None:
        """Replace all values; ``data`` as in ``register_shared_tensor``. Other names with the old content keep it.

        Raises ShapeMismatch or UnsupportedDtype; nothing changed then.
        """
        raw = memoryview(bytes(as_bytes(data, self.entry.spec)))
        await self.manager.overwrite(self, [(0, raw)], content_identity(raw, self.shape, self.dtype))

    def get_memory_usage(self) -> int:
        """Return the device bytes of the tensor, shared or not."""
        return self.nbytes


class SharedTensorView(Shown):
    """A part of a SharedTensor: the parent's own bytes through another layout.

    >>> manager = tc.TensorSharingManager(max_memory_mb=16)
    >>> table = manager.register_shared_tensor("table", (2, 2), data=[[1, 2], [3, 4]])
    >>> column = table.create_view("column", offset=(0, 1), size=(2, 1))
    >>> await column.write([[20], [40]])
    >>> print(await table.read())
    [[ 1. 20.]
     [ 3. 40.]]
    >>> column.get_memory_usage()
    0
    >>> manager.close()
    """

    def __init__(self, parent: SharedTensor, name: str, layout: Layout, offset: Shape) -> None:
        super().__init__(name)
        self.parent = parent
        parent.views[name] = self
        self.layout = layout
        self.offset = offset

    def __repr__(self) -> str:
        return f"<SharedTensorView {self.name!r} {list(self.shape)} of {self.parent.name!r}>"

    @property
    def whole(self) -> SharedTensor:
        """The tensor that the view is a part of."""
        return self.parent

    @property
    def reference_count(self) -> int:
        """Number of models that hold the view."""
        return len(self.holders)

    @property
    def tensor(self) -> Tensor:
        """The view for use in ops: slices of the parent's tensor, without a copy."""
        whole = self.parent.tensor
        return whole[tuple(slice(start, start + size) for start, size in zip(self.offset, self.shape, strict=True))]

    async def write(self, data: Any) -> None:
        """Replace the values that the view shows, in the parent's bytes. Other names with the old content keep it."""
        raw = memoryview(bytes(as_bytes(data, Spec(self.shape, self.dtype))))
        await self.parent.manager.overwrite(self.parent, runs(self.layout, self.dtype.itemsize, raw), None)

    def get_memory_usage(self) -> int:
        """Return 0: the bytes are the parent's."""
        return 0


def storage_of(tensor: Tensor) -> Storage | None:
    """Return the storage of a tensor that is computed, dense and whole; else ``None``."""
    node = tensor.node
    return node.storage if node.op is None else None
