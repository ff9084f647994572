"""Random expressions and random calls of every op on the CPU device; Hypothesis shrinks failures."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcommons import open_devices
from tests.cases import conformance
from tests.cases.fuzz import check

pytestmark = pytest.mark.slow


@settings(max_examples=120)
@given(st.data())
def test_random_expressions(data):
    async def run():
        devices = await open_devices(prefer=["cpu"])
        await check(devices.opened[0], lambda low, high: data.draw(st.integers(low, high)))
        devices.close()

    asyncio.run(run())


@settings(max_examples=300)
@given(st.data())
def test_random_ops(data):
    async def run():
        devices = await open_devices(prefer=["cpu"])
        await conformance.one_at_random(devices.opened[0], lambda low, high: data.draw(st.integers(low, high)))
        devices.close()

    asyncio.run(run())
