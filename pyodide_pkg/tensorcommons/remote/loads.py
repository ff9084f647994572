"""The models of a runtime: one that several users load is loaded once, and unloaded when its last user releases it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ..formats import BY_OPTION
from ..models.loading import from_pretrained
from ..models.model import Model
from ..sharing.manager import TensorSharingManager

Progress = Callable[[dict[str, Any]], None]


class Load:
    """A model that is loaded, or being loaded, with its users and their progress callbacks."""

    def __init__(self, work: asyncio.Task[Model], users: dict[Hashable, Progress | None]) -> None:
        self.work = work
        self.users = users


class Loads:
    """The models of ``manager`` by source and options. They are loaded one after another."""

    def __init__(self, manager: TensorSharingManager) -> None:
        self._manager = manager
        self._loads: dict[Hashable, Load] = {}
        self._turn = asyncio.Lock()  # the second of two models finds what the first one shares

    @property
    def models(self) -> list[Model]:
        """The loaded models."""
        works = [load.work for load in self._loads.values()]
        return [work.result() for work in works if work.done() and not work.cancelled() and not work.exception()]

    async def acquire(
        self, user: Hashable, source: str | Mapping[str, bytes], progress: Progress | None = None, **options: Any
    ) -> Model:
        """Load a model for ``user``, or wait for the load of an equal one; see ``from_pretrained``.

        A cancelled call releases the model; the load ends with its last user.
        """
        key: Hashable = object()
        if isinstance(source, str):
            dtype = options.get("dtype")
            form = BY_OPTION.get(dtype, dtype) if isinstance(dtype, str) else dtype
            more = {"precision": "fast", "cache_dtype": "float32", **options}
            key = source, form, repr(sorted((name, more[name]) for name in more.keys() - {"task", "dtype"}))
        load = self._loads.get(key)
        if load is None:
            users: dict[Hashable, Progress | None] = {}
            load = self._loads[key] = Load(asyncio.ensure_future(self._load(source, users, options)), users)
            load.work.add_done_callback(lambda work: self._ended(key, work))
        load.users[user] = progress
        try:
            return await asyncio.shield(load.work)
        except BaseException:
            await self._release(key, load, user)
            raise

    async def release(self, user: Hashable) -> None:
        """End the use of ``user``; a model without users is unloaded, and its load is cancelled."""
        for key, load in list(self._loads.items()):
            if user in load.users:
                await self._release(key, load, user)

    async def _release(self, key: Hashable, load: Load, user: Hashable) -> None:
        load.users.pop(user, None)
        if load.users or self._loads.get(key) is not load:
            return
        del self._loads[key]
        load.work.cancel()
        await asyncio.wait([load.work])
        if not load.work.cancelled() and load.work.exception() is None:
            load.work.result().unload()

    async def _load(
        self, source: str | Mapping[str, bytes], users: Mapping[Hashable, Progress | None], options: Mapping[str, Any]
    ) -> Model:
        def report(event: dict[str, Any]) -> None:
            for progress in list(users.values()):
                if progress is not None:
                    progress(event)

        async with self._turn:
            return await from_pretrained(source, manager=self._manager, progress_callback=report, **options)

    def _ended(self, key: Hashable, work: asyncio.Task[Model]) -> None:
        failed = work.cancelled() or work.exception() is not None
        if failed and key in self._loads and self._loads[key].work is work:
            del self._loads[key]
