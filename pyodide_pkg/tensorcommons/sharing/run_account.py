"""The account of runs: the figures of the last one, and what the runs of each model move."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..backends.device import Device
from ..graph.parted import PartedProgram
from ..graph.program import Program


class GenerationAccount:
    """Counts of what generations of text did so far.

    ``tokens`` were written in ``seconds``, in which at least one generation waited for its next token. ``reused``
    tokens of prompts had keys and values from earlier texts. ``batched`` tokens were written in one run with other
    generations, at most ``together`` of them.
    """

    def __init__(self) -> None:
        self.tokens = self.reused = self.batched = self.together = 0
        self.seconds = 0.0
        self._writing = 0
        self._since = 0.0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count the time of the block, once if several are under way."""
        if not self._writing:
            self._since = time.monotonic()
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing:
                self.seconds += time.monotonic() - self._since

    def stats(self) -> dict[str, float]:
        """Return the counts by name, with the tokens a second."""
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens / self.seconds if self.seconds else 0.0,
            "reused_tokens": self.reused,
            "batched_tokens": self.batched,
            "largest_batch": self.together,
        }


class RunAccount:
    """Figures of ``last_run``, by name.

    ``reused`` counts the nodes that runs took from the activation cache so far. ``streamed`` has, of each model whose
    weights exceed the limit, what its last run moved.
    """

    def __init__(self) -> None:
        self.last_run: dict[str, Any] = {}
        self.reused = 0
        self.streamed: dict[str, dict[str, int]] = {}
        self.generation = GenerationAccount()

    def ran(
        self,
        models: list[str],
        device: Device,
        program: Program | PartedProgram | None,
        js_calls: int,
        nodes: tuple[int, int, int],
    ) -> None:
        """Account for a run by ``program``, None where nothing was left to run.

        ``nodes`` counts those that were traced, those that are left after merging, and those that were computed.
        """
        traced, merged, executed = nodes
        self.reused += merged - executed
        self.last_run = {
            "models": models,
            "device": device.kind,
            "nodes": traced,
            "executed": executed,
            "reused_in_run": traced - merged,
            "reused_from_cache": merged - executed,
            **_cost(program),
            "js_calls": js_calls,
            **_transfers(program),
        }
        for model in models:
            if self.last_run["segments"]:
                self.streamed[model] = {
                    key: self.last_run[key] for key in ("segments", "moved_bytes", "resident_bytes")
                }
            elif self.last_run["steps"]:  # a run that computed nothing changes nothing
                self.streamed.pop(model, None)

    def forget(self, models: Iterable[str]) -> None:
        """Drop what the runs of ``models`` moved."""
        for model in list(models):
            self.streamed.pop(model, None)

    def join(self, runs: Sequence[dict[str, Any]]) -> None:
        """Account for several runs, one a device, as the last one."""
        keys = dict.fromkeys(key for run in runs for key in run)
        self.last_run = {key: _added([run[key] for run in runs if key in run]) for key in keys}

    def finished(self, fallback: str) -> None:
        """Note how the last run went on after a device was lost; empty where none was."""
        self.last_run["fallback"] = fallback


def _cost(program: Program | PartedProgram | None) -> dict[str, Any]:
    """Return the figures of a program that are the same at each run."""
    planned = program.plans if program is not None else ()
    return {
        "steps": program.steps if program is not None else 0,
        "dispatches": program.dispatches if program is not None else 0,
        "arena_bytes": max((each.plan.arena_bytes for each in planned), default=0),
        "arena_lower_bound": max((each.arena_lower_bound for each in planned), default=0),
        "intermediate_bytes": sum(each.intermediate_bytes for each in planned),
    }


def _transfers(program: Program | PartedProgram | None) -> dict[str, Any]:
    """Figures of what a run moved: weights that stream, and what crossed devices in a program in parts."""
    if not isinstance(program, PartedProgram):
        return {"segments": 0, "moved_bytes": 0, "resident_bytes": 0}
    return {
        "segments": len(program.parts) if program.streamed else 0,
        "moved_bytes": program.traffic.moved,
        "resident_bytes": program.traffic.resident,
        "parts": program.devices,
        "refused": program.why,
        "transfers": program.traffic.transfers,
        "transferred_bytes": program.traffic.transferred,
        "rented": program.traffic.rented,
    }


def _added(values: Sequence[Any]) -> Any:
    """Combine the accounts of several runs: numbers and lists are added up, tables joined, names listed once."""
    if all(isinstance(value, str) for value in values):
        return " + ".join(dict.fromkeys(values))
    if all(isinstance(value, dict) for value in values):
        return {name: text for value in values for name, text in value.items()}
    return sum(values[1:], values[0])
