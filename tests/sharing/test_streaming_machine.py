"""Models larger than the limit, in any order of runs, limits, pins, moves, cancels and losses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import tensorcommons as tc
from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons.errors import DeviceLost, MemoryBudgetError
from tests.cases.rules import cancelled
from tests.sharing.devices import MB, backends, budget, empty, manager_on

STEPS = 25
KINDS = ("webgpu", "cpu")
BASE = "bert-base,layers=4,hidden_size=32,num_attention_heads=2,intermediate_size=64,vocab_size=300"
BASE += ",max_position_embeddings=32,deviation=0.3"
RECIPES = (BASE, f"{BASE},seed=1,own=layer.3", f"{BASE},seed=2")  # the second has most weights in common with the first
FILES = {recipe: RandomCheckpoint(recipe).files() for recipe in RECIPES}
WORTH = RandomCheckpoint(BASE).nbytes
INPUTS = tuple({"input_ids": np.arange(start, start + 8)[None]} for start in (1, 40))
SHARES = (0.45, 0.6, 0.8, 1.1, 1.5, 3.0)  # relative to the bytes of one model
PART = WORTH // 8  # bytes of another tensor
SLACK = 24 * 1024  # bytes of the largest part that least_need does not count: staging, uniforms, rounding
NUMBERS = st.sampled_from(range(3))
CANCEL = st.sampled_from((0, 0, 0, 1, 3, 10, 40))
Bits = dict[str, bytes]
KNOWN: dict[tuple[str, int], Bits] = {}


async def bits(model: Any, number: int) -> Bits:
    return {name: (await tensor.read()).tobytes() for name, tensor in (await model(**INPUTS[number])).items()}


async def learn() -> None:
    """Compute the bits of every model for every input, without a limit."""
    manager = manager_on(*KINDS)
    for recipe in RECIPES:
        model = await tc.from_pretrained(FILES[recipe], manager=manager, device="webgpu", tokenizer=False)
        for number in range(len(INPUTS)):
            KNOWN[recipe, number] = await bits(model, number)
        model.unload()
    manager.close()


def checked(step: Callable[..., None]) -> Callable[..., None]:
    """Make a rule after which all invariants are checked."""

    @wraps(step)
    def with_check(self, **arguments):
        step(self, **arguments)
        self.check()

    return with_check


class Streaming(RuleBasedStateMachine):
    @initialize(share=st.sampled_from(SHARES), cache=st.booleans())
    def start(self, share, cache):
        self.loop = asyncio.new_event_loop()
        if not KNOWN:
            self.loop.run_until_complete(learn())
        self.manager = manager_on(*KINDS, limit=int(WORTH * share))
        self.manager.activations.share = 0.25 if cache else 0.0
        self.models: dict[str, Any] = {}
        self.values: list[Any] = []
        self.pinned = 0
        for number in range(2):
            self.load(number, "webgpu", 0)

    def check(self):
        """Assert after every rule that each model gives its bits, or an error that names the obstacles."""
        for number in range(len(self.models)):
            self.run_one(number, 0, 0)

    def do(self, work):
        return self.loop.run_until_complete(work)

    def allowed(self, need):
        """Return True if a run of ``need`` bytes may be refused: pinned and used tensors leave less than that."""
        held = self.pinned * PART + sum(value.spec.nbytes for value in self.values)
        return self.manager.residency.usable - held < need + SLACK

    def need(self, model, number):
        return model.least_need(INPUTS[number]).nbytes

    def any_model(self, number):
        names = sorted(self.models)
        return self.models[names[number % len(names)]] if names else None

    @rule(number=NUMBERS, kind=st.sampled_from(KINDS), cancel=CANCEL)
    @checked
    def load_one(self, number, kind, cancel):
        self.load(number, kind, cancel)

    def load(self, number, kind, cancel):
        recipe = RECIPES[number]
        if recipe in self.models:
            return

        def work():
            return tc.from_pretrained(FILES[recipe], manager=self.manager, device=kind, tokenizer=False)

        try:
            done, model = self.do(cancelled(work, cancel))
        except MemoryBudgetError:
            assert self.allowed(WORTH // 4)
            return
        if done:
            self.models[recipe] = model

    @rule(number=NUMBERS)
    @checked
    def unload(self, number):
        model = self.any_model(number)
        if model is not None:
            model.unload()
            self.models = {recipe: each for recipe, each in self.models.items() if each is not model}

    @rule(number=NUMBERS, inputs=st.sampled_from(range(len(INPUTS))), cancel=CANCEL)
    @checked
    def run(self, number, inputs, cancel):
        self.run_one(number, inputs, cancel)

    def run_one(self, number, inputs, cancel):
        model = self.any_model(number)
        if model is None:
            return
        (recipe,) = (recipe for recipe, each in self.models.items() if each is model)
        try:
            done, found = self.do(cancelled(lambda: bits(model, inputs), cancel))
        except MemoryBudgetError:
            assert self.allowed(self.need(model, inputs))
            return
        assert not done or found == KNOWN[recipe, inputs]

    @rule(inputs=st.sampled_from(range(len(INPUTS))))
    @checked
    def run_all_at_once(self, inputs):
        models = dict(self.models)
        work = [bits(model, inputs) for model in models.values()]

        async def together():
            return await asyncio.gather(*work, return_exceptions=True)

        for recipe, found in zip(models, self.do(together()), strict=True):
            if isinstance(found, MemoryBudgetError):
                # The values between the parts of the other runs count, too.
                assert len(models) > 1 or self.allowed(self.need(models[recipe], inputs))
            else:
                assert found == KNOWN[recipe, inputs], found

    @rule(inputs=st.sampled_from(range(len(INPUTS))))
    @checked
    def run_together(self, inputs):
        calls = [(model, INPUTS[inputs]) for model in self.models.values()]
        try:
            answers = self.do(self.manager.run_together(calls))
        except MemoryBudgetError:
            return
        for recipe, answer in zip(self.models, answers, strict=True):
            try:
                found = {name: self.do(tensor.read()).tobytes() for name, tensor in answer.items()}
            except MemoryBudgetError:
                continue
            assert found == KNOWN[recipe, inputs]

    @rule(share=st.sampled_from(SHARES), cancel=CANCEL)
    @checked
    def change_the_limit(self, share, cancel):
        wanted = budget(int(WORTH * share), *KINDS)
        before = self.manager.limit_bytes
        try:
            done, _ = self.do(cancelled(lambda: self.manager.set_memory_limit(wanted), cancel))
        except MemoryBudgetError:
            done = False
        assert self.manager.limit_bytes == (int(wanted * MB) if done else before)

    @rule(share=st.sampled_from(SHARES), inputs=st.sampled_from(range(len(INPUTS))))
    @checked
    def change_the_limit_under_a_run(self, share, inputs):
        models, wanted = dict(self.models), budget(int(WORTH * share), *KINDS)

        async def both():
            runs = [asyncio.ensure_future(bits(model, inputs)) for model in models.values()]
            await asyncio.sleep(0)
            await asyncio.gather(self.manager.set_memory_limit(wanted), return_exceptions=True)
            return await asyncio.gather(*runs, return_exceptions=True)

        for recipe, found in zip(models, self.do(both()), strict=True):
            assert isinstance(found, MemoryBudgetError) or found == KNOWN[recipe, inputs], found

    @rule(number=NUMBERS, on=st.booleans())
    @checked
    def pin(self, number, on):
        name = f"pinned {number}"
        tensor = self.manager.get_shared_tensor(name)
        if tensor is None and on:
            data = np.full(PART // 4, number + 1, np.float32)
            try:
                self.do(self.manager.make_room(PART))
                tensor = self.manager.register_shared_tensor(name, data.shape, "webgpu", "other", data=data)
            except (MemoryBudgetError, DeviceLost):
                return
        if tensor is None:
            return
        before = tensor.is_pinned
        try:
            (tensor.pin if on else tensor.unpin)()
        except MemoryBudgetError:
            return
        self.pinned += on - before

    @rule(on=st.booleans(), kind=st.sampled_from(KINDS))
    @checked
    def use_a_value(self, on, kind):
        if not on:
            self.values.clear()
            return
        device = next(each for each in self.manager.devices.opened if each.kind == kind)
        with suppress(MemoryBudgetError, DeviceLost):
            self.do(self.manager.make_room(PART))
            self.values.append(self.do(tc.ones((PART // 4,), device=device).realize()))

    @rule(number=NUMBERS, kind=st.sampled_from(KINDS), cancel=CANCEL)
    @checked
    def move(self, number, kind, cancel):
        model = self.any_model(number)
        if model is None:
            return
        with suppress(MemoryBudgetError):
            self.do(cancelled(lambda: model.to(kind), cancel))

    @rule(every=st.sampled_from((1, 2)))
    @checked
    def nothing_stores_some(self, every):
        """Remove their origins, so that from now on these have to be read back before their eviction."""
        for entry in list(self.manager.registry)[::every]:
            if entry.storage.is_resident:
                entry.storage.origin = None

    @rule()
    @checked
    def lose_the_device(self):
        if any(value.device.kind == "webgpu" for value in self.values):
            self.values.clear()
        for model in self.models.values():  # bytes that exist only on the device would be lost
            if any(e.storage.origin is None for e in self.manager.registry if model.name in e.names):
                return
        if any(tensor.entry.storage.is_resident for tensor in self.manager.tensors.values()):
            return
        backends(self.manager)[0].lose()

    def teardown(self):
        if not hasattr(self, "manager"):
            return
        self.values.clear()
        for model in self.models.values():
            model.unload()
        report = self.manager.report()
        assert report.peak_bytes <= max(int(budget(int(WORTH * share), *KINDS) * MB) for share in SHARES)
        device = self.manager.devices.choose("webgpu")
        if device.backend.is_lost:
            self.do(device.recover())
        self.models.clear()
        empty(self.manager, ["other"])
        self.loop.close()


def test_any_order_of_runs_limits_pins_and_moves():
    run_state_machine_as_test(
        Streaming,
        settings=settings(
            max_examples=int(os.environ.get("TENSORCOMMONS_EXAMPLES", "6")),
            stateful_step_count=STEPS,
            derandomize="TENSORCOMMONS_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=(Phase.generate,),  # shrinking a failure takes minutes; remove this line to enable it
        ),
    )
