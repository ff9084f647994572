"""Regular expressions of adapters, matched with the names of modules in bounded time.

Python's ``re`` tries one alternative after the other, which takes exponential time for some expressions, and the
expressions are part of untrusted files. Here all positions that a match can have reached are followed at once.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import quoted

LONGEST = 4096  # characters of an expression
DEEPEST = 40  # parentheses of an expression that are open at once
MOST_STEPS = 2_000_000  # of all matches of one adapter

sre: Any = importlib.import_module("re._parser")  # parses an expression and matches nothing

_OF_CHARACTERS: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda char: char.isalnum() or char == "_",
}


class Patterns:
    """Matches of regular expressions. Raises ValueError for one that is wrong, is not supported, or takes too long."""

    def __init__(self) -> None:
        self._parsed: dict[str, Any] = {}
        self._steps = 0

    def matches(self, pattern: str, text: str, starts: Iterable[int] = (0,)) -> bool:
        """Return whether ``pattern`` matches ``text`` from one of the ``starts`` to its end."""
        return len(text) in self.ends(pattern, text, starts)

    def ends_name(self, pattern: str, text: str) -> bool:
        """Return whether ``pattern`` matches the last parts of ``text``, which are separated by dots."""
        return self.matches(pattern, text, starts_of(text))

    def ends(self, pattern: str, text: str, starts: Iterable[int] = (0,)) -> frozenset[int]:
        """Return the positions where matches of ``pattern`` that begin at one of the ``starts`` can end."""
        if pattern not in self._parsed:
            self._parsed[pattern] = _parsed(pattern)
        return self._after(self._parsed[pattern], frozenset(starts), text, pattern)

    def _after(self, items: Any, starts: frozenset[int], text: str, pattern: str) -> frozenset[int]:
        for op, argument in items:
            self._steps += 1 + len(starts)
            if self._steps > MOST_STEPS:
                raise ValueError(f"the expression {quoted(pattern)} takes too long to match")
            if not starts:
                break
            starts = self._step(str(op), argument, starts, text, pattern)
        return starts

    def _step(self, op: str, argument: Any, starts: frozenset[int], text: str, pattern: str) -> frozenset[int]:
        if op in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return frozenset({i + 1 for i in starts if i < len(text) and _fits(op, argument, text[i])})
        if op == "SUBPATTERN" and not argument[1] and not argument[2]:
            return self._after(argument[3], starts, text, pattern)
        if op == "BRANCH":
            return frozenset().union(*(self._after(items, starts, text, pattern) for items in argument[1]))
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, items = argument
            return self._repeated(least, int(most), items, starts, text, pattern)
        if op == "AT":
            return frozenset({i for i in starts if _is_at(str(argument), i, text)})
        raise ValueError(
            f"the expression {quoted(pattern)} uses {op.lower().replace('_', ' ')}, which is not supported"
        )

    def _repeated(
        self, least: int, most: int, items: Any, starts: frozenset[int], text: str, pattern: str
    ) -> frozenset[int]:
        for _ in range(min(least, len(text) + 1)):  # after that nothing changes any more
            starts = self._after(items, starts, text, pattern)
        reached, new = starts, starts
        for _ in range(min(most - least, len(text) + 1)):
            new = self._after(items, new, text, pattern) - reached
            if not new:
                break
            reached |= new
        return reached


def starts_of(text: str) -> list[int]:
    """Return the positions of the parts of a module's name, which are separated by dots."""
    return [0, *(i + 1 for i, char in enumerate(text) if char == ".")]


def _parsed(pattern: str) -> Any:
    depth = deepest = 0
    for char in pattern:
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    if len(pattern) > LONGEST or deepest > DEEPEST:
        raise ValueError(f"the expression {quoted(pattern)} is too long or nested too deeply")
    try:
        parsed = sre.parse(pattern)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{quoted(pattern)} is not a regular expression: {error}") from None
    if parsed.state.flags & ~re.UNICODE:
        raise ValueError(f"the expression {quoted(pattern)} has flags, which are not supported")
    return parsed


def _fits(op: str, argument: Any, char: str) -> bool:
    if op == "ANY":
        return char != "\n"
    if op != "IN":
        return bool(ord(char) == argument) == (op == "LITERAL")
    negated = bool(argument) and str(argument[0][0]) == "NEGATE"
    return any(_is_in(str(kind), value, char) for kind, value in argument[negated:]) != negated


def _is_in(kind: str, value: Any, char: str) -> bool:
    if kind == "LITERAL":
        return bool(ord(char) == value)
    if kind == "RANGE":
        return bool(value[0] <= ord(char) <= value[1])
    name = str(value)
    return bool(_OF_CHARACTERS[name.replace("_NOT_", "_")](char)) != ("_NOT_" in name)


def _is_at(place: str, i: int, text: str) -> bool:
    if place in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
        return i == 0
    if place in ("AT_END", "AT_END_STRING"):
        return i == len(text) or (place == "AT_END" and text[i:] == "\n")
    around = [
        _OF_CHARACTERS["CATEGORY_WORD"](char) for char in (text[i - 1 : i] if i else " ") + (text[i : i + 1] or " ")
    ]
    return (around[0] != around[1]) == (place == "AT_BOUNDARY")
