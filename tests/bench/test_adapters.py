"""The rows with adapters on the CPU device, on a tiny encoder."""

from __future__ import annotations

import pytest

import tensorcommons as tc
from bench import adapters, workloads
from bench.contest import Rules, measure
from bench.ours import Ours
from bench.report import Figure, table

RULES = Rules(rounds=2, cap_s=1000)


@pytest.fixture
async def devices():
    opened = await tc.open_devices(("cpu",))
    yield opened
    opened.close()


async def figures(devices, folder) -> list[Figure]:
    workloads.write_encoder(folder, adapters.SIZES["tiny"][1])
    variants = [Ours(devices.cpu, devices, lambda: 0, mode) for mode in ("", adapters.BASE)]
    return [
        await measure([each for each in variants if each.does(work)], work, RULES, {})
        for work in adapters.adapted("tiny", folder)
    ]


async def test_rows_with_adapters_are_beside_the_base_and_a_switch_is_timed(devices, tmp_path):
    rows, switch = await figures(devices, tmp_path)
    assert [(row.name, row.error, len(row.samples_ms)) for row in rows.rows] == [
        ("tensorcommons on CPU", "", 2),
        ("base without adapters on CPU", "", 2),
    ]
    assert "× the time of base without adapters on CPU" in table([rows])
    assert rows.rows[0].extra["MB of the base, and of all adapters"] == "0.147, 0.008"
    (row,) = switch.rows
    assert row.error == "" and "longer than with the same adapter, ms" in row.extra


async def test_a_row_with_the_weights_of_another_adapter_is_not_timed(devices, tmp_path, monkeypatch):
    class Other:
        """An adapter that merges as another one."""

        def __init__(self, adapter, other):
            self.weight_bytes, self._other = adapter.weight_bytes, other

        async def merge(self):
            return await self._other.merge()

    load = tc.Model.load_adapter

    async def load_adapter(model, source, name):
        adapter = await load(model, source, name)
        return Other(adapter, model.adapter("adapter 0")) if name == "adapter 3" else adapter

    monkeypatch.setattr(tc.Model, "load_adapter", load_adapter)
    rows, _ = await figures(devices, tmp_path)
    assert "row 3 has cosine" in rows.rows[0].error and not rows.rows[0].samples_ms
