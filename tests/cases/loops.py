"""Kernels for software adapters that end loops early, like Mesa's llvmpipe after 65,535 iterations.

A limit of a few hundred iterations replaces the real one, so that short rows take the kernels of long ones. The
shaders are changed to end their loops silently at this limit, like llvmpipe: too many iterations give wrong results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.base import Place
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.webgpu import backend as backend_module
from tensorcommons.backends.webgpu.backend import WebGPUBackend
from tensorcommons.backends.webgpu.shader import Dispatch, compose
from tensorcommons.backends.webgpu.windows import Windows
from tensorcommons.errors import UnsupportedOp
from tensorcommons.nn import functional
from tests.cases import only
from tests.cases.support import numbers, raises

LOOPS, CONSTANT = 700, 1024  # the limit of kernels, and the allowance for loops of constant length
LOOP = re.compile(r"\b(for|while) \(.*\) \{")


def ending_loops(code: str) -> str:
    """Return the shader with its loops ended after the limit of iterations, counted over all loops of an invocation.

    Loops with a barrier must not end for a single lane: they have constant length, and are only counted.
    """
    pieces, at = [], 0
    for found in LOOP.finditer(code):
        depth, end = 1, found.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        body = code[found.end() : end]
        stop = "" if "workgroupBarrier" in body else " if (iterations_left == 0u) { break; }"
        count = "iterations_left -= min(iterations_left, 1u);"  # the check that ends a loop counts as an iteration
        pieces += [code[at : found.start()], f"{count} ", found[0], f"{stop} {count}"]
        at = found.end()
    whole = "".join([*pieces, code[at:]])
    directives = re.match(r"(?:(?://.*|\s*|enable .*|diagnostic.*)\n)*", whole)
    assert directives is not None
    counter = f"var<private> iterations_left: u32 = {LOOPS + CONSTANT}u;\n"
    return whole[: directives.end()] + counter + whole[directives.end() :]


@contextmanager
def _limited(device: Device) -> Iterator[None]:
    """End the loops of the device early, with the limit given to the kernels."""
    backend = cast(WebGPUBackend, device.backend)
    adapter = backend.adapter

    def composed(dispatch: Dispatch, windows: Windows) -> tuple[str, str, list[Place], bytes]:
        assert dispatch.loops <= LOOPS
        code, letters, places, table = compose(dispatch, windows)
        return ending_loops(code), letters, places, table

    backend.adapter = replace(adapter, fallback=True, loops=LOOPS)
    backend_module.compose = composed  # type: ignore[assignment, attr-defined]
    try:
        yield
    finally:
        backend.adapter, backend_module.compose = adapter, compose  # type: ignore[attr-defined]


def _half(*shape: int) -> Any:
    return numbers(*shape).astype(np.float16)


# Calls of more than LOOPS iterations per invocation, and their operands.
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sum": (tc.sum, (numbers(3, 3001),)),
    "sum in vectors": (tc.sum, (numbers(12_000),)),
    "sum over axes that do not merge": (lambda x: tc.sum(x, axis=(0, 2)), (numbers(40, 3, 50),)),
    "sum of three axes": (lambda x: tc.sum(x[:, :, ::2, ::-1], axis=(0, 2, 3)), (numbers(11, 2, 24, 13),)),
    "mean": (lambda x: tc.mean(x, axis=0), (numbers(2500, 2),)),
    "var": (lambda x: tc.var(x, axis=1), (numbers(2, 2049),)),
    "max": (lambda x: tc.max(x, axis=1), (numbers(2, 1500),)),
    "argmax": (lambda x: tc.argmax(x, axis=1), (numbers(2, 1500),)),
    "argmin of halves": (lambda x: tc.argmin(x, axis=0), (_half(1500, 3),)),
    "any": (tc.any, (np.arange(5000) == 4999,)),
    "count_nonzero": (tc.count_nonzero, (numbers(5000) > 0,)),
    "logsumexp": (lambda x: tc.logsumexp(x, axis=1), (numbers(2, 2999),)),
    "cumulative_sum": (lambda x: tc.cumulative_sum(x, axis=1), (numbers(3, 2050),)),
    "cumulative_sum of halves": (lambda x: tc.cumulative_sum(x, include_initial=True), (_half(900),)),
    "softmax": (lambda x: functional.softmax(x, dim=-1), (numbers(2, 1022),)),
    "softmax of halves": (lambda x: functional.softmax(x, dim=-1), (_half(2, 1022),)),
    "log_softmax": (lambda x: functional.log_softmax(x, dim=-1), (numbers(2, 5001),)),
    "layer_norm": (lambda x, w: functional.layer_norm(x, (999,), w, w), (numbers(2, 999), numbers(999, seed=1))),
    "layer_norm in vectors": (
        lambda x, w: functional.layer_norm(x, (4096,), w, w),
        (numbers(1, 4096), numbers(4096, seed=1)),
    ),
    "rms_norm": (lambda x, w: functional.rms_norm(x, (999,), w), (numbers(2, 999), numbers(999, seed=1))),
    "matmul": (tc.matmul, (numbers(3, 5003), numbers(5003, 5, seed=1))),
    "matmul in vectors": (tc.matmul, (numbers(4, 8192), numbers(8192, 8, seed=1))),
    "matmul across": (lambda a, b: tc.matmul(a.mT, b.mT), (numbers(5000, 4), numbers(8, 5000, seed=1))),
    "matmul in batches": (tc.matmul, (numbers(2, 3, 4000), numbers(2, 4000, 2, seed=1))),
    "matmul of halves": (tc.matmul, (_half(3, 4000), _half(4000, 3))),
    "linear": (functional.linear, (numbers(17, 6000), numbers(9, 6000, seed=1), numbers(9))),
    "linear of a row": (functional.linear, (numbers(1, 6000), numbers(12, 6000, seed=1))),
    "attention": (
        functional.scaled_dot_product_attention,
        (numbers(1, 2, 5, 16), numbers(1, 2, 600, 16, seed=1), numbers(1, 2, 600, 16, seed=2)),
    ),
    "attention with a mask": (
        lambda q, k, v, m: functional.scaled_dot_product_attention(q, k, v, attn_mask=m),
        (numbers(1, 1, 3, 6), numbers(1, 1, 500, 6, seed=1), numbers(1, 1, 500, 6, seed=2), numbers(1, 1, 3, 500)),
    ),
    "conv2d of many channels": (functional.conv2d, (numbers(1, 300, 6, 5), numbers(9, 300, 3, 3, seed=1), numbers(9))),
    "conv2d of few pixels": (functional.conv2d, (numbers(2, 90, 4, 4), numbers(40, 90, 3, 3, seed=1), numbers(40))),
    "conv2d in groups": (
        lambda x, w: functional.conv2d(x, w, groups=2, padding=1, dilation=2, stride=2),
        (numbers(1, 400, 8, 9), numbers(6, 200, 3, 2, seed=1)),
    ),
    "conv2d of a large kernel": (
        lambda x, w: functional.conv2d(x, w, padding=7),
        (numbers(1, 2, 40, 50), numbers(3, 2, 33, 41)),
    ),
    "conv1d of a long kernel": (
        lambda x, w: functional.conv1d(x, w),
        (numbers(1, 1, 2100), numbers(2, 1, 1999, seed=1)),
    ),
    "depthwise": (
        lambda x, w: functional.conv2d(x, w, groups=4),
        (numbers(1, 4, 40, 40), numbers(4, 1, 31, 33, seed=1)),
    ),
    "conv_transpose2d": (
        lambda x, w: functional.conv_transpose2d(x, w, stride=2, padding=1),
        (numbers(1, 400, 4, 5), numbers(400, 3, 3, 3, seed=1)),
    ),
    "avg_pool2d": (lambda x: functional.avg_pool2d(x, 30, 7, 3), (numbers(1, 2, 50, 45),)),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 31, 5, 2, dilation=1), (numbers(1, 2, 50, 45),)),
    "max_pool2d of halves": (lambda x: functional.max_pool2d(x, 31), (_half(3, 1, 33, 64),)),
    "adaptive_avg_pool2d": (lambda x: functional.adaptive_avg_pool2d(x, (1, 1)), (numbers(2, 3, 60, 61),)),
    "interpolate": (
        lambda x: functional.interpolate(x, size=(2, 3), mode="bilinear", antialias=True),
        (numbers(1, 1, 1500, 9),),
    ),
    "scatter": (
        lambda x, i, u: tc.scatter(x, i, u, axis=0, reduction="add"),
        (numbers(7), (np.arange(3000) * 5 % 7).astype(np.int32), numbers(3000, seed=1)),
    ),
    "scatter where the last wins": (
        lambda x, i, u: tc.scatter(x, i, u, axis=1),
        (numbers(2, 7), np.tile((np.arange(1900) % 7).astype(np.int32), (2, 1)), numbers(2, 1900, seed=1)),
    ),
    "sort": (tc.sort, (numbers(2, 1700),)),
    "topk": (lambda x: tc.topk(x, 5)[0], (numbers(2, 1700),)),
}


async def _agree(device: Device, part: slice) -> None:
    """Compare a part of :data:`CALLS` with the CPU device."""
    cpu = Device(CpuBackend())
    before = dict(device.programs)
    failed = []
    with _limited(device):
        for name, (call, arrays) in list(CALLS.items())[part]:
            wanted = await call(*(tc.asarray(array, device=cpu) for array in arrays)).read()
            try:
                got = await call(*(tc.asarray(array, device=device) for array in arrays)).read()
            except UnsupportedOp as refusal:
                failed.append(f"{name}: {refusal}")
                continue
            tolerance = 2e-2 if wanted.dtype == np.float16 else 2e-4
            scale = max(float(np.abs(wanted.astype(np.float64)).max()), 1e-3)
            if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=tolerance, atol=tolerance * scale):
                failed.append(f"{name}: {np.abs(got.astype(np.float64) - wanted).max()} off, largest {scale}")
    for structure in set(device.programs) - set(before):  # made for another adapter
        device.programs.pop(structure).discard()
    assert not failed, "\n".join(failed)


@only("webgpu")
async def long_reductions(device: Device) -> None:
    await _agree(device, slice(0, 13))


@only("webgpu")
async def long_rows_and_depths(device: Device) -> None:
    await _agree(device, slice(13, 29))


@only("webgpu")
async def large_windows_and_many_indices(device: Device) -> None:
    await _agree(device, slice(29, None))


@only("webgpu")
async def what_would_take_too_many_iterations_is_refused_by_name(device: Device) -> None:
    q, k = (tc.asarray(numbers(1, 1, n, 16), device=device) for n in (4, 2000))
    with _limited(device):
        await raises(
            UnsupportedOp, functional.scaled_dot_product_attention(q, k, k).read(), "attention", "iterations", "cpu"
        )
