"""``tensorcommons.nn.functional`` compared with the results of the same calls in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tests.cases.support import NAN, near, numbers, on, refused
from tests.cases.torch_calls import CALLS, Call

F = tc.nn.functional
GOLDENS = Path(__file__).parents[1] / "goldens"


def _on(device: Device, value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return tc.asarray(array.astype(np.int32) if array.dtype.kind == "i" else array, device=device)
    return value


async def _agree(device: Device, name: str, call: Call, wanted: Any) -> None:
    operands = [_on(device, value) for value in call.operands]
    options = {key: _on(device, value) for key, value in call.options.items()}
    got = await getattr(F, call.function)(*operands, **options).read()
    try:
        near(got, wanted)
    except AssertionError as error:
        error.add_note(f"{name}: {call.function}{[np.shape(o) for o in call.operands]} {list(call.options)}")
        raise


async def _all_of(device: Device, names: str) -> None:
    functions = names.split()
    with np.load(GOLDENS / "functional.npz") as answers:
        found = {name: call for name, call in CALLS.items() if call.function in functions}
        assert {call.function for call in found.values()} == set(functions)
        for name, call in found.items():
            await _agree(device, name, call, answers[name])


async def activations_as_pytorch(device: Device) -> None:
    await _all_of(device, "relu silu sigmoid tanh hardswish hardsigmoid leaky_relu elu gelu softplus")
    await _all_of(device, "softmax log_softmax")


async def normalization_as_pytorch(device: Device) -> None:
    await _all_of(device, "layer_norm rms_norm group_norm instance_norm batch_norm normalize cosine_similarity")


async def convolutions_as_pytorch(device: Device) -> None:
    await _all_of(device, "conv1d conv2d conv_transpose2d")


async def pooling_as_pytorch(device: Device) -> None:
    await _all_of(device, "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d")


async def resizing_and_padding_as_pytorch(device: Device) -> None:
    await _all_of(device, "interpolate pad")


async def lookups_and_products_as_pytorch(device: Device) -> None:
    await _all_of(device, "one_hot embedding linear scaled_dot_product_attention")


async def distances_as_pytorch(device: Device) -> None:
    await _all_of(device, "mse_loss l1_loss smooth_l1_loss huber_loss")


async def likelihoods_as_pytorch(device: Device) -> None:
    await _all_of(device, "binary_cross_entropy binary_cross_entropy_with_logits kl_div nll_loss cross_entropy")


async def float16_is_computed_in_float32(device: Device) -> None:
    x = (numbers(2, 4, 500) * 20 + 100).astype(np.float16)
    (a,) = on(device, x)
    wide = x.astype(np.float64).reshape(2, 2, -1)
    wanted = ((wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)).reshape(x.shape)
    got = await F.group_norm(a, 2).read()
    assert got.dtype == np.float16
    near(got, wanted, 1e-3)
    loss = await F.mse_loss(a, tc.zeros_like(a)).read()
    assert loss.dtype == np.float16
    near(loss, np.mean(x.astype(np.float64) ** 2), 1e-3)
    classes = np.zeros((2, 500), np.int32)
    logs = x.astype(np.float64) - np.log(np.exp(x.astype(np.float64)).sum(1, keepdims=True))
    near(await F.cross_entropy(a, on(device, classes)[0]).read(), -logs[:, 0].mean(), 1e-3)


async def targets_that_do_not_count(device: Device) -> None:
    x = numbers(4, 3)
    a, ignored, outside = on(device, x, np.full(4, -100, np.int32), np.array([0, 3, -1, 2], np.int32))
    near(await F.cross_entropy(a, ignored).read(), np.float64(NAN))
    near(await F.cross_entropy(a, ignored, reduction="sum").read(), np.float64(0))
    got = await F.cross_entropy(a, outside, reduction="none").read()
    assert np.isnan(got[1:3]).all() and np.isfinite(got[[0, 3]]).all()
    got = await F.cross_entropy(a, np.array([0, 1, 2, 0]), reduction="none").read()
    near(got, np.log(np.exp(x.astype(np.float64)).sum(1)) - x[np.arange(4), [0, 1, 2, 0]])


async def wrong_operands_are_refused(device: Device) -> None:
    x, y, ids = on(device, numbers(4, 3), numbers(3, 4), np.zeros(4, np.int32))
    refused(device, ShapeMismatch, lambda: F.mse_loss(x, y))
    refused(device, TensorCommonsError, lambda: F.mse_loss(x, x, reduction="median"))
    refused(device, ShapeMismatch, lambda: F.cross_entropy(x, ids[:3]))
    refused(device, ShapeMismatch, lambda: F.cross_entropy(x, y))
    refused(device, ShapeMismatch, lambda: F.cross_entropy(x, ids, weight=x[:, 0]))
    refused(device, TensorCommonsError, lambda: F.cross_entropy(x, ids, label_smoothing=2))
    refused(device, UnsupportedDtype, lambda: F.nll_loss(x, x[:, 0]))
    refused(device, UnsupportedDtype, lambda: F.l1_loss(ids, ids))
    refused(device, ShapeMismatch, lambda: F.group_norm(x, 2))
    refused(device, ShapeMismatch, lambda: F.batch_norm(x, x[0], x[:, 0]))
    refused(device, TensorCommonsError, lambda: F.batch_norm(x, x[0], x[0], training=True))
    refused(device, ShapeMismatch, lambda: F.layer_norm(x, (4,)))
    refused(device, TensorCommonsError, lambda: F.one_hot(ids))
    heads = tc.reshape(x, (1, 4, 3, 1))
    refused(device, ShapeMismatch, lambda: F.scaled_dot_product_attention(heads, heads[:, :2], heads[:, :2]))
    refused(device, TensorCommonsError, lambda: F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.1))
    refused(device, ShapeMismatch, lambda: F.pad(x, (1,)))
    refused(device, ShapeMismatch, lambda: F.pad(x, (3, 3), mode="reflect"))
    refused(device, TensorCommonsError, lambda: F.pad(x, (1, 1), mode="mirror"))
