"""Faults in the lab: one fault fails one test, which shows where Python was, and the next test gets a fresh page."""

from __future__ import annotations

import pytest

from e2e.lab import Lab

FORGETFUL = """
kept = tc.asarray([1.0], device=place.device)
globals()["left"] = kept

async def never():
    await asyncio.get_running_loop().create_future()  # this line waits

await kept.read()
await asyncio.gather(never())
"""


def test_a_hanging_case_reports_where_it_waits_and_does_not_affect_the_next(lab: Lab) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"not done after 1 s(.|\n)*in never"):
        lab.run(FORGETFUL, limit=1)
    assert lab.run("(await (tc.asarray([2.0], device=place.device) + 1.0).read()).tolist()") == [3.0]


def test_a_hanging_page_is_abandoned(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("e2e.lab.REPORT_SECONDS", 1)
    with pytest.raises(pytest.fail.Exception, match="hangs or is dead"):
        lab.run("while True: pass", limit=1)


SUSPENDED = """
from pyodide.ffi import can_run_sync, run_sync

async def later():
    await asyncio.sleep(0)
    return 3

can_run_sync() and run_sync(later())
"""


def test_python_from_the_snapshot_can_be_suspended(lab: Lab) -> None:
    """The snapshot records if JavaScript can suspend Python."""
    assert lab.run(SUSPENDED, limit=60) == 3
