"""The compiled programs of a device, by structure, the least recently used first."""

from __future__ import annotations

from typing import Any
from weakref import ref

from .backend import Backend

PROGRAMS = 256  # compiled programs that a device remembers


class ProgramCache:
    """``programs`` by structure. What they keep uncounted stays within the bounds of the backend."""

    backend: Backend[Any]

    def __init__(self) -> None:
        self.programs: dict[str, Any] = {}
        cache = ref(self)
        self.backend.make_way = lambda hidden, reserved: c.bound_programs(hidden, reserved) if (c := cache()) else None

    @property
    def idle_program_bytes(self) -> int:
        """Bytes that compiled programs keep which are not running."""
        return sum(program.idle_bytes for program in self.programs.values())

    def discard_idle_program(self) -> None:
        """Take the least recently used of the programs that keep bytes and are not running off the device."""
        next(program for program in self.programs.values() if program.idle_bytes).discard()

    def keep_program(self, program: Any) -> None:
        """Keep ``program`` as the one used last; beyond :data:`PROGRAMS` the least recently used one is dropped."""
        replaced = self.programs.pop(program.structure, program)
        if replaced is not program:
            replaced.discard()
        self.programs[program.structure] = program
        if len(self.programs) > PROGRAMS:
            self._forget_oldest_program()

    def keeps(self, program: Any) -> bool:
        """Return whether ``program`` is the one that is kept of its structure."""
        return self.programs.get(program.structure) is program

    def forget_program(self, program: Any) -> None:
        """Stop keeping ``program``."""
        if self.keeps(program):
            del self.programs[program.structure]

    def _forget_oldest_program(self) -> None:
        self.programs.pop(next(iter(self.programs))).discard()

    def bound_programs(self, hidden: int, reserved: int) -> None:
        """Drop the least recently used programs until the uncounted bytes of the rest and a new one are in bounds."""
        backend, kept = self.backend, list(self.programs.values())
        for program in kept:
            hidden, reserved = hidden + program.uncounted[0], reserved + program.uncounted[1]
        for program in kept:
            if hidden <= backend.most_hidden and reserved <= backend.most_reserved:
                break
            hidden, reserved = hidden - program.uncounted[0], reserved - program.uncounted[1]
            self._forget_oldest_program()
