"""Replies of JavaScript, which continue the task that waits for them within the call."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from tensorcommons.bridge.reply import Reply, settle

text: ContextVar[str] = ContextVar("text")


async def waiting(seen: list[Any]) -> Any:
    """Wait for a reply, whose number is the first of ``seen``; what follows is added there."""
    text.set("that of the task")
    reply = Reply()
    seen.append(reply.number)
    value = await reply
    seen.append((value, text.get(), asyncio.current_task()))
    return value


async def test_a_settled_reply_continues_its_task_at_once():
    seen: list[Any] = []
    task = asyncio.create_task(waiting(seen))
    await asyncio.sleep(0)

    def replies() -> None:
        settle(seen[0], 5)
        seen.append("settled")

    asyncio.get_running_loop().call_soon(replies)
    assert await task == 5
    assert seen[1:] == [(5, "that of the task", task), "settled"]


async def test_a_reply_that_is_settled_before_it_is_awaited_has_its_value():
    reply = Reply()
    settle(reply.number, 7)
    assert await reply == 7


async def test_an_error_is_raised_where_the_reply_is_awaited():
    seen: list[Any] = []
    task = asyncio.create_task(waiting(seen))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(partial(settle, seen[0], None, ValueError("no bytes")))
    with pytest.raises(ValueError, match="no bytes"):
        await task


async def test_a_cancelled_reply_drops_what_comes_later():
    seen: list[Any] = []
    task = asyncio.create_task(waiting(seen))
    await asyncio.sleep(0)
    task.cancel()
    settle(seen[0], 5)
    with pytest.raises(asyncio.CancelledError):
        await task
    settle(seen[0], 5)
    assert len(seen) == 1


async def test_a_reply_whose_block_has_ended_is_closed():
    with pytest.raises(OSError, match="not begun"), Reply() as reply:
        raise OSError("not begun")
    settle(reply.number, 5)
    assert await reply is None


async def test_a_task_with_a_time_limit_ends_in_time():
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(waiting([]), 0.01)
