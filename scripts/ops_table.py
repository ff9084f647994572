"""Writes docs/ops.md: which op runs on which device in which dtype, asked of the code.

    .cache/venv/bin/python -m scripts.ops_table

For each op of the registry its samples (tensorcommons/samples) are traced in every dtype; what the op does not refuse
is planned and lowered for WebGPU, on a software adapter and on hardware, and for WebNN, without a device. What WebNN
takes is what ``opSupportLimits()`` of the tests' browser says (tests/goldens/webnn_limits.json, which
e2e/ops/test_webnn.py compares with the browser's). tests/contract/test_ops_table.py fails when the file is out of date.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from scripts import paths

for _folder in (paths.ROOT, paths.ROOT / "pyodide_pkg"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from tensorcommons.backends.cpu import CpuBackend  # noqa: E402 - found by the lines above
from tensorcommons.backends.device import Device  # noqa: E402
from tensorcommons.backends.webgpu.backend import WebGPUBackend  # noqa: E402
from tensorcommons.backends.webgpu.kernels import KERNELS, Adapter  # noqa: E402
from tensorcommons.backends.webgpu.kernels.common import require_shader_types  # noqa: E402
from tensorcommons.backends.webgpu.shader import compose  # noqa: E402
from tensorcommons.errors import UnsupportedDtype, UnsupportedOp  # noqa: E402
from tensorcommons.graph.fuse import fuse  # noqa: E402
from tensorcommons.graph.graph import Graph  # noqa: E402
from tensorcommons.graph.plan import make_plan  # noqa: E402
from tensorcommons.ops.registry import OPS  # noqa: E402
from tensorcommons.refusals import reasons  # noqa: E402
from tensorcommons.samples import DTYPES, SAMPLES, Sample  # noqa: E402
from tensorcommons.tensor import Tensor, asarray  # noqa: E402

FILE = paths.ROOT / "docs" / "ops.md"
ADAPTERS = (Adapter(True, frozenset(), (4, 4)), Adapter(False, frozenset({"subgroups"}), (32, 32)))
LIMITS = json.loads((paths.ROOT / "tests" / "goldens" / "webnn_limits.json").read_text("utf-8"))
BOTH, NUMPY, NONE, WEBNN = "●", "○", "", "▲"

HEAD = f"""# Ops by device and dtype

Made by `python -m scripts.ops_table` from the code; a test fails when it is out of date. {BOTH}: on WebGPU and on the
NumPy device; {NUMPY}: on the NumPy device only; {WEBNN}: on WebNN, too, by the `opSupportLimits()` of Chromium 153;
empty: refused with `UnsupportedDtype`, cast first.

- float16 is stored in two bytes and computed in float32 on WebGPU, on every adapter.
- Sums and products of ints stay int32 or uint32 and wrap: WebGPU has no int64.
- int64, int8 and uint8 can be kept, shared, viewed, written and read on every device; ops on them run on the NumPy
  device and are refused with `UnsupportedOp` on WebGPU.
- Dtypes promote by the [Python array API](https://data-apis.org/array-api/latest/API_specification/type_promotion.html)'s
  table; what it leaves open is refused. A Python number takes the dtype of the array that it meets.
- Elementwise float32 functions are within 1e-6 relative of float64 in the ranges that their docstrings state, NaN and
  infinities as NumPy's; results below 1.2e-38 may be 0. WGSL's own functions promise less, so they are written out.
- Functions that are made of these (`clip`, `stack`, `tril`, `repeat`, ...) take what those take.
"""


def runs_on_webgpu(result: Tensor) -> bool:
    """Return whether kernels take every step that ``result`` needs."""
    backend: WebGPUBackend = object.__new__(WebGPUBackend)  # planning asks it for layouts and limits
    backend.limits = {
        "maxBufferSize": 2**28,
        "maxStorageBufferBindingSize": 2**27,
        "maxStorageBuffersPerShaderStage": 8,
    }
    try:
        for adapter in ADAPTERS:
            backend.adapter = adapter
            for step in make_plan(fuse(Graph([result.node])), backend).plan.steps:
                require_shader_types(step)
                for dispatch in KERNELS[step.op.name].lower(step, adapter):
                    compose(dispatch)
    except UnsupportedOp:
        return False
    return True


def cell(samples: list[Sample], dtype: str, device: Device) -> tuple[str, list[str]]:
    """Return the table's cell for an op in ``dtype``, and why WebNN refuses it, if it does."""
    found, why = NONE, list[str]()
    for sample in samples:
        operands = sample.operands(np.random.default_rng(0), dtype, sample.shapes[0])
        try:
            result = sample.call(*(asarray(a, device=device) for a in operands))
        except UnsupportedDtype:
            continue
        why = reasons(result, LIMITS, wide_halves=True)
        found = (BOTH if runs_on_webgpu(result) else NUMPY) + ("" if why else f" {WEBNN}")
        if BOTH in found:
            break
    return found, why


def family(name: str) -> str:
    """The file of the op's kernel; a view has none."""
    return KERNELS[name].lower.__module__.rpartition(".")[2] if name in KERNELS else "views"


def table() -> str:
    """The text of docs/ops.md."""
    device = Device(CpuBackend())
    families: dict[str, list[str]] = {}
    for name in OPS:
        families.setdefault(family(name), []).append(name)
    lines = [HEAD]
    refused: dict[str, dict[str, list[str]]] = {}
    for title in sorted(families):
        lines += [f"## {title}", "", f"| op | {' | '.join(DTYPES)} |", f"|---|{':-:|' * len(DTYPES)}"]
        for name in sorted(families[title]):
            samples: list[Any] = [sample for sample in SAMPLES if sample.op == name]
            found = {dtype: cell(samples, dtype, device) for dtype in DTYPES}
            lines.append(f"| `{name}` | {' | '.join(mark for mark, _ in found.values())} |")
            for dtype, (_, why) in found.items():
                for reason in why:
                    refused.setdefault(reason, {}).setdefault(name, []).append(dtype)
        lines.append("")
    lines += [
        "## What WebNN refuses",
        "",
        "It runs on the next device; `last_run` says so.",
        "",
        "| reason | ops |",
        "|---|---|",
    ]
    for reason, names in sorted(refused.items()):
        listed = "; ".join(f"`{name}` ({', '.join(dtypes)})" for name, dtypes in names.items())
        lines.append(f"| {reason} | {listed} |")
    lines.append("")
    device.close()
    return "\n".join(lines)


if __name__ == "__main__":
    FILE.write_text(table(), "utf-8")
