"""Responses of the worker while Python loads a model and works in slices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from e2e.page.driver import SPLADE

if TYPE_CHECKING:
    from e2e.cache.conftest import Visit

# In the page: run Python, and send other messages to the worker until it is done.
ASK = """async (source) => {
  let answered = 0, reply = null;
  run(source).then((value) => { reply = value; });
  while (!reply) { await run("1"); answered += 1; }
  return [answered, reply];
}"""
WAITING = 2  # messages that are answered even if Python answers none before it is done
# Every step that may yield to the event loop does so: the test counts turns, not milliseconds.
ALWAYS = "from tensorcommons.bridge import runtime; runtime.SLICE = -1.0"
LOAD = f"""
manager = tc.TensorSharingManager(1024, devices=devices)
model, last = await load("{SPLADE}", manager, "webgpu")
last["from_cache"]
"""
WORK = """
def steps():
    for _ in range(2000):
        yield

await runtime.in_slices(steps())
"""


def asked(visit: Visit, source: str) -> tuple[int, Any]:
    """Return the number of messages answered while ``source`` ran, and its value."""
    answered, reply = visit.page.evaluate(ASK, source)
    assert "error" not in reply, reply["error"]
    return answered, json.loads(reply["value"])


def test_messages_are_answered_while_python_works(visit: Visit) -> None:
    visit.run(ALWAYS + "\nNone")
    assert asked(visit, WORK)[0] > WAITING
    answered, from_cache = asked(visit, LOAD)
    assert answered > WAITING and not from_cache
    answered, from_cache = asked(visit, LOAD)
    assert answered > WAITING and from_cache, "reads from storage must yield without waiting for a network"
