"""Many concurrent tasks under a small limit: models that run, load, unload and move, tensors that are computed, written
and donated, and cancellations at any point.

The order is drawn from a seed. Each task gets the correct result or an error of the package with a reason, and
afterwards nothing is left on the device.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.errors import MemoryBudgetError, TensorReleased
from tests.cases import Place
from tests.cases.checkpoints import WEIGHTS, files_of, pack, tensors_of
from tests.cases.harness import let_go

MB = 2**20
TASKS = 50
IDS = {
    "input_ids": np.array([[2, 17, 31, 5, 3], [2, 9, 9, 3, 0]]),
    "attention_mask": np.array([[1] * 5, [1] * 4 + [0]]),
}
ALLOWED = (MemoryBudgetError, TensorReleased)


class TaskMix:
    """One manager with some checkpoints, two of which share weights, and the operations of tasks."""

    def __init__(
        self, place: Place, sources: Mapping[str, Mapping[str, bytes]], wanted: Mapping[tuple[str, str], Any], seed: int
    ):
        self.place = place
        self.sources = sources
        self.wanted = wanted
        self.random = random.Random(seed)
        worth = max(sum(map(len, (source[WEIGHTS],))) for source in sources.values())
        self.room = worth * self.random.choice((1.3, 1.7, 2.4)) / MB
        self.manager = place.manager(self.room + 0.2)
        self.models: dict[str, tc.Model] = {}
        self.refused = self.done = self.cancelled = 0
        self.cache = tc.compile(
            lambda cache, update, at: tc.kv_cache_append(cache, update, at), donate_argnames=["cache"]
        )

    async def load(self) -> None:
        name = self.random.choice(sorted(self.sources))
        if name in self.models:
            self.models.pop(name).unload()
        model = await tc.from_pretrained(
            self.sources[name], manager=self.manager, device=self.place.device, tokenizer=False
        )
        if name in self.models:
            model.unload()
        else:
            self.models[name] = model

    async def call(self) -> None:
        if not self.models:
            return await self.load()
        name = self.random.choice(sorted(self.models))
        answer = await self.models[name](**IDS, outputs=("last_hidden_state",))
        if self.random.random() < 0.8:
            await self.check(name, answer)
        return None

    async def check(self, name: str, answer: Mapping[str, tc.Tensor]) -> None:
        """Assert that the result has the bits of its device, because the model may have moved."""
        result = answer["last_hidden_state"]
        assert result.device is not None
        assert np.array_equal(await result.read(), self.wanted[name, result.device.kind]), name

    async def together(self) -> None:
        names = self.random.sample(sorted(self.models), min(2, len(self.models)))
        calls = [(self.models[name], IDS) for name in names]
        answers = await self.manager.run_together(calls, [("last_hidden_state",)] * len(calls))
        for name, answer in zip(names, answers, strict=True):
            await self.check(name, answer)

    async def unload(self) -> None:
        if self.models:
            self.models.pop(self.random.choice(sorted(self.models))).unload()

    async def move(self) -> None:
        if self.models:
            name = self.random.choice(sorted(self.models))
            await self.models[name].to(self.random.choice(self.place.devices.opened))

    async def compute(self) -> None:
        array = np.arange(self.random.choice((3, 700, 5000)), dtype=np.float32)
        x = tc.asarray(array, device=self.place.device)
        y = await (x * 2 + 1).realize()
        if self.random.random() < 0.3:
            x.release()
            z = y
        else:
            z = y - x
        got = await z.read()
        assert np.array_equal(got, array * 2 + 1 if z is y else array + 1)

    async def append(self) -> None:
        """Append to a cache that grows in place, donated by each call."""
        device = self.place.device
        cache = tc.asarray(np.zeros((1, 2, 16, 32), np.float32), device=device)
        for step in range(4):
            update = tc.asarray(np.full((1, 2, 1, 32), step + 1, np.float32), device=device)
            cache = await self.cache(cache, update, np.array([step], np.int32))
        got = (await cache.read())[0, :, :, 0]
        assert np.array_equal(got, np.tile([1, 2, 3, 4] + [0] * 12, (2, 1)).astype(np.float32)), got

    async def share(self) -> None:
        name, values = f"shared{self.random.randrange(4)}", self.random.randrange(3)
        if name not in self.manager.tensors:
            self.manager.register_shared_tensor(name, (600,), self.place.device.kind, "m", ["m"])
        tensor = self.manager.tensors[name]
        if self.random.random() < 0.5:
            await tensor.write(np.full(600, values, np.float32))
        else:
            got = await tensor.read()
            assert len(set(got.tolist())) == 1, "a read returned a partial write"

    async def squeeze(self) -> None:
        if self.random.random() < 0.5:
            self.manager.optimize_memory_usage()
        else:
            await self.manager.make_room(int(self.room * MB * self.random.random() * 0.8))

    async def limit(self) -> None:
        await self.manager.set_memory_limit(self.room + 0.2 * self.random.random())

    def actions(self) -> list[Callable[[], Awaitable[None]]]:
        moving = [self.move] if len(self.place.devices.opened) > 1 else []
        often = [self.call] * 6 + [self.compute] * 3 + [self.together] * 2
        return [*often, self.load, self.unload, self.append, self.share, self.squeeze, self.limit, *moving]

    async def attempt(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
            self.done += 1
        except ALLOWED as refusal:
            self.refused += 1
            traceback.clear_frames(refusal.__traceback__)

    async def task(self, rounds: int) -> None:
        for _ in range(rounds):
            action = asyncio.ensure_future(self.attempt(self.random.choice(self.actions())))
            if self.random.random() < 0.25:
                for _ in range(self.random.choice((0, 1, 3, 10, 40))):
                    await asyncio.sleep(0)
                action.cancel()
            try:
                await action
            except asyncio.CancelledError:
                self.cancelled += 1
            for _ in range(self.random.randrange(3)):
                await asyncio.sleep(0)

    async def run(self, rounds: int) -> None:
        await asyncio.gather(*(self.task(rounds) for _ in range(TASKS)))

    async def end(self) -> None:
        for model in self.models.values():
            model.unload()
        self.models.clear()
        self.manager.release_model_tensors("m")
        self.manager.optimize_memory_usage()
        await let_go()
        assert not self.manager.models and not len(self.manager.registry), self.manager.report()


async def _prepare(place: Place) -> tuple[dict[str, dict[str, bytes]], dict[tuple[str, str], Any]]:
    """Make checkpoints by name, and their results alone and without a limit, by name and device."""
    files = files_of(place, "tiny-bert")
    tensors = tensors_of(files)
    sources = {"first": files, "twin": dict(files)}
    for n in (1, 2):
        changed = {name: array * np.float32(1 + n / 64) + np.float32(n / 512) for name, array in tensors.items()}
        sources[f"other{n}"] = {**files, WEIGHTS: pack(changed)}
    manager, wanted = place.manager(1024), dict[tuple[str, str], Any]()
    for name, source in sources.items():
        for device in place.devices.opened:
            model = await tc.from_pretrained(source, manager=manager, device=device, tokenizer=False)
            answer = await model(**IDS, outputs=("last_hidden_state",))
            wanted[name, device.kind] = await answer["last_hidden_state"].read()
            model.unload()
    return sources, wanted


async def run_seeds(place: Place, seeds: range, rounds: int) -> None:
    """Run the seeds; a failure names its seed."""
    sources, wanted = await _prepare(place)
    for seed in seeds:
        mix = TaskMix(place, sources, wanted, seed)
        try:
            await mix.run(rounds)
            await mix.end()
        except BaseException as error:
            error.add_note(f"seed {seed}: {mix.done} done, {mix.refused} refused, {mix.cancelled} cancelled")
            raise
        assert mix.done > mix.refused, (mix.done, mix.refused)


async def tasks_that_come_and_go(place: Place) -> None:
    """Run a few orders; ``make long`` runs many."""
    await run_seeds(place, range(1), rounds=2)
