"""Cases of tests/cases in other engines than Chromium, on each of their devices, with the same comparisons."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from e2e.engines.engine import ENGINES
from e2e.engines.tab import Tab
from e2e.lab import with_lab
from scripts.serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.engines.protocols import Session


@pytest.fixture(scope="session")
def lab(name: str, session: Session, site_folder: Path) -> Iterator[Callable[..., Any]]:
    """Call a function of e2e/inside.py in a page that starts Python once."""
    with serve(site_folder, headers={}, wrap=with_lab) as url:
        tab = Tab(session).open(f"{url}lab/?devices={','.join((*ENGINES[name].devices, 'cpu'))}")
        tab.evaluate("() => started")

        def call(*arguments: Any) -> Any:
            reply = json.loads(tab.evaluate("(name, ...rest) => lab[name](...rest)", *arguments))
            if "error" in reply:
                pytest.fail(reply["error"], pytrace=False)
            return reply["value"]

        yield call
        tab.close()


#: The kernels of the CPU device, by engine.
KERNELS = {"firefox": "WebAssembly with relaxed SIMD", "webkitgtk-optimizing": "WebAssembly with SIMD"}
CASES = (
    "elementwise.operators_and_python_numbers",
    "elementwise.extreme_values",
    "matmul.linear_sizes",
    "matmul.linear_activations_fused_and_not",
    "matmul.matmul_keeps_nan_and_infinity",
    "normalization.softmax_of_extreme_values",
    "normalization.layer_norm_shapes",
    "attention.masks_of_every_broadcast",
    "rotary.both_conventions",
    "indexing.take_on_every_axis",
    "sorting.nan_infinities_and_zeros",
    "formats.products_with_epilogues",
    "conformance.op_gelu",
    "models.tiny_bert",
)
LONGER = ("models.embeddings_and_similarity_from_text", "decoders.llama_writes")  # seconds more on a software adapter
WITHOUT_AWAIT = """
from js import WebAssembly
from pyodide.ffi import can_run_sync

x = tc.asarray([1.5, 2.0], device=place.device) * 2
{"values": x.numpy().tolist(), "suspends": can_run_sync(), "has": hasattr(WebAssembly, "Suspending")}
"""


@pytest.mark.parametrize("name", KERNELS, indirect=True)
def test_the_cpu_device_has_kernels(lab: Callable[..., Any], name: str) -> None:
    assert lab("snippet", "list(place.device.backend.features)", "{}", "cpu", 60) == [KERNELS[name]]


@pytest.mark.parametrize("name", KERNELS, indirect=True)
@pytest.mark.parametrize("case", [*CASES, *LONGER])
def test_on_the_cpu(lab: Callable[..., Any], case: str) -> None:
    lab("case", case, "cpu")


@pytest.mark.parametrize("name", ["firefox-webgpu"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_on_webgpu(lab: Callable[..., Any], case: str) -> None:
    lab("case", case, "webgpu")


@pytest.mark.parametrize("name", KERNELS, indirect=True)
def test_the_cpu_device_is_read_without_await_whether_python_can_be_suspended_or_not(lab: Callable[..., Any]) -> None:
    read = lab("snippet", WITHOUT_AWAIT, "{}", "cpu", 60)
    assert read["values"] == [3.0, 4.0]
    assert read["suspends"] is read["has"]
