"""The probes of an adapter: how fast it copies, and how many multiply-adds it does. Timings are compared with them."""

from __future__ import annotations

import struct

from ....dtypes import float32
from ....shapes import Layout
from ...base import Op, Operand, Place, Plan, Probe, Spec, Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, spread

WORKGROUP = 64
EACH = 64  # vectors that an invocation copies on a software adapter
PER_ITERATION = 8 * 4  # multiply-adds of an invocation in one iteration of multiply_add.wgsl
HARDWARE = 2**18, 2**11  # invocations and iterations of the probe: 34 billion multiply-adds
SOFTWARE = 2**11, 2**8  # 17 million

COPY = Op("probe_copy", lambda specs, attrs: specs[0], lambda x: x)
MULTIPLY_ADD = Op("probe_multiply_add", lambda specs, attrs: specs[0], lambda x, iterations: x)


def _copy(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,), y = step.inputs, step.output
    each = EACH if adapter.fallback else 1
    invocations = y.layout.size // 4 // each
    buffers = (Buffer("x", x, "vectors"), Buffer("y", y, "vectors", written=True))
    params = struct.pack("<2I8x", invocations, each)
    return [Dispatch("probe/copy", {}, params, buffers, spread(invocations, WORKGROUP), each + 1)]


def _multiply_add(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,), y = step.inputs, step.output
    iterations = step.attrs["iterations"]
    assert isinstance(iterations, int)
    params = struct.pack("<2I8x", y.layout.size, iterations)
    buffers = (Buffer("x", x), Buffer("y", y, written=True))
    groups = spread(y.layout.size, WORKGROUP)
    return [Dispatch("probe/multiply_add", {}, params, buffers, groups, iterations + 1)]


PROBES = {kernel.op: kernel for kernel in (Kernel("probe_copy", _copy), Kernel("probe_multiply_add", _multiply_add))}


def probes(nbytes: int, *, hardware: bool) -> tuple[Probe, Probe]:
    """The probes of an adapter that copies about ``nbytes``, at most."""
    flat = Spec((max(nbytes // 32 // EACH, 1) * EACH * 4,), float32)
    invocations, iterations = HARDWARE if hardware else SOFTWARE
    lanes = Spec((min(invocations, flat.shape[0]),), float32)
    sums = 2 * lanes.shape[0] * iterations * PER_ITERATION
    return (
        Probe(_plan(COPY, flat, {}), 2 * flat.nbytes, (flat,)),
        Probe(_plan(MULTIPLY_ADD, lanes, {"iterations": iterations}), sums, (lanes,)),
    )


def _plan(op: Op, spec: Spec, attrs: dict[str, int]) -> Plan:
    """One step from a leaf to an output, both of ``spec``."""
    layout = Layout.contiguous(spec.shape)
    x, y = (Operand(Place(kind, 0, 0, spec.nbytes), layout, spec.dtype) for kind in ("leaf", "output"))
    return Plan((Step(op, attrs, (x,), y),), 0, 0, 1, (spec.nbytes,))
