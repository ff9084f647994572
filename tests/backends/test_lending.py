"""Lending between two devices is retried after one of them was lost and opened again."""

from __future__ import annotations

from typing import Any

from tensorcommons import Device
from tensorcommons.backends.backend import Backend
from tensorcommons.backends.cpu.backend import CpuBackend


class Lender(CpuBackend):
    """Device whose answers are set by the test, and which counts the calls."""

    is_lost = False
    asked = 0
    answer = ""

    async def lending(self, other: Backend[Any]) -> str:
        self.asked += 1
        return self.answer

    async def reopen(self) -> None:
        self.is_lost = False


async def test_lending_is_retried_after_either_device_was_lost() -> None:
    backend = Lender()
    lender, borrower, other = Device(backend), Device(Lender()), Device(Lender())
    await lender.try_lending(borrower)
    lender.stop_lending("it failed")
    other.backend.is_lost = borrower.backend.is_lost = True  # type: ignore[misc]
    await other.recover()
    assert (backend.asked, lender.not_lent) == (1, "it failed")
    await borrower.recover()
    assert backend.asked == 2 and lender.lends_to(borrower) and not borrower.lends_to(lender)
    backend.answer, backend.is_lost = "not on this device", True
    await lender.recover()
    assert (backend.asked, lender.not_lent) == (3, "not on this device")


async def test_a_lost_lender_is_not_called() -> None:
    backend = Lender()
    lender, borrower = Device(backend), Device(Lender())
    await lender.try_lending(borrower)
    backend.is_lost = True
    await borrower.recover()
    assert backend.asked == 1
    await lender.recover()
    assert backend.asked == 2
