"""The tensors of a manager by name: registered, granted, viewed, written, copied and freed.

:class:`SharedTensors` is the part of ``TensorSharingManager`` that is about names, of tensors and of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.device import Device
from ..backends.select import Devices
from ..errors import ManagerClosed, NotAConsumer, ShapeMismatch, TensorCommonsError, TensorNotFound, quoted
from ..shapes import Shape
from ..tensor import Tensor
from .activation_cache import ActivationCache
from .provenance import content_identity
from .registry import Entry, Registry
from .report import MemoryReport
from .residency import Residency, Share
from .shared_tensor import SharedTensor, SharedTensorView, Shown, storage_of
from .subscriptions import Subscriptions
from .values import as_bytes, view_layout
from .writes import overwrite


class SharedTensors(ABC):
    """Tensors by name over ``devices``, under a budget of ``limit`` bytes; every change is reported to subscribers.

    ``activation_share`` of the limit may be taken by activations that are kept for later runs.
    """

    def __init__(self, devices: Devices, limit: int, activation_share: float) -> None:
        self.devices = devices
        self.registry = Registry()
        self.activations = ActivationCache(activation_share)
        self.share = Share(self.registry, self.activations, limit)
        self.residency = Residency.of(devices.opened, self.share)
        self.hits = 0
        self.misses = 0
        self.tensors: dict[str, SharedTensor] = {}
        self._views: dict[str, SharedTensorView] = {}
        # What each tensor is a copy of, and the content then.
        self._copies: WeakKeyDictionary[SharedTensor, tuple[SharedTensor, str]] = WeakKeyDictionary()
        self._news = Subscriptions()
        self.is_closed = False

    def check_open(self) -> None:
        """Raise ManagerClosed after :meth:`close`."""
        if self.is_closed:
            raise ManagerClosed("the manager was closed and holds nothing: make another TensorSharingManager")

    def close(self) -> None:
        """Free everything that the manager holds, on every device, and end its limit. Safe to call twice.

        Models are unloaded, shared tensors and kept activations are freed; runs and reads under way end first, and
        their results stay valid. The devices stay open. Later calls raise ManagerClosed.
        """
        if self.is_closed:
            return
        self.unload_models()
        self.is_closed = True
        for tensor in self.tensors.values():
            tensor.free()
        self.tensors.clear()
        self._views.clear()
        self.activations.share = 0.0  # a run under way leaves nothing any more
        self.activations.clear()
        self.registry.clear()
        self.residency.leave(self.share)
        for device in self.devices.opened:
            device.drop_programs()
        self.changed()
        self._news.clear()

    def register_shared_tensor(
        self,
        name: str,
        shape: Sequence[int],
        storage_type: str = "cpu",
        producer_model: str | None = None,
        consumer_models: Sequence[str] | None = None,
        dtype: object = "float32",
        data: Any = None,
    ) -> SharedTensor:
        """Register a tensor under ``name``, with ``data`` (array, list, bytes, Tensor) or zeros. Its producer holds it.

        A name that is registered already gives the existing tensor, if shape, dtype, device and (where given) data are
        the same; the producer and consumers are added to its own. The same content under another name is another
        SharedTensor over the same bytes.

        Raises:
            TensorCommonsError: the name is taken by something else; the message says what differs.
            ShapeMismatch, UnsupportedDtype: ``data`` does not fit.
            DeviceUnavailable: there is no such device, with the reason.
            MemoryBudgetError: it does not fit. Nothing changed in any of these cases.
        """
        self.check_open()
        spec = Spec(_shape(shape), dtypes.as_dtype(dtype))
        device = self.devices.choose(storage_type)
        if not isinstance(name, str) or not name or name in self._views:
            raise TensorCommonsError(
                f"{quoted(name)} cannot name a tensor: it must be a non-empty string that names no view"
            )
        consumers = _models(consumer_models or ())
        if producer_model is not None:
            _models([producer_model])
        known = self.tensors.get(name)
        if known is not None:
            self._check_same(known, spec, device, data)
            if known.entry.storage.state == "lost" and data is not None and not isinstance(data, Tensor):
                known.entry.storage.revive(as_bytes(data, spec))
        else:
            known = self.tensors[name] = SharedTensor(self, name, self._entry_for(data, spec, device))
        known.grant(consumers)
        if producer_model is not None:
            known.produced_by(producer_model)
        self.changed()
        return known

    def _entry_for(self, data: Any, spec: Spec, device: Device) -> Entry:
        """Return the entry with ``data``, from the registry or new."""
        if isinstance(data, Tensor):
            storage = storage_of(data)
            if storage is None or data.spec != spec or data.device is not device:
                raise TensorCommonsError(
                    f"a tensor given as data must be computed, whole, {spec.dtype}{list(spec.shape)} and on "
                    f"{device.kind}, not {quoted(data)}; await its read() and pass that"
                )
            found = self.registry.find(device, storage.identity)
            if found is not None:
                if found.storage.is_written:
                    raise TensorCommonsError(
                        f"{quoted(found.name)} is being written; await that before registering it again"
                    )
                return found
            given = WeakSet(filter(None, (leaf() for leaf in storage.leaves)))  # they may use it: see ``writes``
            entry = Entry(storage, spec, content=storage.identity if storage.is_known else None, given=given)
            self.activations.forget(storage)
            storage.recategorize("weights")
            self.registry.add(entry)
            return entry
        if spec.nbytes > self.residency.usable:  # before as many zeros are made on the host
            raise self.residency.refusal(spec.nbytes)
        raw = memoryview(bytes(spec.nbytes)) if data is None else as_bytes(data, spec)
        return self.registry.intern(device, raw, spec)

    def _check_same(self, known: SharedTensor, spec: Spec, device: Device, data: Any) -> None:
        wanted = {"shape": spec.shape, "dtype": spec.dtype, "storage_type": device.kind}
        differences = [
            f"{name} {getattr(known, name)} against {value}"
            for name, value in wanted.items()
            if getattr(known, name) != value
        ]
        if not differences and data is not None:
            if isinstance(data, Tensor):
                storage = storage_of(data)
                same = storage is not None and storage.identity == known.identity
            else:
                same = content_identity(as_bytes(data, spec), spec.shape, spec.dtype) == known.entry.content
            if not same:
                differences.append("the bytes")
        if differences:
            raise TensorCommonsError(
                f"tensor {quoted(known.name)} is registered already, with other properties: {'; '.join(differences)}"
            )

    def get_shared_tensor(self, name: str, model_name: str | None = None) -> SharedTensor | None:
        """Return the tensor under ``name``, or ``None``. With ``model_name``, that model acquires it.

        Raises NotAConsumer if the model was not granted it.
        """
        self.check_open()
        found = self.tensors.get(name)
        if found is None:
            self.misses += 1
            return None
        if model_name is not None:
            found.acquire(model_name)
        self.hits += 1
        return found

    def create_tensor_view(
        self,
        tensor_name: str,
        view_name: str,
        offset: Sequence[int],
        size: Sequence[int],
        model_name: str | None = None,
    ) -> SharedTensorView:
        """Create a view of a tensor or of a view, by its name; ``model_name`` is granted it and holds it.

        Raises TensorNotFound, ViewOutOfBounds; nothing changed then.
        """
        self.check_open()
        return self._named(tensor_name).create_view(view_name, offset, size, model_name)

    def add_view(
        self, shown: Shown, name: str, offset: Sequence[int], size: Sequence[int], model: str | None
    ) -> SharedTensorView:
        """Register a view of what ``shown`` shows, at ``offset`` within it."""
        shown.whole.check()
        if not isinstance(name, str) or not name or name in self.tensors or name in self._views:
            raise TensorCommonsError(
                f"{quoted(name)} cannot name a view: it must be a non-empty string that is not taken"
            )
        if model is not None:
            _models([model])
        layout = view_layout(shown.layout, offset, size, name)
        start = tuple(a + b for a, b in zip(shown.offset, offset, strict=True))
        view = self._views[name] = SharedTensorView(shown.whole, name, layout, start)
        if model is not None:
            view.grant([model])
            view.hold(model)
        self.changed()
        return view

    def share_tensor_between_models(self, tensor_name: str, from_model: str, to_models: Sequence[str]) -> bool:
        """Let ``to_models`` acquire a tensor or view that ``from_model`` holds. Granting twice is granting once.

        Raises TensorNotFound, or NotAConsumer if ``from_model`` does not hold it.
        """
        self.check_open()
        found = self._named(tensor_name)
        if from_model not in found.holders:
            raise NotAConsumer(f"model {quoted(from_model)} does not hold {quoted(tensor_name)}, so it cannot share it")
        found.grant(_models(to_models))
        self.changed()
        return True

    def _named(self, name: str) -> SharedTensor | SharedTensorView:
        found = self.tensors.get(name) or self._views.get(name)
        if found is None:
            raise TensorNotFound(f"no tensor or view is registered as {quoted(name)}")
        return found

    async def copy_tensor(self, tensor: SharedTensor, storage_type: str, name: str | None) -> SharedTensor:
        """See :meth:`SharedTensor.copy_to`."""
        tensor.check()
        device = self.devices.choose(storage_type)
        name = name or f"{tensor.name}_{storage_type}"
        copy = self.tensors.get(name)
        known, source = tensor.entry.content, tensor.entry.storage.device
        values: Any
        if copy is None and known is not None and (source.lends_to(device) or device.lends_to(source)):
            await self.residency.make_room(tensor.nbytes)
            values = await tensor.tensor.to(device)
            return self._copied(tensor, name, storage_type, values, known)
        values = await tensor.read()
        raw = as_bytes(values, tensor.entry.spec)
        content = content_identity(raw, tensor.shape, tensor.dtype)
        original, copied = self._copies.get(copy, (None, "")) if copy is not None else (None, "")
        if copy is not None and original is tensor:
            if copy.entry.content != copied:
                raise TensorCommonsError(
                    f"{quoted(name)} was written since it was copied from {quoted(tensor.name)}: "
                    "give the new copy another name"
                )
            if copy.entry.content != content:
                await self.overwrite(copy, [(0, memoryview(bytes(raw)))], content)
        elif self.registry.find(device, content) is None:
            await self.residency.make_room(tensor.nbytes)
        if device is not source:
            device.count_crossing("host", tensor.nbytes)
        return self._copied(tensor, name, storage_type, values, content)

    def _copied(self, tensor: SharedTensor, name: str, storage_type: str, values: Any, content: str) -> SharedTensor:
        """Register ``values`` as a copy of ``tensor``."""
        copy = self.register_shared_tensor(
            name,
            tensor.shape,
            storage_type,
            tensor.producer_model,
            sorted(tensor.consumer_models),
            tensor.dtype,
            values,
        )
        if copy is not tensor:
            self._copies[copy] = tensor, content
        return copy

    def pin(self, tensor: SharedTensor) -> None:
        """See :meth:`SharedTensor.pin`."""
        tensor.check()
        storage = tensor.entry.storage
        if not tensor.entry.pins:
            self.residency.check_together(storage.nbytes, [storage])
        tensor.entry.pin(tensor.name)
        self.residency.restore_now(storage)
        self.changed()

    async def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """Read the values. Subscribers get a report if the tensor had to come back to its device for that."""
        before = self.share.restores
        values = await tensor.read()
        if self.share.restores != before:
            self.changed()
        return values

    async def overwrite(
        self, tensor: SharedTensor, pieces: Sequence[tuple[int, memoryview]], content: str | None
    ) -> None:
        """Write ``pieces`` (byte offset, bytes) into ``tensor``. ``content`` is the identity of the result, if known.

        If other names or models have the same bytes, those keep them, and ``tensor`` gets bytes of its own.
        """
        await overwrite(self.registry, self.residency, tensor, pieces, content)
        self.activations.sweep()
        self.changed()

    def free_unused_tensors(self) -> list[str]:
        """Free the registered tensors that are not held, awaited or pinned. Return their names."""
        unused = [tensor for tensor in self.tensors.values() if tensor.can_be_freed()]
        for tensor in unused:
            del self.tensors[tensor.name]
            for view in tensor.views:
                del self._views[view]
            tensor.free()
            self.registry.drop_if_unused(tensor.entry)
        return [tensor.name for tensor in unused]

    # --- models ---

    @abstractmethod
    def unload_models(self) -> None:
        """Unload every model; one that is still loading ends with an error."""

    # --- reports ---

    @abstractmethod
    def report(self) -> MemoryReport:
        """Take an immutable snapshot of who holds what."""

    def subscribe(self, callback: Callable[[MemoryReport], None]) -> Callable[[], None]:
        """Call ``callback`` with a report after every change. Return a function that ends this.

        A change made by a callback is reported when all were called for the one before. Exceptions are logged.
        """
        self.check_open()
        return self._news.subscribe(callback)

    def changed(self) -> None:
        """Call the subscribers. Called after a change is complete, never in the middle of one."""
        self._news.notify(self.report)


def _models(names: Sequence[str]) -> list[str]:
    listed = [] if isinstance(names, str) else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in listed):
        raise TensorCommonsError(f"models are given as a list of their names, not {quoted(names)}")
    return listed


def _shape(shape: Sequence[int]) -> Shape:
    sizes = tuple(shape) if np.iterable(shape) else (-1,)
    if not all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 0 for size in sizes):
        raise ShapeMismatch(f"a shape is a sequence of whole numbers from 0 on, not {quoted(shape)}")
    return tuple(int(size) for size in sizes)
