"""Set-up of the hosts of docs/hosts.md."""

from __future__ import annotations

import pytest

from scripts import chromium, hosts
from scripts.console import SetupError


def test_a_program_that_npm_left_out_is_an_error_where_npm_has_it(tmp_path, monkeypatch):
    deno = tmp_path / hosts.DENO.relative_to(hosts.NODE_MODULES)
    deno.parent.mkdir(parents=True)
    deno.touch()
    monkeypatch.setattr(chromium, "runs_here", lambda: True)
    with pytest.raises(SetupError, match="npm did not install bun: check its configured registry"):
        hosts.programs(tmp_path)
    monkeypatch.setattr(chromium, "runs_here", lambda: False)
    assert hosts.programs(tmp_path) == [deno]
