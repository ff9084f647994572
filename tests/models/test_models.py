"""Cases of models on the CPU device; e2e/models runs the same cases on WebGPU."""

from __future__ import annotations

import pytest

from scripts import paths
from tensorcommons import open_devices
from tests.cases import MODELS, Place, harness
from tests.cases.marked import params
from tests.models.server import TINY


@pytest.mark.parametrize("case", params(*MODELS, kind="cpu"))
async def test_on_numpy(case):
    devices = await open_devices(prefer=["cpu"])
    await harness.run(case, Place(devices, str(paths.MODELS), str(TINY), "", str(TINY)))
    devices.close()
