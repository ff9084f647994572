"""Time limit of cases: results and errors pass through, and a hang is reported with the line that waits."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.cases.time_limit import within


async def unanswered() -> None:
    await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def opening():
    await unanswered()
    yield


async def inside_a_context() -> None:
    async with opening():
        pass


async def inside_another_task() -> None:
    await asyncio.gather(unanswered())


@pytest.mark.parametrize("work", [inside_a_context, inside_another_task])
async def test_a_hang_is_reported_with_the_line_that_waits(work):
    with pytest.raises(TimeoutError, match=rf"not done after 0.05 s(.|\n)*in {work.__name__}(.|\n)*in unanswered"):
        await within(0.05, work())
    assert len(asyncio.all_tasks()) == 1  # of this test


async def test_results_and_errors_pass_through():
    async def answer() -> int:
        return 3

    async def refuse() -> None:
        raise ValueError("no")

    assert await within(10, answer()) == 3
    with pytest.raises(ValueError, match="no"):
        await within(10, refuse())
