"""Cases of every op on the CPU device; e2e/ops runs the same cases on WebGPU."""

from __future__ import annotations

import pytest

from tensorcommons import open_devices
from tests.cases import OPS, Place, harness
from tests.cases.marked import params


@pytest.mark.parametrize("case", params(*OPS, kind="cpu"))
async def test_on_numpy(case):
    devices = await open_devices(prefer=["cpu"])
    await harness.run(case, Place(devices, "", "", "", ""))
    devices.close()
