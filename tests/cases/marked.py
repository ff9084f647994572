"""Cases as parameters of a pytest test, with the marks ``long`` (minutes) and ``slow`` (over a second)."""

from __future__ import annotations

import pytest

from tests.cases import case_of, cases_of


def params(*modules: str, kind: str) -> list[object]:
    """Return the cases of ``modules`` on that kind of device as parameters."""
    found: list[object] = []
    for name in cases_of(*modules, kind=kind):
        case = case_of(name)
        marks = [pytest.mark.long] if kind in getattr(case, "long", ()) else []
        found.append(pytest.param(name, marks=[*marks, *([pytest.mark.slow] if hasattr(case, "slow") else [])]))
    return found
