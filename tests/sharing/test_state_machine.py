"""Everything a manager can be asked, in any order, against a model of it in plain Python.

The model knows values, holders, grants, views and pins by name. It knows no storages: that twins share bytes, that a
write parts them, that bytes leave and come back must not be visible in it at all.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tensorcommons.errors import DeviceLost, MemoryBudgetError, NotAConsumer, TensorCommonsError
from tests.sharing.devices import backends, budget, check, empty, manager_on, some, steps_of

KB = 1024
KINDS = ("cpu", "webgpu")
NAMES = st.sampled_from("abcd")
VIEWS = st.sampled_from(["v0", "v1", "v2"])
MODELS = st.sampled_from(["m", "n", "o"])
SPECS = st.sampled_from(
    [
        ((256,), "float32"),
        ((256,), "float32"),
        ((256,), "float32"),
        ((16, 16), "int32"),
        ((9, 7), "int8"),
        ((5, 3), "float16"),
        ((), "bool"),
        ((0, 2), "uint8"),
    ]
)
SEEDS = st.integers(0, 1)
LIMITS = st.sampled_from([2 * KB, 3 * KB, 5 * KB])
STEPS = 100
CANCEL = st.sampled_from([0, 0, 0, 1, 2, 3])


@dataclass
class View:
    start: tuple[int, ...]
    size: tuple[int, ...]
    holders: set[str] = field(default_factory=set)

    @property
    def window(self):
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))


@dataclass
class Known:
    kind: str
    value: np.ndarray | None  # None: it went with a lost device
    shape: tuple[int, ...]
    dtype: str
    producer: str | None = None
    consumers: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    views: dict[str, View] = field(default_factory=dict)
    pinned: bool = False

    @property
    def references(self) -> int:
        return len(self.holders) + sum(len(view.holders) for view in self.views.values())


class Sharing(RuleBasedStateMachine):
    @initialize(limit=LIMITS)
    def start(self, limit):
        self.loop = asyncio.new_event_loop()
        self.manager = manager_on(*KINDS, limit=limit)
        self.known: dict[str, Known] = {}
        self.told = 0
        self.manager.subscribe(self.hear)
        for name in "ab":  # twins on a device where a read waits
            data = some((256,), "float32", 0)
            self.manager.register_shared_tensor(name, (256,), "webgpu", "m", ["n"], data=data)
            self.expect_register(name, "webgpu", ((256,), "float32"), data, "m", ["n"])

    def hear(self, report):
        """A report comes when a change is complete: everything holds already."""
        self.told += 1
        assert report.device_bytes <= report.limit_bytes
        assert {row.identity for row in report.tensors} == {entry.storage.identity for entry in self.manager.registry}
        for entry in self.manager.registry:
            assert entry.names or entry.registered

    def wait(self, make, cancel=0):
        """The result of ``make()``, or ``None`` if it was cancelled at its ``cancel``-th wait."""
        return self.loop.run_until_complete(steps_of(make, cancel_at=cancel))

    def any_tensor(self, number):
        names = sorted(self.known)
        return names[number % len(names)]

    # --- rules ---

    def expect_register(self, name, kind, spec, value, producer, consumers):
        known = self.known.get(name)
        if known is None:
            known = self.known[name] = Known(kind, value, spec[0], spec[1], producer)
        elif known.value is None and value is not None:
            known.value = value
        for other in self.known.values():  # data that is given again brings lost twins back
            if other.value is None and value is not None and (other.kind, other.shape, other.dtype) == (kind, *spec):
                entry = self.manager.tensors[self.name_of(other)].entry
                other.value = value if entry.storage.state != "lost" else None
        known.consumers |= set(consumers)
        if producer is not None:
            known.producer = known.producer or producer
            known.consumers.add(producer)
            known.holders.add(producer)

    def name_of(self, known):
        return next(name for name, each in self.known.items() if each is known)

    def fits(self, name, kind, spec, value):
        known = self.known.get(name)
        if known is None:
            return True
        if (known.kind, known.shape, known.dtype) != (kind, *spec):
            return False
        return value is None or known.value is None or known.value.tobytes() == value.tobytes()

    @rule(
        name=NAMES, kind=st.sampled_from(KINDS), spec=SPECS, seed=SEEDS, zeros=st.sampled_from([False, False, True]),
        producer=st.none() | MODELS, consumers=st.sets(MODELS, max_size=2), room=st.booleans(),
    )  # fmt: skip
    def register(self, name, kind, spec, seed, zeros, producer, consumers, room):
        shape, dtype = spec
        data = None if zeros else some(shape, dtype, seed)
        lost = name in self.known and self.known[name].value is None
        try:
            if room:
                self.wait(lambda: self.manager.make_room(KB))
            tensor = self.manager.register_shared_tensor(
                name, shape, kind, producer, sorted(consumers), dtype=dtype, data=data
            )
        except MemoryBudgetError:
            return
        except TensorCommonsError:
            assert lost or not self.fits(name, kind, spec, data)
            return
        assert self.fits(name, kind, spec, data)
        value = np.zeros(shape, dtype) if zeros and name not in self.known else data
        self.expect_register(name, kind, spec, value, producer, consumers)
        assert self.manager.get_shared_tensor(name) is tensor

    @rule(name=NAMES, model=st.none() | MODELS)
    def get(self, name, model):
        known = self.known.get(name)
        try:
            found = self.manager.get_shared_tensor(name, model)
        except NotAConsumer:
            assert known and model not in known.consumers
            return
        assert (found is None) == (known is None)
        if known and model is not None:
            assert model in known.consumers
            known.holders.add(model)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), giver=MODELS, taker=MODELS)
    def share(self, number, giver, taker):
        name = self.any_tensor(number)
        known = self.known[name]
        try:
            assert self.manager.share_tensor_between_models(name, giver, [taker])
        except NotAConsumer:
            assert giver not in known.holders
            return
        assert giver in known.holders
        known.consumers.add(taker)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), view=VIEWS, inner=VIEWS, model=st.none() | MODELS, data=st.data())
    def view(self, number, view, inner, model, data):
        name = self.any_tensor(number)
        known = self.known[name]
        parent, base, shape = name, (0,) * len(known.shape), known.shape
        if inner in known.views:
            parent, base, shape = f"{name} {inner}", known.views[inner].start, known.views[inner].size
        if 0 in shape:
            return
        start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
        size = tuple(data.draw(st.integers(1, n - a)) for n, a in zip(shape, start, strict=True))
        try:
            self.manager.create_tensor_view(parent, f"{name} {view}", start, size, model)
        except TensorCommonsError:
            assert view in known.views
            return
        assert view not in known.views
        where = tuple(a + b for a, b in zip(base, start, strict=True))
        known.views[view] = View(where, size, set() if model is None else {model})

    def attempt(self, known, make, cancel=0):
        """Run what may be refused, cancelled or have lost its bytes. True if it was done."""
        try:
            return self.wait(make, cancel)[0]
        except MemoryBudgetError:
            return False
        except DeviceLost:
            assert known.value is None
            return False

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), seed=SEEDS, cancel=CANCEL)
    def write(self, number, seed, cancel):
        name = self.any_tensor(number)
        known = self.known[name]
        fresh = some(known.shape, known.dtype, seed)
        if self.attempt(known, lambda: self.manager.tensors[name].write(fresh), cancel):
            known.value = fresh

    @precondition(lambda self: any(known.views for known in self.known.values()))
    @rule(number=st.integers(0, 9), seed=SEEDS, cancel=CANCEL)
    def write_through_a_view(self, number, seed, cancel):
        pairs = [(name, view) for name in sorted(self.known) for view in sorted(self.known[name].views)]
        name, view = pairs[number % len(pairs)]
        known = self.known[name]
        part = known.views[view]
        fresh = some(part.size, known.dtype, seed)
        before = self.peek(name) if known.value is not None else None
        done = self.attempt(known, lambda: self.manager.tensors[name].views[f"{name} {view}"].write(fresh), cancel)
        if known.value is None:
            return
        after = known.value.copy()
        after[part.window] = fresh
        if not done and self.peek(name) != before:  # cancelled between two rows: each is the old or the new one
            mixed = np.frombuffer(self.peek(name), known.dtype).reshape(known.shape)
            outside = np.ones(known.shape, bool)
            outside[part.window] = False
            assert mixed[outside].tobytes() == known.value[outside].tobytes()
            after = mixed.copy()
        elif not done:
            return
        known.value = after

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), seed=SEEDS, other=st.integers(0, 9))
    def several_at_once(self, number, seed, other):
        """A write, a read of another and an eviction, together."""
        name, second = self.any_tensor(number), self.any_tensor(other)
        known = self.known[name]
        fresh = some(known.shape, known.dtype, seed)

        async def together():
            return await asyncio.gather(
                self.manager.tensors[name].write(fresh),
                self.manager.tensors[second].read(),
                self.manager.make_room(KB),
                return_exceptions=True,
            )

        _, (wrote, read, _room) = self.wait(together)
        if wrote is None:
            old, known.value = known.value, fresh
        else:
            old = known.value
            assert isinstance(wrote, MemoryBudgetError | DeviceLost)
        if isinstance(read, np.ndarray):
            allowed = [self.known[second].value, *([old, fresh] if second == name else [])]
            assert any(value is not None and value.tobytes() == read.tobytes() for value in allowed)
        else:
            assert isinstance(read, MemoryBudgetError | DeviceLost)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), kind=st.sampled_from(KINDS), cancel=CANCEL)
    def copy(self, number, kind, cancel):
        name = self.any_tensor(number)
        known = self.known[name]
        if len(name) > 12:
            return
        spec = (known.shape, known.dtype)
        target = f"{name}_{kind}"
        fits = self.fits(target, kind, spec, known.value)
        try:
            done = self.attempt(known, lambda: self.manager.tensors[name].copy_to(kind), cancel)
        except TensorCommonsError:
            assert not fits or self.known[target].value is None
            return
        if done:
            assert fits
            self.expect_register(target, kind, spec, known.value, known.producer, known.consumers)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), on=st.booleans())
    def pin(self, number, on):
        name = self.any_tensor(number)
        (self.manager.tensors[name].pin if on else self.manager.tensors[name].unpin)()
        self.known[name].pinned = on

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), model=MODELS, again=st.booleans())
    def release(self, number, model, again):
        name = self.any_tensor(number)
        known = self.known[name]
        assert self.manager.tensors[name].release(model) == (model in known.holders)
        known.holders.discard(model)
        for view in known.views:
            if again:
                assert self.manager.tensors[name].views[f"{name} {view}"].release(model) == (
                    model in known.views[view].holders
                )
                known.views[view].holders.discard(model)

    @rule(model=MODELS)
    def release_model(self, model):
        held = sum(
            (model in k.holders) + sum(model in v.holders for v in k.views.values()) for k in self.known.values()
        )
        assert self.manager.release_model_tensors(model) == held
        for known in self.known.values():
            known.holders.discard(model)
            for view in known.views.values():
                view.holders.discard(model)

    @rule()
    def optimise(self):
        answer = self.manager.optimize_memory_usage()
        free = {name for name, known in self.known.items() if not known.references and not known.pinned}
        assert set(answer["freed_tensors"]) == free and answer["freed_memory_bytes"] >= 0
        for name in free:
            del self.known[name]
        assert answer["remaining_tensor_count"] == len(self.known)

    @rule(limit=LIMITS, cancel=CANCEL)
    def change_the_limit(self, limit, cancel):
        before = self.manager.limit_bytes
        try:
            done, _ = self.wait(lambda: self.manager.set_memory_limit(budget(limit, *KINDS)), cancel)
        except MemoryBudgetError:
            done = False
        assert self.manager.limit_bytes == (int(budget(limit, *KINDS) * 2**20) if done else before)

    @rule(nbytes=st.sampled_from([KB, 2 * KB, 63 * KB]), cancel=CANCEL)
    def make_room(self, nbytes, cancel):
        try:
            self.wait(lambda: self.manager.make_room(nbytes), cancel)
        except MemoryBudgetError as error:
            sizes = [size for _, size in error.holders]
            assert sizes == sorted(sizes, reverse=True)

    @precondition(lambda self: self.known)
    @rule(number=st.integers(0, 9), cancel=CANCEL)
    def read(self, number, cancel):
        name = self.any_tensor(number)
        known = self.known[name]
        try:
            done, value = self.wait(self.manager.tensors[name].read, cancel)
        except MemoryBudgetError:
            return
        except DeviceLost:
            assert known.value is None
            return
        assert not done or (known.value is not None and value.tobytes() == known.value.tobytes())

    @rule()
    def lose_the_device(self):
        device = self.manager.devices.choose("webgpu")
        for name, known in self.known.items():
            storage = self.manager.tensors[name].entry.storage
            if storage.device is device and storage.state == "resident" and storage.nbytes:
                known.value = None
        backends(self.manager)[1].lose()
        self.wait(device.recover)

    # --- what must hold after each ---

    def peek(self, name):
        """The bytes of a tensor wherever they are, without moving them."""
        storage = self.manager.tensors[name].entry.storage
        if storage.state == "resident":
            (backend,) = (each for each in backends(self.manager) if each is storage.device.backend)
            return backend._bytes[storage._handle].tobytes()
        assert storage.state == "offloaded" and storage._host is not None, storage.state
        return bytes(storage._host)

    @invariant()
    def it_agrees(self):
        if not hasattr(self, "manager"):
            return
        check(self.manager)
        assert set(self.manager.tensors) == set(self.known)
        for name, known in self.known.items():
            tensor = self.manager.tensors[name]
            assert (tensor.storage_type, tensor.shape, tensor.dtype.name) == (known.kind, known.shape, known.dtype)
            assert (set(tensor.holders), tensor.reference_count) == (known.holders, known.references)
            assert tensor.consumer_models == known.consumers and tensor.is_pinned == known.pinned
            assert {view.split()[-1] for view in tensor.views} == set(known.views)
            for view, part in known.views.items():
                found = tensor.views[f"{name} {view}"]
                assert (set(found.holders), found.offset, found.shape) == (part.holders, part.start, part.size)
            if known.value is None:
                assert tensor.entry.storage.state == "lost"
            else:
                assert self.peek(name) == known.value.tobytes()

    def teardown(self):
        if hasattr(self, "manager"):
            empty(self.manager, ["m", "n", "o"])
            self.loop.close()


def test_any_order_of_everything():
    examples = int(os.environ.get("TENSORCOMMONS_EXAMPLES", "60"))
    run_state_machine_as_test(
        Sharing,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="TENSORCOMMONS_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=(Phase.generate,),  # shrinking a failure takes minutes; drop this line to have it
        ),
    )
