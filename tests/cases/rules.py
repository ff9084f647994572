"""Every operation of a manager, in any order, compared with a model of it in plain Python.

The model has values, holders, grants, turns, views, copies and pins by name. It has no storages: sharing of twins,
copies on write, evictions and restores must not be visible in it.

:data:`RULES` has for each rule the choices of its arguments. Hypothesis chooses in CPython
(tests/sharing/test_state_machine.py), a seeded generator in the browser (tests/cases/sharing.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorcommons import TensorSharingManager, dtypes
from tensorcommons.errors import DeviceLost, MemoryBudgetError, NotAConsumer, TensorCommonsError
from tensorcommons.sharing.provenance import content_identity
from tensorcommons.sharing.registry import REGISTERED

KB = 1024
KINDS = ("cpu", "webgpu")
NAMES = "abcd"
VIEWS = ("v0", "v1", "v2")
MODELS = ("m", "n", "o")
TEXT = ((256,), "float32")
SPECS = (
    TEXT, TEXT, TEXT, ((16, 16), "int32"), ((9, 7), "int8"), ((5, 3), "float16"), ((), "bool"), ((0, 2), "uint8"),
)  # fmt: skip
SEEDS = (0, 1)
LIMITS = (2 * KB, 3 * KB, 5 * KB)
CANCEL = (0, 0, 0, 1, 2, 3)
SOME = ((), ("m",), ("n",), ("o",), ("m", "n"), ("n", "o"))
ANY = range(10)
WHERE = range(1000)
YES_NO = (False, True)

RULES: dict[str, dict[str, Sequence[Any]]] = {
    "register": {
        "name": NAMES, "kind": KINDS, "spec": SPECS, "seed": SEEDS, "zeros": (False, False, True),
        "producer": (None, *MODELS), "consumers": SOME, "room": YES_NO,
    },
    "get": {"name": NAMES, "model": (None, *MODELS)},
    "share": {"number": ANY, "giver": MODELS, "taker": MODELS},
    "share_a_view": {"number": ANY, "giver": MODELS, "taker": MODELS},
    "view": {"number": ANY, "view": VIEWS, "inner": VIEWS, "model": (None, *MODELS), "where": WHERE},
    "acquire_a_view": {"number": ANY, "model": MODELS},
    "write": {"number": ANY, "seed": SEEDS, "cancel": CANCEL},
    "write_through_a_view": {"number": ANY, "seed": SEEDS, "cancel": CANCEL},
    "several_at_once": {"number": ANY, "seed": SEEDS, "other": ANY},
    "copy": {"number": ANY, "kind": KINDS, "cancel": CANCEL},
    "pin": {"number": ANY, "on": YES_NO},
    "release": {"number": ANY, "model": MODELS, "views": YES_NO},
    "release_model": {"model": MODELS},
    "optimise": {},
    "change_the_limit": {"limit": LIMITS, "cancel": CANCEL},
    "make_room": {"nbytes": (KB, 2 * KB, 63 * KB), "cancel": CANCEL},
    "read": {"number": ANY, "cancel": CANCEL},
    "lose_the_device": {},
}  # fmt: skip
USUAL = [rule for rule in RULES if rule != "lose_the_device"] * 2  # more frequent than a lost device


def some(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> np.ndarray[Any, Any]:
    """Return values of any dtype, including every bit pattern."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(rng.bytes(count * kind.itemsize), kind).reshape(shape)


async def cancelled(make: Any, at: int) -> tuple[bool, Any]:
    """Run ``make()`` as a task that is cancelled at its ``at``-th wait. Gives (finished, result or None).

    The task may wait for work that it started, but it must end as cancelled.
    """
    work = make()
    waits = 0

    class Counted:
        def __await__(self) -> Any:
            nonlocal waits
            inner = work.__await__()
            try:
                value = None
                while True:
                    yielded = inner.send(value)
                    waits += 1
                    if waits == at:
                        yielded = inner.throw(asyncio.CancelledError())
                    value = yield yielded
            except StopIteration as done:
                assert at == 0 or waits < at, "the task continued after its cancellation"
                return done.value

    async def body() -> Any:
        return await Counted()

    try:
        return True, await asyncio.create_task(body())
    except asyncio.CancelledError:
        return False, None


def parts_of(whole: Any) -> list[Any]:
    """Return a tensor and its views."""
    return [whole, *whole.views.values()]


