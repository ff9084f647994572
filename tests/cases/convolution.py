"""Convolutions of every kind against explicit sums in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tests.cases.support import agree, near, numbers, on, refused


def _conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Any:
    """Compute each result as the sum over its window, within the image."""
    batch, _, height, width = x.shape
    out, depth, rows, columns = w.shape
    size = [
        (s + 2 * p - d * (k - 1) - 1) // st + 1
        for s, p, d, k, st in zip((height, width), padding, dilation, (rows, columns), stride, strict=True)
    ]
    y = np.zeros((batch, out, *size))
    for o, i, j in np.ndindex(out, *size):
        group = o // (out // groups)
        for a, b in np.ndindex(rows, columns):
            top, left = i * stride[0] + a * dilation[0] - padding[0], j * stride[1] + b * dilation[1] - padding[1]
            if 0 <= top < height and 0 <= left < width:
                y[:, o, i, j] += x[:, group * depth : (group + 1) * depth, top, left] @ w[o, :, a, b]
    return y if bias is None else y + bias[:, None, None]


CHOICES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 7, 9), (5, 3, 3, 3), {}),
    ((1, 3, 7, 9), (9, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    ((2, 4, 8, 5), (6, 2, 3, 1), {"groups": 2, "dilation": (2, 1), "padding": (2, 3)}),
    ((2, 6, 9, 7), (6, 1, 3, 3), {"groups": 6, "padding": (1, 1)}),
    ((1, 6, 9, 7), (3, 2, 5, 3), {"groups": 3, "stride": (3, 2), "padding": (2, 1)}),
    ((1, 4, 5, 5), (12, 1, 3, 3), {"groups": 4}),
    ((2, 5, 4, 6), (7, 5, 1, 1), {}),
    ((2, 3, 8, 12), (10, 3, 4, 4), {"stride": (4, 4)}),
    ((1, 2, 9, 13), (3, 2, 4, 3), {"stride": (4, 3)}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((1, 1, 1, 1), (2, 1, 3, 3), {"padding": (1, 1)}),
    ((0, 3, 4, 4), (2, 3, 3, 3), {}),
    ((1, 70, 6, 6), (17, 70, 3, 3), {"padding": (1, 1)}),
    ((2, 3, 9, 8), (32, 3, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
    ((0, 2, 9, 8), (32, 2, 3, 3), {}),
    ((2, 3, 8, 12), (33, 3, 4, 4), {"stride": (4, 4)}),
    ((1, 7, 5, 6), (35, 7, 1, 1), {}),
]


async def every_choice_of_options(device: Device) -> None:
    for x_shape, w_shape, options in CHOICES:
        x, w, bias = numbers(*x_shape), numbers(*w_shape, seed=1), numbers(w_shape[0], seed=2)
        for operands in ((x, w), (x, w, bias)):
            await agree(
                device,
                lambda *o, options=options: tc.conv2d(*o, **options),
                lambda *o, options=options: _conv2d(*o, **options),
                *operands,
            )


async def same_and_valid(device: Device) -> None:
    x = numbers(1, 2, 6, 7)
    for kernel in ((3, 3), (2, 4), (1, 5)):
        for spacing in (1, 2):
            w = numbers(3, 2, *kernel, seed=1)
            left = [spacing * (k - 1) // 2 for k in kernel]
            right = [spacing * (k - 1) - a for a, k in zip(left, kernel, strict=True)]
            wide = np.pad(x, ((0, 0), (0, 0), (left[0], right[0]), (left[1], right[1]))).astype(np.float64)
            wanted = _conv2d(wide, w, dilation=(spacing, spacing))
            assert wanted.shape[2:] == x.shape[2:]
            a, b = on(device, x, w)
            near(await tc.conv2d(a, b, padding="same", dilation=spacing).read(), wanted)
    near(await tc.conv2d(a, b, padding="valid").read(), _conv2d(x, w))


async def views_and_images_without_a_batch(device: Device) -> None:
    x, w = numbers(2, 9, 7, 3), numbers(4, 3, 3, 3, seed=1)
    a, b = on(device, x, w)
    turned = x.transpose(0, 3, 1, 2)
    channels_last = tc.permute_dims(a, (0, 3, 1, 2))
    near(await tc.conv2d(channels_last, b).read(), _conv2d(turned, w))
    near(await tc.conv2d(channels_last[:, :, ::-2, 1:], b[::-1]).read(), _conv2d(turned[:, :, ::-2, 1:], w[::-1]))
    near(await tc.conv2d(channels_last[1], b, padding=1).read(), _conv2d(turned[1:], w, padding=(1, 1))[0])
    patches = numbers(32, 3, 3, 3, seed=2)
    (p,) = on(device, patches)
    near(await tc.conv2d(channels_last, p, stride=3).read(), _conv2d(turned, patches, stride=(3, 3)))
    near(await tc.conv2d(channels_last[:, :, ::-1], p).read(), _conv2d(turned[:, :, ::-1], patches))
    depthwise = numbers(9, 1, 3, 3, seed=3)
    wanted = 2 * _conv2d(x, depthwise, groups=9, padding=(1, 1)) + 1
    (d,) = on(device, depthwise)
    near(await (tc.conv2d(a * 2, d, groups=9, padding=1) + 1).read(), wanted)


async def float16(device: Device) -> None:
    for x_shape, w_shape, options in (*CHOICES[:9], *CHOICES[-4:]):
        x, w = numbers(*x_shape).astype(np.float16), numbers(*w_shape, seed=1).astype(np.float16)
        got = await tc.conv2d(*on(device, x, w), **options).read()
        assert got.dtype == np.float16
        near(got, _conv2d(x.astype(np.float64), w.astype(np.float64), **options), 2e-3)


async def along_one_axis(device: Device) -> None:
    x, w, bias = numbers(2, 4, 11), numbers(6, 2, 3, seed=1), numbers(6, seed=2)
    wanted = _conv2d(x[:, :, None], w[:, :, None], bias, (1, 2), (0, 1), (1, 2), 2)[:, :, 0]
    a, b, c = on(device, x, w, bias)
    near(await tc.conv1d(a, b, c, stride=2, padding=1, dilation=2, groups=2).read(), wanted)
    near(await tc.conv1d(a[0], b, c, stride=2, padding=1, dilation=2, groups=2).read(), wanted[0])
    assert tc.conv1d(a, b, padding="same", groups=2).shape == (2, 6, 11)


def _transposed(x: Any, w: Any, stride: Any, padding: Any, more: Any, groups: int, dilation: Any) -> Any:
    """Add the weights times every element of x to the result."""
    batch, channels, height, width = x.shape
    _, out, rows, columns = w.shape
    size = [
        (s - 1) * st + d * (k - 1) + m + 1
        for s, st, d, k, m in zip((height, width), stride, dilation, (rows, columns), more, strict=True)
    ]
    y = np.zeros((batch, groups * out, *size))
    for c, i, j, a, b in np.ndindex(channels, height, width, rows, columns):
        group = c // (channels // groups)
        place = (i * stride[0] + a * dilation[0], j * stride[1] + b * dilation[1])
        y[:, group * out : (group + 1) * out, *place] += x[:, c, i, j, None] * w[c, :, a, b]
    return y[:, :, padding[0] : size[0] - padding[0], padding[1] : size[1] - padding[1]]


async def transposed(device: Device) -> None:
    for stride, padding, more, groups, dilation in (
        ((1, 1), (0, 0), (0, 0), 1, (1, 1)),
        ((2, 2), (1, 1), (1, 1), 1, (1, 1)),
        ((3, 2), (0, 1), (2, 0), 2, (1, 2)),
        ((2, 1), (2, 2), (0, 0), 2, (2, 1)),
        ((2, 2), (3, 3), (0, 0), 1, (1, 1)),
    ):
        x, w = numbers(2, 4, 4, 5), numbers(4, 3, 3, 3, seed=1)
        options = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups, "dilation": dilation}
        y = tc.conv_transpose2d(*on(device, x, w), **options)  # type: ignore[arg-type]
        near(await y.read(), _transposed(x, w, stride, padding, more, groups, dilation))


async def wrong_operands_are_refused(device: Device) -> None:
    x, w, bias, half = on(
        device, numbers(1, 4, 5, 5), numbers(2, 4, 3, 3), numbers(3), np.zeros((2, 4, 3, 3), np.float16)
    )
    refused(device, ShapeMismatch, lambda: tc.conv2d(x[:, :3], w))
    refused(device, ShapeMismatch, lambda: tc.conv2d(x, w, bias))
    refused(device, ShapeMismatch, lambda: tc.conv2d(x, w, groups=3))
    refused(device, ShapeMismatch, lambda: tc.conv2d(x, w, dilation=3))
    refused(device, ShapeMismatch, lambda: tc.conv2d(x, w, stride=0))
    refused(device, ShapeMismatch, lambda: tc.conv2d(x, w, padding="same", stride=2))
    refused(device, TensorCommonsError, lambda: tc.conv2d(x, w, padding="reflect"))
    refused(device, UnsupportedDtype, lambda: tc.conv2d(x, half))
    refused(device, ShapeMismatch, lambda: tc.conv2d(x[0, 0], w))
    refused(device, ShapeMismatch, lambda: tc.conv_transpose2d(x, w, output_padding=1))
