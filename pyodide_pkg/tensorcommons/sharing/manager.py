"""TensorSharingManager: the models of one tab, the tensors they share, the memory they may take.

It knows storages, identities and holders. What a model computes it never looks at: a model hands it nodes to run.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.cpu import CpuBackend
from ..backends.device import Device
from ..backends.select import Devices
from ..errors import MemoryBudgetError, NotAConsumer, ShapeMismatch, TensorCommonsError, TensorNotFound
from ..graph.graph import Graph
from ..graph.node import Node
from ..shapes import Layout, Shape
from ..tensor import Tensor
from . import accounts, opportunities
from .registry import Entry, Registry
from .report import MemoryReport
from .residency import Residency
from .running import Runnable, Runner
from .shared_tensor import SharedTensor, SharedTensorView, as_bytes, storage_of, view_layout
from .storage import Storage, content_identity, using

MB = 2**20
logger = logging.getLogger(__name__)
NOT_OPENED = "no devices were given; pass devices=await tensorcommons.open_devices()"


class TensorSharingManager:
    """Holds the weights and tensors of several models on ``devices``, each content once, under ``max_memory_mb``.

    1 MB is 2**20 bytes. The limit holds at every moment for everything on the devices: weights, activations, scratch
    and staging. Without ``devices`` it works on NumPy alone; in a browser pass ``await tensorcommons.open_devices()``.
    """

    def __init__(self, max_memory_mb: float = 1024, devices: Devices | None = None) -> None:
        self.devices = devices or Devices([Device(CpuBackend())], {"webgpu": NOT_OPENED, "webnn": NOT_OPENED})
        self.registry = Registry()
        self.residency = Residency(self.devices.opened, self.registry, _limit_bytes(max_memory_mb))
        self.tokenizers: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.hits = 0
        self.misses = 0
        self.models: dict[str, Device] = {}
        self.tensors: dict[str, SharedTensor] = {}
        self._views: dict[str, SharedTensorView] = {}
        self._subscribers: dict[int, Callable[[MemoryReport], None]] = {}
        self._runner = Runner()
        self._architectures: dict[str, str] = {}
        self._probes: dict[str, Callable[[], Sequence[Node]]] = {}
        self._probed: dict[str, Graph] = {}
        self._keys = itertools.count()
        self._telling = False
        self._untold = False

    # --- tensors by name ---

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
        """A tensor under ``name``, with ``data`` (array, list, bytes, Tensor) or zeros. Its producer holds it.

        A name that is registered already gives the existing tensor, if shape, dtype, device and (where given) data are
        the same; the producer and consumers are added to its own. The same content under another name is another
        SharedTensor over the same bytes.

        Raises:
            TensorCommonsError: the name is taken by something else; the message says what differs.
            ShapeMismatch, UnsupportedDtype: ``data`` does not fit.
            DeviceUnavailable: there is no such device, with the reason.
            MemoryBudgetError: it does not fit. Nothing changed in any of these cases.
        """
        spec = Spec(_shape(shape), dtypes.as_dtype(dtype))
        device = self.devices.choose(storage_type)
        if not isinstance(name, str) or not name or name in self._views:
            raise TensorCommonsError(f"{name!r} cannot name a tensor: it is empty, no text, or the name of a view")
        consumers = _models(consumer_models or ())
        if producer_model is not None:
            _models([producer_model])
        known = self.tensors.get(name)
        if known is not None:
            self._check_same(known, spec, device, data)
            if known.entry.storage.state == "lost" and data is not None and not isinstance(data, Tensor):
                known.entry.storage.revive(as_bytes(data, spec))
            known.registrations += 1
            known.consumer_models.update(consumers)
        else:
            entry = self._entry_for(data, spec, device)
            known = self.tensors[name] = SharedTensor(self, name, entry, producer_model, consumers)
        if producer_model is not None:
            known.producer_model = known.producer_model or producer_model
            known.consumer_models.add(producer_model)
            known.entry.hold(producer_model, known.key)
        self.changed()
        return known

    def _entry_for(self, data: Any, spec: Spec, device: Device) -> Entry:
        """The entry with ``data``, from the registry or new."""
        if isinstance(data, Tensor):
            storage = storage_of(data)
            if storage is None or data.spec != spec or data.device is not device:
                raise TensorCommonsError(
                    f"a tensor given as data must be computed, whole, {spec.dtype}{list(spec.shape)} and on "
                    f"{device.kind}, not {data!r}; await its read() and pass that"
                )
            found = self.registry.find(device, storage.identity)
            if found is not None:
                if found.is_written:
                    raise TensorCommonsError(f"{found.name!r} is being written; await that before registering it again")
                return found
            entry = Entry(storage, spec, content=storage.identity if storage.is_known else None)
            storage.category = device.recategorize(storage.handle, "weights")
            self.registry.add(entry)
            return entry
        if spec.nbytes > self.residency.usable:  # before as many zeros are made on the host
            raise self.residency.refusal(spec.nbytes)
        raw = memoryview(bytes(spec.nbytes)) if data is None else as_bytes(data, spec)
        return self.registry.intern(device, raw, spec)

    def _check_same(self, known: SharedTensor, spec: Spec, device: Device, data: Any) -> None:
        differences = []
        if known.shape != spec.shape:
            differences.append(f"shape {known.shape} against {spec.shape}")
        if known.dtype is not spec.dtype:
            differences.append(f"dtype {known.dtype} against {spec.dtype}")
        if known.entry.storage.device is not device:
            differences.append(f"storage_type {known.storage_type} against {device.kind}")
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
                f"tensor {known.name!r} is registered already, with other properties: {'; '.join(differences)}"
            )

    def get_shared_tensor(self, name: str, model_name: str | None = None) -> SharedTensor | None:
        """The tensor under ``name``, or ``None``. With ``model_name``, that model acquires it.

        Raises NotAConsumer if the model was not granted it.
        """
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
        """A part of a tensor or of a view, by its name; ``model_name`` is granted it and holds it.

        Raises TensorNotFound, ViewOutOfBounds; nothing changed then.
        """
        parent = self.tensors.get(tensor_name) or self._views.get(tensor_name)
        if parent is None:
            raise TensorNotFound(f"no tensor or view is registered as {tensor_name!r}")
        return parent.create_view(view_name, offset, size, model_name)

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
        """Register a view of ``parent`` at ``offset`` within what ``shown`` shows, which begins at ``base``."""
        parent.check()
        if not isinstance(name, str) or not name or name in self.tensors or name in self._views:
            raise TensorCommonsError(f"{name!r} cannot name a view: it is empty, no text, or taken by another")
        if model is not None:
            _models([model])
        layout = view_layout(shown, offset, size, name)
        start = tuple(a + b for a, b in zip(base or (0,) * len(offset), offset, strict=True))
        view = self._views[name] = parent.views[name] = SharedTensorView(parent, name, layout, start)
        if model is not None:
            view.acquire(model)
        self.changed()
        return view

    def share_tensor_between_models(self, tensor_name: str, from_model: str, to_models: Sequence[str]) -> bool:
        """Let ``to_models`` acquire a tensor or view that ``from_model`` holds. Granting twice is granting once.

        Raises TensorNotFound, or NotAConsumer if ``from_model`` does not hold it.
        """
        found = self.tensors.get(tensor_name) or self._views.get(tensor_name)
        if found is None:
            raise TensorNotFound(f"no tensor or view is registered as {tensor_name!r}")
        if from_model not in found.holders:
            raise NotAConsumer(f"model {from_model!r} does not hold {tensor_name!r}, so it cannot share it")
        found.consumer_models.update(_models(to_models))
        self.changed()
        return True

    async def copy_tensor(self, tensor: SharedTensor, storage_type: str) -> SharedTensor:
        """See :meth:`SharedTensor.copy_to`."""
        tensor.check()
        self.devices.choose(storage_type)
        values = await tensor.read()
        known = content_identity(as_bytes(values, tensor.entry.spec), tensor.shape, tensor.dtype)
        if self.registry.find(self.devices.choose(storage_type), known) is None:
            await self.residency.make_room(tensor.nbytes)
        return self.register_shared_tensor(
            f"{tensor.name}_{storage_type}",
            tensor.shape,
            storage_type,
            tensor.producer_model,
            sorted(tensor.consumer_models),
            tensor.dtype,
            values,
        )

    async def read(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """The values; tells the subscribers if the tensor had to come back to its device for that."""
        before = self.residency.restores
        values = await tensor.read()
        if self.residency.restores != before:
            self.changed()
        return values

    async def overwrite(
        self, tensor: SharedTensor, pieces: Sequence[tuple[int, memoryview]], content: str | None
    ) -> None:
        """Write ``pieces`` (byte offset, bytes) into ``tensor``. ``content`` is the identity of the result, if known.

        If other names or models have the same bytes, those keep them, and ``tensor`` gets bytes of its own.
        """
        async with tensor.writing:
            tensor.check()
            if self._has_others(tensor):
                await self._write_apart(tensor, pieces, content)
            else:
                await self._write_in_place(tensor, pieces, content)
        self.changed()

    def _has_others(self, tensor: SharedTensor) -> bool:
        entry, own = tensor.entry, _own_keys(tensor)
        return bool(entry.registered - {tensor.name}) or any(names - own for names in entry.names.values())

    async def _write_apart(
        self, tensor: SharedTensor, pieces: Sequence[tuple[int, memoryview]], content: str | None
    ) -> None:
        """A write to bytes that others have: a new entry with what comes of it, in one step after everything waits."""
        entry = tensor.entry
        raw = bytearray(tensor.nbytes)
        if content is None:
            raw[:] = memoryview(await tensor.read()).cast("B")
        for offset, piece in pieces:
            raw[offset : offset + piece.nbytes] = piece
        await self.residency.make_room(tensor.nbytes, [entry.storage])
        tensor.check()
        storage = Storage.upload(entry.storage.device, memoryview(raw), "weights")
        fresh = Entry(storage, entry.spec, registered={tensor.name})
        self.registry.add(fresh)
        self.registry.rename(fresh, content)
        for model in list(entry.names):
            for key in _own_keys(tensor) & entry.names[model]:
                entry.let_go(model, key)
                fresh.hold(model, key)
        entry.registered.discard(tensor.name)
        if tensor.name in entry.pins:
            entry.pins.discard(tensor.name)
            fresh.pins.add(tensor.name)
        tensor.entry = fresh
        self.registry.drop_if_unused(entry)

    async def _write_in_place(
        self, tensor: SharedTensor, pieces: Sequence[tuple[int, memoryview]], content: str | None
    ) -> None:
        """A write to bytes that nobody else has. Nobody finds them by their content from here on until it is done."""
        entry, storage, before = tensor.entry, tensor.entry.storage, tensor.entry.content
        version = storage.version
        self.registry.rename(entry, None)
        entry.is_written = True
        try:
            if storage.state == "lost" and content is not None:
                ((_, whole),) = pieces
                storage.revive(whole)
            else:
                with using([storage]):
                    for offset, piece in pieces:
                        await storage.write(offset, piece)
        except BaseException:
            if storage.version == version and not tensor.is_freed:  # no byte was written
                self.registry.rename(entry, before)
            raise
        else:
            self.registry.rename(entry, content)
        finally:
            entry.is_written = False

    # --- models and their weights ---

    def add_model(self, name: str, device: Device) -> str:
        """Make room for a model; gives its name, with a number behind it where the name is taken."""
        unique, number = name, 1
        while unique in self.models:
            number += 1
            unique = f"{name}-{number}"
        self.models[unique] = device
        return unique

    def release_model_tensors(self, model_name: str) -> int:
        """End every hold of ``model_name``: weights, tensors and views. Gives how many ended.

        Weights that nobody else holds are freed; registered tensors stay until ``optimize_memory_usage``.
        """
        ended = self.registry.release(model_name)
        self.models.pop(model_name, None)
        self._probes.pop(model_name, None)
        self._probed.pop(model_name, None)
        self._architectures.pop(model_name, None)
        for device in self.devices.opened:
            device.drop_programs()
        self._runner.forget(model_name)
        self.changed()
        return ended

    def free_unused_tensors(self) -> list[str]:
        """Free the registered tensors that nobody holds and nothing pins. Gives their names."""
        unused = [tensor for tensor in self.tensors.values() if tensor.can_be_freed()]
        for tensor in unused:
            del self.tensors[tensor.name]
            for view in tensor.views:
                del self._views[view]
            tensor.is_freed = True
            tensor.entry.registered.discard(tensor.name)
            self.registry.drop_if_unused(tensor.entry)
        return [tensor.name for tensor in unused]

    # --- the budget ---

    @property
    def limit_bytes(self) -> int:
        """The limit in bytes."""
        return self.residency.limit

    async def set_memory_limit(self, max_memory_mb: float) -> None:
        """Change the limit and evict down to it. Raises MemoryBudgetError if that is not possible; nothing changed."""
        await self.residency.set_limit(_limit_bytes(max_memory_mb))
        self.changed()

    async def make_room(self, nbytes: int) -> None:
        """Evict until ``nbytes`` more fit. Raises MemoryBudgetError if they cannot; then nothing left."""
        await self.residency.make_room(nbytes)
        self.changed()

    def set_probe(self, model: str, architecture: str, probe: Callable[[], Sequence[Node]]) -> None:
        """Let a model be compared with others: ``probe`` gives its graph on inputs of one fixed shape."""
        self._architectures[model] = architecture
        self._probes[model] = probe

    def family_name(self, model: str) -> str:
        """What the family table is asked for: the architecture of a loaded model, else the name itself."""
        return self._architectures.get(model, model)

    def common_prefixes(self) -> list[dict[str, Any]]:
        """Pairs of loaded models whose graphs begin with the same computation; see ``opportunities``."""
        for name, probe in self._probes.items():
            if name not in self._probed:
                with suppress(MemoryBudgetError):  # its constants do not fit just now: no evidence then
                    self._probed[name] = Graph(probe())
        by_device: dict[Device | None, dict[str, Graph]] = {}
        for name, graph in self._probed.items():
            by_device.setdefault(self.models.get(name), {})[name] = graph
        return [row for graphs in by_device.values() for row in opportunities.common_prefixes(graphs)]

    # --- running ---

    @property
    def last_run(self) -> dict[str, Any]:
        """What the last run computed: nodes, executed, reused, dispatches, calls into JavaScript, bytes."""
        return dict(self._runner.last_run)

    async def run_together(
        self,
        calls: Sequence[tuple[Runnable, Mapping[str, Any]]],
        outputs: Sequence[Sequence[str] | None] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Run several models as one merged graph; what they have in common is computed once.

        ``calls`` are (model, inputs) pairs; models given equal inputs share everything that depends on them alone.
        ``outputs`` names for each call the outputs wanted (the model's own by default). Gives each call's outputs.

        Raises:
            ShapeMismatch: a model cannot take its inputs; nothing ran.
            TensorCommonsError: the models are on different devices.
        """
        answers = await self._runner.run(calls, outputs)
        self.changed()
        return answers

    # --- accounts ---

    def get_stats(self) -> dict[str, Any]:
        """Counts, bytes and lookups now, and ``last_run``: what the last run computed and how it called JavaScript."""
        return accounts.stats(self)

    def get_tensor_memory_usage(self) -> dict[str, Any]:
        """Per registered tensor: bytes, shape, dtype, device, holders, references, pinned, state, views."""
        return accounts.tensor_usage(self)

    def get_model_memory_usage(self) -> dict[str, Any]:
        """Per model: total, exclusive, shared and attributed bytes, and its tensors."""
        return accounts.model_usage(self)

    def analyze_sharing_opportunities(self) -> dict[str, Any]:
        """What is shared and what could be, each with its evidence; see :mod:`tensorcommons.sharing.opportunities`."""
        return opportunities.analyze(self)

    def get_optimization_recommendations(self) -> dict[str, Any]:
        """What takes most, what nobody uses, what could be shared, and how well lookups hit."""
        return accounts.recommendations(self)

    def optimize_memory_usage(self) -> dict[str, Any]:
        """Free the registered tensors that nobody holds, and the idle arenas. Gives what that freed, in bytes."""
        before = self.residency.used
        freed = self.free_unused_tensors()
        for device in self.devices.opened:
            if device.idle_arena_bytes:
                device.free_arena()
        after = self.residency.used
        self.changed()
        return {
            "initial_memory_bytes": before,
            "current_memory_bytes": after,
            "freed_memory_bytes": before - after,
            "freed_tensors": freed,
            "freed_tensors_count": len(freed),
            "memory_reduction_percent": 100 * (before - after) / before if before else 0.0,
            "remaining_tensor_count": len(self.tensors),
        }

    def report(self) -> MemoryReport:
        """Who holds what, now: an immutable snapshot."""
        return accounts.report(self)

    def subscribe(self, callback: Callable[[MemoryReport], None]) -> Callable[[], None]:
        """Call ``callback`` with a report after every change. Gives a function that ends this.

        A change that a callback makes is told when all have heard of the one before. What a callback raises is logged.
        """
        key = next(self._keys)
        self._subscribers[key] = callback
        return lambda: self._subscribers.pop(key, None) and None

    def changed(self) -> None:
        """Tell the subscribers. Called after a change is complete, never in the middle of one."""
        self._untold = True
        if self._telling or not self._subscribers:
            return
        self._telling = True
        try:
            while self._untold:
                self._untold = False
                report = self.report()
                for key, callback in list(self._subscribers.items()):
                    if key in self._subscribers:
                        try:
                            callback(report)
                        except Exception:
                            logger.exception("a subscriber of the sharing manager failed")
        finally:
            self._telling = False


def _own_keys(tensor: SharedTensor) -> set[str]:
    """What the holders of a tensor and of its views hold them as."""
    return {tensor.key, *(view.key for view in tensor.views.values())}


def _limit_bytes(max_memory_mb: float) -> int:
    if not (isinstance(max_memory_mb, (int, float)) and 0 < max_memory_mb < 2**40):
        raise TensorCommonsError(f"max_memory_mb must be a number above 0, not {max_memory_mb!r}")
    return int(max_memory_mb * MB)


def _models(names: Sequence[str]) -> list[str]:
    listed = [] if isinstance(names, str) else list(names)
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in listed):
        raise TensorCommonsError(f"models are given as a list of their names, not {names!r}")
    return listed


def _shape(shape: Sequence[int]) -> Shape:
    sizes = tuple(shape) if np.iterable(shape) else (-1,)
    if not all(isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 0 for size in sizes):
        raise ShapeMismatch(f"a shape is a sequence of whole numbers from 0 on, not {shape!r}")
    return tuple(int(size) for size in sizes)
