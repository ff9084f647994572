"""Every op's case on the NumPy device; e2e/ops runs the same bodies on WebGPU."""

from __future__ import annotations

import pytest

from tensorcommons import open_devices
from tests.cases import Place, cases_of, harness

MODULES = (
    "compiled",
    "elementwise",
    "layout",
    "reduction",
    "normalization",
    "matmul",
    "attention",
    "embedding",
    "indexing",
    "sorting",
    "convolution",
    "pooling",
    "resize",
    "rotary",
    "functional",
    "tensors",
    "packed",
    "arrangement",
    "chains",
    "conformance",
    "hardware",
    "fuzz",
)


@pytest.mark.parametrize("case", cases_of(*MODULES, kind="cpu"))
async def test_on_numpy(case):
    devices = await open_devices(prefer=["cpu"])
    await harness.run(case, Place(devices, "", "", "", ""))
    devices.close()