def consistent(manager: TensorSharingManager) -> None:
    """Assert the invariants of a manager."""
    registry, report = manager.registry, manager.report()
    entries = list(registry)
    assert manager.residency.used <= manager.residency.limit
    for entry in entries:
        assert registry.find(entry.storage.device, entry.storage.identity) is entry
        assert not entry.storage.in_use and not entry.storage.is_written
        assert entry.names or entry.registered, "an entry without a holder"
        assert entry.storage.nbytes == entry.spec.nbytes
        tensors = [tensor for tensor in manager.tensors.values() if tensor.entry is entry]
        names = {tensor.name for tensor in tensors}
        assert entry.registered == names and entry.pins <= names | {"test"}
        keys = {part.key for tensor in tensors for part in parts_of(tensor)}
        for held in entry.names.values():
            assert held, "a holder without an entry"
            assert {name for name in held if name.startswith(REGISTERED)} <= keys
    for name, tensor in manager.tensors.items():
        assert name == tensor.name and not tensor.is_freed
        assert registry.find(tensor.entry.storage.device, tensor.identity) is tensor.entry
        assert tensor.reference_count == len(tensor.holders) + sum(len(v.holders) for v in tensor.views.values())
    rows = {(row.device, row.identity): row for row in report.tensors}
    assert len(rows) == len(report.tensors) == len(entries)
    for entry in entries:  # the report is updated entry by entry
        row = rows[entry.storage.device.kind, entry.storage.identity]
        assert (row.name, row.holders, row.state) == (entry.name, tuple(entry.names), entry.storage.state)
    nbytes = {entry: entry.storage.nbytes for entry in entries}
    for model in report.models:
        held_by = [entry for entry in entries if model.name in entry.names]
        assert (
            model.total_bytes == sum(nbytes[entry] for entry in held_by) == model.exclusive_bytes + model.shared_bytes
        )
        assert model.exclusive_bytes == sum(nbytes[entry] for entry in held_by if len(entry.names) == 1)
    assert report.unique_weight_bytes == sum(nbytes.values())
    assert report.separate_weight_bytes == sum(nbytes[entry] * (len(entry.names) or 1) for entry in entries)
    total = sum(model.attributed_bytes for model in report.models) + report.unheld_bytes
    assert abs(total - report.by_category["weights"]) < 1e-3
    assert sum(report.by_category.values()) == report.device_bytes


@dataclass
class View:
    """The expected state of a view."""

    start: tuple[int, ...]
    size: tuple[int, ...]
    consumers: set[str] = field(default_factory=set)
    awaited: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)

    @property
    def window(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))


@dataclass(eq=False)
class Known:
    """The expected state of a tensor. ``value`` is ``None`` if it was lost with a device.

    ``content`` is the last content written as a whole, or ``None`` after a partial write; ``copied`` the tensor
    that it is a copy of, and its content at that time.
    """

    kind: str
    value: np.ndarray[Any, Any] | None
    shape: tuple[int, ...]
    dtype: str
    producer: str | None = None
    consumers: set[str] = field(default_factory=set)
    awaited: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    views: dict[str, View] = field(default_factory=dict)
    pinned: bool = False
    content: bytes | None = None
    copied: tuple[Known, bytes] | None = None

    @property
    def references(self) -> int:
        return len(self.holders) + sum(len(view.holders) for view in self.views.values())

    @property
    def is_free(self) -> bool:
        awaited = self.awaited or any(view.awaited for view in self.views.values())
        return not (self.references or self.pinned or awaited)


