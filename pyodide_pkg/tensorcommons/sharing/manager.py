"""TensorSharingManager: the models of one tab, the tensors they share, the memory they may take.

It manages storages, identities and holders, and runs the requests of models; it does not depend on what they compute.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

from ..backends.cpu.backend import CpuBackend
from ..backends.device import Device
from ..backends.recovery import surviving
from ..backends.select import MATRICES, ROW, Decision, Devices
from ..errors import DeviceLost, DeviceUnavailable, TensorCommonsError, TensorReleased, quoted
from ..graph.parted import PartedProgram
from ..graph.program import Program
from ..tensor import Tensor
from .accounts import Accounts
from .contract import Movable, Request
from .migration import Progress, bring, make_recomputable
from .runner import Runner

T = TypeVar("T")
MB = 2**20
NOT_OPENED = "no devices were given; pass devices=await tensorcommons.open_devices()"


_made: WeakSet[TensorSharingManager] = WeakSet()


def open_managers() -> list[TensorSharingManager]:
    """List the managers that are open."""
    return [manager for manager in _made if not manager.is_closed]


class TensorSharingManager(Accounts):
    """Hold the weights and tensors of several models on ``devices``, equal ones once, under ``max_memory_mb``.

    1 MB is 2**20 bytes. The limit holds at every moment for everything on the devices: weights, activations, scratch
    and staging. With ``activation_cache``, outputs and the values from which the graphs of loaded models differ are
    kept for later runs, in at most ``activation_share`` of the limit. Both apply to keys and values of finished texts,
    too: without ``activation_cache`` they are freed at once, and ``activation_share`` limits the extra room of their
    pools.

    Without ``devices`` it works on NumPy alone; in a browser pass ``await tensorcommons.open_devices()``.

    :meth:`close` frees everything; ``with`` and ``async with`` close it at the end of the block. The limit of a manager
    that is closed, or that nothing refers to any more, does not count.

    >>> manager = tc.TensorSharingManager(max_memory_mb=64)
    >>> sizes = []
    >>> stop = manager.subscribe(lambda report: sizes.append(report.device_bytes))
    >>> table = manager.register_shared_tensor("table", (2, 2), producer_model="encoder", consumer_models=["reader"])
    >>> manager.share_tensor_between_models("table", "encoder", ["writer"])
    True
    >>> manager.get_shared_tensor("table", "reader") is table
    True
    >>> row = manager.create_tensor_view("table", "row", offset=(0, 0), size=(1, 2), model_name="writer")
    >>> manager.report().device_bytes, manager.limit_bytes
    (16, 67108864)
    >>> await manager.set_memory_limit(32)
    >>> manager.get_model_memory_usage()["reader"]["total_memory_bytes"]
    16
    >>> manager.get_tensor_memory_usage()["table"]["reference_count"]
    3
    >>> manager.get_stats()["total_tensors"]
    1
    >>> manager.analyze_sharing_opportunities()["shared"][0]["saved_bytes"]
    32
    >>> sorted(manager.get_optimization_recommendations())
    ['cache_efficiency', 'largest_tensors', 'low_reference_tensors', 'potential_savings_mb', 'sharing_opportunities']
    >>> [manager.release_model_tensors(name) for name in ("encoder", "reader", "writer")]
    [1, 1, 1]
    >>> manager.optimize_memory_usage()["freed_tensors"]
    ['table']
    >>> stop()
    >>> sizes[-1]
    0
    >>> manager.close()
    """

    def __init__(
        self,
        max_memory_mb: float = 1024,
        devices: Devices | None = None,
        *,
        activation_cache: bool = True,
        activation_share: float = 0.25,
    ) -> None:
        if not isinstance(devices, (Devices, type(None))):
            raise TensorCommonsError(
                f"devices must be what `await tensorcommons.open_devices()` returns, not {quoted(devices)}"
            )
        if not (isinstance(activation_share, (int, float)) and 0 <= activation_share <= 1):
            raise TensorCommonsError(
                f"activation_share must be a part of the limit, from 0 to 1, not {quoted(activation_share)}"
            )
        super().__init__(
            devices or Devices([Device(CpuBackend())], {"webgpu": NOT_OPENED, "webnn": NOT_OPENED}),
            _limit_bytes(max_memory_mb),
            activation_share if activation_cache else 0.0,
        )
        self.tokenizers: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._loading: set[str] = set()  # names that a load has: no other one gets them before it has ended
        self._moving = asyncio.Lock()  # one move at a time: the second one reuses what the first one brought
        self._moves = 0
        self._losses = {device: device.losses for device in self.devices.opened}  # reported so far
        self.runner = Runner(self.registry, self.residency, self.activations, self._loaded, self.account)
        _made.add(self)

    def unload_models(self) -> None:
        """Unload every model; one that is still loading ends with an error."""
        for model in list(self._loaded.values()):
            model.unload()
        for name in list(self.models):
            self.release_model_tensors(name)

    def __enter__(self) -> TensorSharingManager:
        self.check_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> TensorSharingManager:
        return self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.close()

    # --- models and their weights ---

    def add_model(self, name: str, device: Device) -> str:
        """Add a model. Return its name, with a number appended where the name is taken.

        Raises ManagerClosed after :meth:`close`.
        """
        self.check_open()
        unique, number = name, 1
        while unique in self.models or unique in self._loading:
            number += 1
            unique = f"{name}-{number}"
        self.models[unique] = device
        self._loading.add(unique)
        return unique

    def place_model(self, name: str, device: Device) -> None:
        """Note the device of a model that is being loaded. Does nothing if its tensors were released meanwhile."""
        if name in self.models:
            self.models[name] = device

    def abandon_model(self, name: str) -> None:
        """Release the tensors and the name of a model whose load failed."""
        self.release_model_tensors(name)
        self._loading.discard(name)

    async def move(self, model: Movable, decision: Decision, on_progress: Progress = lambda done, total: None) -> None:
        """Move a loaded model's weights, and its runs from now on, to another device; see :meth:`Model.to`."""
        async with self._moving:
            target = decision.device
            if target not in self.devices.opened:
                raise DeviceUnavailable(target.kind, "it is not one of the manager's devices")
            self._check_loaded(model)
            arrived = await bring(self.registry, self.residency, model, target, on_progress)
            self._check_loaded(model)
            source = self.models[model.name]
            self.models[model.name] = target
            model.moved(decision, {name: Tensor.of_storage(e.storage, e.spec) for name, e in arrived.items()})
            self._moves += 1
            self.runner.forget(model.name)
            self.attach(model)
            source.drop_programs()
        self.changed()

    def _check_loaded(self, model: Movable) -> None:
        """Raise ManagerClosed, or TensorReleased for a model that was unloaded while its move waited."""
        self.check_open()
        if model.name not in self.models or model.is_unloaded:
            raise TensorReleased(f"{model.name} was unloaded while it was moving; load it again with from_pretrained()")

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """Wait until no model moves; none does in the block."""
        async with self._moving:
            self.check_open()
            yield

    @asynccontextmanager
    async def adopting(self, model: Movable, holder: str) -> AsyncIterator[bool]:
        """Have ``model`` hold what ``holder`` does, after the block, which must not wait.

        Yields False, and does nothing, if what ``holder`` has is not on the model's device. Raises TensorReleased if
        either was released.
        """
        async with self.settled():
            self._check_loaded(model)
            if holder not in self.models:
                raise TensorReleased(f"the tensors of {holder} were released while it was loading")
            is_there = self.models[holder] is model.device
            yield is_there
            if is_there:
                for name, entry in self.registry.held_by(holder).items():
                    entry.hold(model.name, name)

    def release_tensors(self, model: str, names: Iterable[str]) -> None:
        """End the holds of ``model`` under these ``names``; weights without another holder are freed."""
        held = self.registry.held_by(model)
        for name in names:
            if name in held:
                held[name].release(model, name)
                self.registry.drop_if_unused(held[name])
        for device in self.devices.opened:
            device.drop_programs()
        self.changed()

    def release_model_tensors(self, model_name: str) -> int:
        """End every hold of ``model_name``: weights, tensors and views. Return how many ended.

        Weights without another holder are freed; registered tensors stay until ``optimize_memory_usage``.
        """
        ended = self.registry.release(model_name)
        for tensor in self.tensors.values():
            tensor.forget(model_name)
        self.models.pop(model_name, None)
        self._loaded.pop(model_name, None)
        for device in self.devices.opened:
            device.drop_programs()
        self.runner.forget(model_name)
        self.changed()
        return ended

    # --- the budget ---

    @property
    def limit_bytes(self) -> int:
        """The limit in bytes."""
        return self.residency.limit

    async def set_memory_limit(self, max_memory_mb: float) -> None:
        """Change the limit and evict down to it. Raises MemoryBudgetError if that is not possible; nothing changed."""
        self.check_open()
        await self.residency.set_limit(self.share, _limit_bytes(max_memory_mb))
        self.account.forget(self.models)  # what runs moved under the limit before
        self.changed()

    async def make_room(self, nbytes: int) -> None:
        """Evict until ``nbytes`` more fit. Raises MemoryBudgetError if they cannot; then nothing left."""
        self.check_open()
        await self.residency.make_room(nbytes)
        self.changed()

    # --- running ---

    def attach(self, model: Movable) -> None:
        """Let a loaded model be compared with others, and its runs leave activations for theirs."""
        self._loading.discard(model.name)
        self._loaded[model.name] = model
        self.runner.loaded()

    def ran(self, model: Movable, program: Program | PartedProgram, js_calls: int, fallback: str) -> None:
        """Account in ``last_run`` for a program that ``model`` ran by itself: a step of a generation."""
        nodes = program.nodes, program.executed, program.executed
        self.account.ran([model.name], program.device, program, js_calls, nodes)
        self.account.finished(fallback)

    async def run_together(
        self,
        calls: Sequence[tuple[Movable, Mapping[str, Any]]],
        outputs: Sequence[Sequence[str] | None] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Run several models as one merged graph; what they have in common is computed once.

        ``calls`` are (model, inputs) pairs; models given equal inputs share everything that depends on them alone.
        ``outputs`` names for each call the outputs wanted (the model's own by default). Gives each call's outputs.

        Models on different devices run one device after another, each device's as one graph. A run whose device is
        lost is finished on the device after it, and the models stay there; ``last_run["fallback"]`` says so.

        Raises:
            ShapeMismatch: a model cannot take its inputs; nothing ran.
            DeviceUnavailable: the device was lost and there is no other.

        >>> manager = tc.TensorSharingManager(max_memory_mb=256)
        >>> model = await tc.from_pretrained("./models/splade-tiny", manager=manager)
        >>> inputs = {"input_ids": np.array([[101, 2009, 102]])}
        >>> await manager.compile_together([(model, inputs)])
        >>> outputs = [["logits"], ["sparse_embedding"]]
        >>> first, second = await manager.run_together([(model, inputs), (model, inputs)], outputs)
        >>> first["logits"].shape, second["sparse_embedding"].shape
        ((1, 3, 30522), (1, 30522))
        >>> manager.last_run["reused_in_run"] > 0
        True
        >>> manager.close()
        """
        self.check_open()
        wanted = _wanted(calls, outputs)
        models = [model for model, _ in calls]
        answers, fallback = await self.finishing(models, lambda: self._run_where_they_are(calls, wanted))
        self.account.finished(fallback)
        for (model, inputs), answer in zip(calls, answers, strict=True):
            make_recomputable(self.run_together, model, inputs, answer)
        self.changed()
        return answers

    async def _run_where_they_are(
        self, calls: Sequence[tuple[Movable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None]
    ) -> list[dict[str, Tensor]]:
        answers: dict[int, dict[str, Tensor]] = {}
        runs = []
        for device, places in _by_device(calls).items():
            found = await self.runner.run(device, partial(_requests, calls, outputs, places))
            answers.update(zip(places, found, strict=True))
            runs.append(self.account.last_run)
        if len(runs) > 1:
            self.account.join(runs)
        return [answers[i] for i in range(len(calls))]

    async def finishing(self, models: Sequence[Movable], work: Callable[[], Awaitable[T]]) -> tuple[T, str]:
        """Do ``work`` with ``models``, which move off a device that is gone. Return the result and what happened."""
        notes = []

        async def where_they_are() -> T:
            while True:
                moves = self._moves
                try:
                    return await work()
                except (TensorReleased, DeviceLost, DeviceUnavailable):
                    if moves == self._moves:  # else a model moved meanwhile: its weights are elsewhere now
                        raise

        async def move_on(lost: Device) -> bool:
            leaving = [model for model in dict.fromkeys(models) if model.device is lost]
            weights = {f"{model.name}: {name}": spec for model in leaving for name, spec in model.stored_specs.items()}
            by_row = all(model.product == ROW for model in leaving)
            target = self.devices.after(lost, weights, ROW if by_row else MATRICES)
            if target is None:
                return False
            why = f"{lost.kind} was lost ({lost.loss or 'no reason given'}) and did not come back ({lost.gone})"
            for model in leaving:
                await self.move(model, Decision(target, why))
            notes.append(f"finished on {target.kind}: {why}")
            return True

        result = await surviving(where_they_are, lambda: {model.device for model in models}, move_on)
        for device in self.devices.opened:
            if device.losses != self._losses[device]:
                self._losses[device] = device.losses
                notes.append(f"{device.kind} was lost ({device.loss or 'no reason given'}) and opened again")
        return result, "; ".join(notes)

    async def compile_together(
        self,
        calls: Sequence[tuple[Movable, Mapping[str, Any]]],
        outputs: Sequence[Sequence[str] | None] | None = None,
    ) -> None:
        """Compile what :meth:`run_together` takes for inputs of these shapes, without running it. Raises as it does.

        >>> manager = tc.TensorSharingManager(max_memory_mb=256)
        >>> model = await tc.from_pretrained("./models/splade-tiny", manager=manager)
        >>> await manager.compile_together([(model, {"input_ids": np.array([[101, 2009, 102]])})])
        >>> manager.close()
        """
        self.check_open()
        wanted = _wanted(calls, outputs)

        async def each_device() -> None:
            for device, places in _by_device(calls).items():
                await self.runner.compile(device, partial(_requests, calls, wanted, places))

        await self.finishing([model for model, _ in calls], each_device)
        self.changed()

    def optimize_memory_usage(self) -> dict[str, Any]:
        """Free unused tensors, kept activations and idle arenas. Return what that freed, in bytes."""
        self.check_open()
        before = self.residency.used
        freed = self.free_unused_tensors()
        self.activations.clear()
        for device in self.devices.opened:
            if device.idle_scratch_bytes:
                device.free_scratch()
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


def _wanted(
    calls: Sequence[tuple[Movable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None] | None
) -> Sequence[Sequence[str] | None]:
    """Return the outputs wanted of each call. Raises TensorCommonsError for malformed calls."""
    for call in calls:
        if not (isinstance(call, tuple) and len(call) == 2 and hasattr(call[0], "request")):
            raise TensorCommonsError(f"run_together() takes (model, inputs) pairs, not {quoted(call)}")
    if outputs is not None and len(outputs) != len(calls):
        raise TensorCommonsError(f"{len(calls)} calls need as many lists of outputs, not {len(outputs)}")
    return outputs or [None] * len(calls)


def _requests(
    calls: Sequence[tuple[Movable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None], places: Sequence[int]
) -> Sequence[Request]:
    """Make the requests of the run of ``places``; models that take the same inputs alike prepare them once."""
    once: dict[Hashable, Any] | None = {} if len(places) > 1 else None
    return [calls[i][0].request(calls[i][1], outputs[i], once) for i in places]


def _by_device(calls: Sequence[tuple[Movable, Mapping[str, Any]]]) -> dict[Device, list[int]]:
    """Return the places in ``calls`` of the models of each device."""
    places: dict[Device, list[int]] = {}
    for i, (model, _) in enumerate(calls):
        places.setdefault(model.device, []).append(i)
    return places


def _limit_bytes(max_memory_mb: float) -> int:
    is_number = isinstance(max_memory_mb, (int, float)) and not isinstance(max_memory_mb, bool)
    if not (is_number and 0 < max_memory_mb < 2**40):
        raise TensorCommonsError(f"max_memory_mb must be a number above 0, not {quoted(max_memory_mb)}")
    return int(max_memory_mb * MB)
