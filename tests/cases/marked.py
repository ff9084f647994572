"""Cases as parameters of a pytest test; what takes minutes is marked ``long``."""

from __future__ import annotations

import pytest

from tests.cases import case_of, cases_of


def params(*modules: str, kind: str) -> list[object]:
    """The cases of ``modules`` on that kind of device."""
    return [
        pytest.param(name, marks=[pytest.mark.long] if kind in getattr(case_of(name), "long", ()) else [])
        for name in cases_of(*modules, kind=kind)
    ]
