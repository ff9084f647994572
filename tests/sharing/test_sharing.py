"""Cases of sharing and of bad input on the CPU device; e2e/sharing runs the same cases on WebGPU."""

from __future__ import annotations

import pytest

from scripts.serve import serve
from tensorcommons import open_devices
from tests.cases import Place, harness
from tests.cases.marked import params
from tests.models.server import TINY, with_models


@pytest.fixture(scope="module")
def address():
    with serve(TINY, headers={}, wrap=with_models) as url:
        yield url.rstrip("/")


@pytest.mark.parametrize(
    "case", params("sharing", "activations", "pressure", "moving", "bad_input", "concurrent_tasks", kind="cpu")
)
async def test_on_numpy(case, address):
    devices = await open_devices(prefer=["cpu"])
    await harness.run(case, Place(devices, f"{address}/models", f"{address}/tiny", f"{address}/faulty", str(TINY)))
    devices.close()
