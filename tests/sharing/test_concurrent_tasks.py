"""Many tasks at once, under the rules of a GPU: reads wait, models move to another device and back."""

from __future__ import annotations

import os

import pytest

from tensorcommons import Device, Devices
from tests.cases import Place
from tests.cases.concurrent_tasks import run_seeds
from tests.models.server import TINY
from tests.sharing.devices import Backend

KINDS = (("cpu",), ("webgpu",), ("webgpu", "cpu"))


def place_of(kinds: tuple[str, ...]) -> Place:
    return Place(Devices([Device(Backend(kind)) for kind in kinds], {}), "", str(TINY), "", str(TINY))


@pytest.mark.slow
async def test_tasks_that_come_and_go() -> None:
    await run_seeds(place_of(("webgpu", "cpu")), range(2), rounds=2)


@pytest.mark.long
@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
async def test_many_orders(kinds: tuple[str, ...]) -> None:
    await run_seeds(place_of(kinds), range(int(os.environ.get("TENSORCOMMONS_EXAMPLES", "40"))), rounds=4)
