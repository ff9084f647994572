"""Buffers of outputs that are free again, kept for the next run of the program that made them.

To create a buffer, clear it and bind it takes longer than the kernels of a small forward. So once a program is run a
second time, an output that was freed stays with it, counted as scratch: the next run's output is that buffer. Spares
leave with all other idle scratch, the least recently used program's first where they are many.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from ..errors import MemoryBudgetError
from .backend import Backend

MOST = 16 * 2**20  # bytes of a device's spares


class Owner(Protocol):
    """The device, as the pool needs it."""

    backend: Backend[Any]

    def charge(self, nbytes: int, category: Literal["scratch"]) -> None:
        """Count ``nbytes`` more. Raises MemoryBudgetError where they do not fit."""
        ...

    def refund(self, nbytes: int, category: Literal["scratch"]) -> None:
        """Count ``nbytes`` less."""
        ...


class OutputPool:
    """The free output buffers of one device. What a program keeps is numbered as its outputs."""

    def __init__(self, device: Owner) -> None:
        self.nbytes = 0
        self._device = device
        self._makers: dict[int, tuple[Any, int]] = {}  # by handle: the program, and the number of the output
        self._kept: dict[Any, dict[int, int]] = {}  # by program: the bytes of each spare

    def made(self, handle: int, program: Any, number: int) -> None:
        """Note that ``handle`` is output ``number`` of ``program``, which may reuse it."""
        self._makers[handle] = program, number

    def forget(self, handle: int) -> None:
        """Forget which program made ``handle``."""
        self._makers.pop(handle, None)

    def bytes_of(self, program: Any) -> int:
        """Return the bytes that the next run of ``program`` need not allocate."""
        return sum(self._kept[program].values()) if program in self._kept else 0

    def take(self, handle: int, nbytes: int) -> bool:
        """Keep the free ``handle`` for the program that made it. False if there is no such program, or no room."""
        program, number = self._makers.pop(handle, (None, 0))
        if program is None or program.executable is None or number in self._kept.get(program, ()) or nbytes > MOST:
            return False
        while self.nbytes + nbytes > MOST and next(iter(self._kept), program) is not program:
            self.drop(next(iter(self._kept)))
        if self.nbytes + nbytes > MOST:
            return False
        try:
            self._device.charge(nbytes, "scratch")
        except MemoryBudgetError:
            return False
        self._device.backend.spare(program.executable, number, handle)
        self._kept.setdefault(program, {})[number] = nbytes
        self.nbytes += nbytes
        return True

    def used(self, program: Any) -> None:
        """Remove a program's outputs from the pool: a run has them, or they went with the program or its device."""
        nbytes = sum(self._kept.pop(program, {}).values())
        self.nbytes -= nbytes
        self._device.refund(nbytes, "scratch")

    def drop(self, program: Any) -> None:
        """Free those of ``program``."""
        if program.executable is not None:
            self._device.backend.drop_spares(program.executable)
        self.used(program)

    def drop_all(self) -> None:
        """Free all of them."""
        for program in list(self._kept):
            self.drop(program)
