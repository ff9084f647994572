"""Rotary position embedding in both conventions, against rotations written out pair by pair."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tests.cases.support import NAN, near, numbers, on, refused


def _rotate(x: Any, positions: Any, dimensions: int, interleaved: bool) -> Any:
    y = np.array(x, np.float64)
    half = dimensions // 2
    for k in range(half):
        a, b = (2 * k, 2 * k + 1) if interleaved else (k, k + half)
        angle = np.broadcast_to(positions, x.shape[:-1]) * 10000.0 ** (-2 * k / dimensions)
        y[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
        y[..., b] = x[..., b] * np.cos(angle) + x[..., a] * np.sin(angle)
    return y


async def both_conventions(device: Device) -> None:
    for shape in ((2, 3, 5, 8), (7, 6), (1, 1, 2), (2, 0, 4), (3, 2, 17, 64)):
        x = numbers(*shape)
        tables = tc.rotary_tables(32, shape[-1])
        for interleaved in (False, True):
            a, cos, sin = on(device, x, *tables)
            got = await tc.rotary_embedding(a, cos, sin, interleaved=interleaved).read()
            near(got, _rotate(x, np.arange(shape[-2]), shape[-1], interleaved))


async def positions_and_partial_rotation(device: Device) -> None:
    x = numbers(2, 4, 3, 10)
    a, cos, sin = on(device, x, *tc.rotary_tables(100, 6))
    positions = np.array([[[5, 6, 7]], [[99, 0, 50]]], np.int32)
    for interleaved in (False, True):
        wanted = _rotate(x, positions, 6, interleaved)
        near(await tc.rotary_embedding(a, cos, sin, on(device, positions)[0], interleaved).read(), wanted)
        near(await tc.rotary_embedding(a, cos, sin, positions, interleaved).read(), wanted)
    near((await tc.rotary_embedding(a, cos, sin).read())[..., 6:], x[..., 6:], 0)
    outside = np.array([0, -1, 100], np.int32)
    got = await tc.rotary_embedding(a, cos, sin, outside).read()
    near(got[:, :, 1:, :6], np.full((2, 4, 2, 6), NAN))
    near(got[:, :, 0], x[:, :, 0])


async def through_views(device: Device) -> None:
    x = numbers(2, 7, 3, 8)  # (batch, sequence, heads, head_dim), the layout of a projection
    a, cos, sin = on(device, x, *tc.rotary_tables(16, 8))
    heads = tc.permute_dims(a, (0, 2, 1, 3))
    near(await tc.rotary_embedding(heads, cos, sin).read(), _rotate(x.transpose(0, 2, 1, 3), np.arange(7), 8, False))
    turned = x.transpose(0, 2, 1, 3)[:, ::-1, 1:]
    near(await tc.rotary_embedding(heads[:, ::-1, 1:], cos, sin).read(), _rotate(turned, np.arange(6), 8, False))
    backwards = _rotate(x[..., ::-1], np.arange(3), 8, True)
    near(await (tc.rotary_embedding(a[..., ::-1] * 1, cos, sin, interleaved=True) + 1).read(), backwards + 1)


async def float16(device: Device) -> None:
    x = numbers(2, 5, 6).astype(np.float16)
    a, cos, sin = on(device, x, *tc.rotary_tables(8, 6))
    got = await tc.rotary_embedding(a, cos, sin).read()
    assert got.dtype == np.float16
    near(got, _rotate(x.astype(np.float64), np.arange(5), 6, False), 1e-3)


async def a_rotation_keeps_lengths_and_distances(device: Device) -> None:
    """The product of a query and a key depends only on the distance of their positions."""
    q, k = numbers(1, 8), numbers(1, 8, seed=1)
    a, b, cos, sin = on(device, q, k, *tc.rotary_tables(2000, 8))
    products = []
    for start in (0, 1000):
        turned = [
            await tc.rotary_embedding(x, cos, sin, np.array([start + far], np.int32)).read()
            for x, far in ((a, 7), (b, 2))
        ]
        products.append(float((turned[0] * turned[1]).sum()))
        near(np.linalg.norm(turned[0]), np.linalg.norm(q))
    assert math.isclose(*products, rel_tol=1e-4)


async def wrong_operands_are_refused(device: Device) -> None:
    x, cos, sin, half = on(device, numbers(3, 4), *tc.rotary_tables(2, 4), np.zeros((2, 2), np.float16))
    refused(device, ShapeMismatch, lambda: tc.rotary_embedding(x, cos, sin))
    refused(device, ShapeMismatch, lambda: tc.rotary_embedding(x[:2, :3], cos, sin))
    refused(device, ShapeMismatch, lambda: tc.rotary_embedding(x[:2], cos, sin[:1]))
    refused(device, UnsupportedDtype, lambda: tc.rotary_embedding(x[:2], half, half))