class World:
    """A manager on two devices, the model of it, and a method for each rule.

    ``megabytes`` converts usable bytes to a limit; ``lose`` loses the WebGPU device.
    """

    def __init__(
        self,
        manager: TensorSharingManager,
        megabytes: Callable[[int], float],
        lose: Callable[[], Awaitable[None]],
        check: Callable[[TensorSharingManager], None] = consistent,
    ) -> None:
        self.manager = manager
        self.megabytes = megabytes
        self.lose = lose
        self.check = check
        self.known: dict[str, Known] = {}
        self.told = 0
        self.stays: set[str] = set()  # pinned and on its device: it is not evicted
        manager.subscribe(self.hear)
        for name in "ab":  # twins on a device with asynchronous reads
            data = some((256,), "float32", 0)
            manager.register_shared_tensor(name, (256,), "webgpu", "m", ["n"], data=data)
            self._expect_register(name, "webgpu", TEXT, data, "m", ["n"])

    def hear(self, report: Any) -> None:
        """Check the invariants at each report, which follows a complete change."""
        self.told += 1
        assert report.device_bytes <= report.limit_bytes
        assert {row.identity for row in report.tensors} == {entry.storage.identity for entry in self.manager.registry}
        for entry in self.manager.registry:
            assert entry.names or entry.registered

    def close(self) -> None:
        """Release and free everything."""
        for tensor in self.manager.tensors.values():
            tensor.unpin()
        for model in MODELS:
            self.manager.release_model_tensors(model)
        self.manager.optimize_memory_usage()
        assert not self.manager.tensors and not len(self.manager.registry)

    async def step(self, rule: str, **arguments: Any) -> None:
        """Run one rule, and check everything after it."""
        if self.known or "number" not in arguments:
            await getattr(self, rule)(**arguments)
        await self.agree()

    def any_tensor(self, number: int) -> tuple[str, Known]:
        names = sorted(self.known)
        name = names[number % len(names)]
        return name, self.known[name]

    def any_view(self, number: int) -> tuple[str, Known, str, View] | None:
        pairs = [(name, view) for name in sorted(self.known) for view in sorted(self.known[name].views)]
        if not pairs:
            return None
        name, view = pairs[number % len(pairs)]
        return name, self.known[name], f"{name} {view}", self.known[name].views[view]

    def tensor(self, name: str) -> Any:
        return self.manager.tensors[name]

    # --- rules ---

    def _expect_register(
        self, name: str, kind: str, spec: Any, value: Any, producer: str | None, consumers: Sequence[str]
    ) -> Known:
        known = self.known.get(name)
        if known is None:
            known = self.known[name] = Known(kind, value, spec[0], spec[1], producer, content=value.tobytes())
        elif known.value is None and value is not None:
            known.value = value
        for other_name, other in self.known.items():  # registering the data again restores lost twins
            if other.value is None and value is not None and (other.kind, other.shape, other.dtype) == (kind, *spec):
                other.value = value if self.tensor(other_name).entry.storage.state != "lost" else None
        known.awaited |= set(consumers) - known.consumers
        known.consumers |= set(consumers)
        if producer is not None:
            known.producer = known.producer or producer
            known.consumers.add(producer)
            known.awaited.discard(producer)
            known.holders.add(producer)
        return known

    def _fits(self, name: str, kind: str, spec: Any, value: Any) -> bool:
        known = self.known.get(name)
        if known is None:
            return True
        if (known.kind, known.shape, known.dtype) != (kind, *spec):
            return False
        return value is None or known.content == value.tobytes()

    async def register(
        self, name: str, kind: str, spec: Any, seed: int, zeros: bool, producer: Any, consumers: Any, room: bool
    ) -> None:
        shape, dtype = spec
        data = None if zeros else some(shape, dtype, seed)
        try:
            if room:
                await self.manager.make_room(KB)
            tensor = self.manager.register_shared_tensor(
                name, shape, kind, producer, sorted(consumers), dtype=dtype, data=data
            )
        except MemoryBudgetError:
            return
        except TensorCommonsError:
            assert not self._fits(name, kind, spec, data)
            return
        assert self._fits(name, kind, spec, data)
        value = np.zeros(shape, dtype) if zeros and name not in self.known else data
        self._expect_register(name, kind, spec, value, producer, consumers)
        assert self.manager.get_shared_tensor(name) is tensor

    async def get(self, name: str, model: str | None) -> None:
        known = self.known.get(name)
        try:
            found = self.manager.get_shared_tensor(name, model)
        except NotAConsumer:
            assert known and model not in known.consumers
            return
        assert (found is None) == (known is None)
        if known and model is not None:
            assert model in known.consumers
            known.awaited.discard(model)
            known.holders.add(model)

    async def share(self, number: int, giver: str, taker: str) -> None:
        name, known = self.any_tensor(number)
        self._share(name, known, giver, taker)

    async def share_a_view(self, number: int, giver: str, taker: str) -> None:
        if found := self.any_view(number):
            self._share(found[2], found[3], giver, taker)

    def _share(self, name: str, part: Known | View, giver: str, taker: str) -> None:
        try:
            assert self.manager.share_tensor_between_models(name, giver, [taker])
        except NotAConsumer:
            assert giver not in part.holders
            return
        assert giver in part.holders
        part.awaited |= {taker} - part.consumers
        part.consumers.add(taker)

    async def view(self, number: int, view: str, inner: str, model: str | None, where: int) -> None:
        name, known = self.any_tensor(number)
        parent, base, shape = name, (0,) * len(known.shape), known.shape
        if inner in known.views:
            parent, base, shape = f"{name} {inner}", known.views[inner].start, known.views[inner].size
        if 0 in shape:
            return
        rng = np.random.default_rng(where)
        start = tuple(int(rng.integers(0, n)) for n in shape)
        size = tuple(int(rng.integers(1, n - a + 1)) for n, a in zip(shape, start, strict=True))
        try:
            self.manager.create_tensor_view(parent, f"{name} {view}", start, size, model)
        except TensorCommonsError:
            assert view in known.views
            return
        assert view not in known.views
        models = set() if model is None else {model}
        known.views[view] = View(
            tuple(a + b for a, b in zip(base, start, strict=True)), size, set(models), set(), set(models)
        )
        known.awaited -= models

    async def acquire_a_view(self, number: int, model: str) -> None:
        if found := self.any_view(number):
            name, known, view, part = found
            try:
                new = self.tensor(name).views[view].acquire(model)
            except NotAConsumer:
                assert model not in part.consumers | known.consumers
                return
            assert model in part.consumers | known.consumers and new == (model not in part.holders)
            part.holders.add(model)
            part.awaited.discard(model)
            known.awaited.discard(model)

    async def attempt(self, known: Known, make: Callable[[], Awaitable[Any]], cancel: int = 0) -> bool:
        """Run an operation that may be refused, be cancelled or have lost its bytes. True if it was done."""
        try:
            return (await cancelled(make, cancel))[0]
        except MemoryBudgetError:
            return False
        except DeviceLost:
            assert known.value is None
            return False

    async def write(self, number: int, seed: int, cancel: int) -> None:
        name, known = self.any_tensor(number)
        fresh = some(known.shape, known.dtype, seed)
        if await self.attempt(known, lambda: self.tensor(name).write(fresh), cancel):
            known.value, known.content = fresh, fresh.tobytes()

    async def write_through_a_view(self, number: int, seed: int, cancel: int) -> None:
        found = self.any_view(number)
        if found is None:
            return
        name, known, view, part = found
        fresh = some(part.size, known.dtype, seed)
        before = await self.peek(name) if known.value is not None else None
        done = await self.attempt(known, lambda: self.tensor(name).views[view].write(fresh), cancel)
        if done or self.tensor(name).entry.content is None:  # a partial write that began: the content is unknown
            known.content = None
        if known.value is None:
            return
        after = known.value.copy()
        after[part.window] = fresh
        if not done and await self.peek(name) != before:  # cancelled between two rows: each row is old or new
            mixed = np.frombuffer(await self.peek(name), known.dtype).reshape(known.shape)
            outside = np.ones(known.shape, bool)
            outside[part.window] = False
            assert mixed[outside].tobytes() == known.value[outside].tobytes()
            after = mixed.copy()
        elif not done:
            return
        known.value = after

    async def several_at_once(self, number: int, seed: int, other: int) -> None:
        """Write one tensor, read another and evict, concurrently."""
        (name, known), (second, read_of) = self.any_tensor(number), self.any_tensor(other)
        fresh = some(known.shape, known.dtype, seed)
        work: list[Any] = [self.tensor(name).write(fresh), self.tensor(second).read(), self.manager.make_room(KB)]
        wrote, read, _ = await asyncio.gather(*work, return_exceptions=True)
        allowed = [read_of.value]
        if wrote is None:
            allowed += [fresh] if second == name else []
            known.value, known.content = fresh, fresh.tobytes()
        else:
            assert isinstance(wrote, MemoryBudgetError | DeviceLost), wrote
        if isinstance(read, np.ndarray):
            assert any(value is not None and value.tobytes() == read.tobytes() for value in allowed)
        else:
            assert isinstance(read, MemoryBudgetError | DeviceLost), read

    async def copy(self, number: int, kind: str, cancel: int) -> None:
        name, known = self.any_tensor(number)
        if len(name) > 12:
            return
        spec, target = (known.shape, known.dtype), f"{name}_{kind}"
        copy = self.known.get(target)
        is_copy = copy is not None and copy.copied is not None and copy.copied[0] is known
        was_written = is_copy and copy.content != copy.copied[1]  # type: ignore[union-attr, index]
        fits = not was_written if is_copy else self._fits(target, kind, spec, known.value)
        try:
            done = await self.attempt(known, lambda: self.tensor(name).copy_to(kind), cancel)
        except TensorCommonsError:
            assert not fits
            return
        if done:
            assert fits and known.value is not None
            if copy is not None:
                copy.value, copy.content = known.value, known.value.tobytes()
            copy = self._expect_register(target, kind, spec, known.value, known.producer, sorted(known.consumers))
            copy.copied = (known, known.value.tobytes())
        elif is_copy and self.tensor(target).entry.content != self._content(copy):  # type: ignore[arg-type]
            raise AssertionError("a refused copy changed something")

    def _content(self, known: Known) -> str | None:
        if known.content is None:
            return None
        return content_identity(memoryview(known.content), known.shape, dtypes.as_dtype(known.dtype))

    async def pin(self, number: int, on: bool) -> None:
        name, known = self.any_tensor(number)
        try:
            (self.tensor(name).pin if on else self.tensor(name).unpin)()
        except MemoryBudgetError:
            assert on
            return
        known.pinned = on

    async def release(self, number: int, model: str, views: bool) -> None:
        name, known = self.any_tensor(number)
        assert self.tensor(name).release(model) == (model in known.holders)
        known.holders.discard(model)
        for view, part in known.views.items() if views else ():
            assert self.tensor(name).views[f"{name} {view}"].release(model) == (model in part.holders)
            part.holders.discard(model)

    async def release_model(self, model: str) -> None:
        parts = [part for known in self.known.values() for part in parts_of(known)]
        assert self.manager.release_model_tensors(model) == sum(model in part.holders for part in parts)
        for part in parts:
            part.holders.discard(model)
            part.awaited.discard(model)

    async def optimise(self) -> None:
        answer = self.manager.optimize_memory_usage()
        free = {name for name, known in self.known.items() if known.is_free}
        assert set(answer["freed_tensors"]) == free and answer["freed_memory_bytes"] >= 0
        for name in free:
            del self.known[name]
        assert answer["remaining_tensor_count"] == len(self.known)

    async def change_the_limit(self, limit: int, cancel: int) -> None:
        before, wanted = self.manager.limit_bytes, self.megabytes(limit)
        try:
            done, _ = await cancelled(lambda: self.manager.set_memory_limit(wanted), cancel)
        except MemoryBudgetError:
            done = False
        assert self.manager.limit_bytes == (int(wanted * 2**20) if done else before)

    async def make_room(self, nbytes: int, cancel: int) -> None:
        try:
            await cancelled(lambda: self.manager.make_room(nbytes), cancel)
        except MemoryBudgetError as error:
            sizes = [size for _, size in error.holders]
            assert sizes == sorted(sizes, reverse=True)

    async def read(self, number: int, cancel: int) -> None:
        name, known = self.any_tensor(number)
        try:
            done, value = await cancelled(self.tensor(name).read, cancel)
        except MemoryBudgetError:
            return
        except DeviceLost:
            assert known.value is None
            return
        assert not done or (known.value is not None and value.tobytes() == known.value.tobytes())

    async def lose_the_device(self) -> None:
        device = self.manager.devices.choose("webgpu")
        for name, known in self.known.items():
            storage = self.tensor(name).entry.storage
            if storage.device is device and storage.state == "resident" and storage.nbytes:
                known.value = None
        self.stays.clear()
        await self.lose()
        await device.recover()

    # --- invariants after each rule ---

    async def peek(self, name: str) -> bytes:
        """Return the bytes of a tensor without moving them."""
        storage = self.tensor(name).entry.storage
        if storage.state == "resident":
            return bytes(await storage.device.read(storage.handle, 0, storage.nbytes))
        assert storage.host_copy is not None, storage.state
        return b"".join(map(bytes, storage.host_copy))

    async def agree(self) -> None:
        self.check(self.manager)
        assert set(self.manager.tensors) == set(self.known)
        for name, known in self.known.items():
            tensor = self.tensor(name)
            assert (tensor.storage_type, tensor.shape, tensor.dtype.name) == (known.kind, known.shape, known.dtype)
            assert (set(tensor.holders), tensor.reference_count) == (known.holders, known.references)
            assert tensor.consumer_models == known.consumers and tensor.is_pinned == known.pinned
            assert tensor.awaited == known.awaited and tensor.can_be_freed() == known.is_free
            assert {view.split()[-1] for view in tensor.views} == set(known.views)
            for view, part in known.views.items():
                found = tensor.views[f"{name} {view}"]
                assert (set(found.holders), found.offset, found.shape) == (part.holders, part.start, part.size)
                assert (found.consumer_models, found.awaited) == (part.consumers, part.awaited)
            if known.value is None:
                assert tensor.entry.storage.state == "lost"
            else:
                assert await self.peek(name) == known.value.tobytes()
        pinned = {name for name, known in self.known.items() if known.pinned}
        here = {name for name in pinned if self.tensor(name).entry.storage.is_resident}
        assert self.stays & pinned <= here, "a pinned tensor was evicted"
        self.stays = here
