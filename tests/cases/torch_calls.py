"""Calls of ``torch.nn.functional``, as data. ``scripts/functional_goldens.py`` runs them in PyTorch and stores the
results; tests/cases/functional.py runs the same calls of ``tensorcommons.nn.functional``, with parameters by name.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Call:
    """``function(*operands, **options)``; arrays are those of NumPy, class numbers int64 as PyTorch requires."""

    function: str
    operands: tuple[Any, ...]
    options: dict[str, Any]


def _numbers(*shape: int, low: float = -2.0, high: float = 2.0) -> Any:
    return np.random.default_rng(shape).uniform(low, high, shape).astype(np.float32)


def _classes(*shape: int, below: int) -> Any:
    return np.random.default_rng([*shape, below]).integers(0, below, shape)


CALLS: dict[str, Call] = {}


def _add(function: str, *operands: Any, **options: Any) -> None:
    number = sum(name.startswith(f"{function}.") for name in CALLS)
    CALLS[f"{function}.{number}"] = Call(function, operands, options)


_x = _numbers(5, 7, low=-9, high=9)
for _name in ("relu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid"):
    _add(_name, _x)
_add("leaky_relu", _x, negative_slope=0.2)
_add("elu", _x, alpha=0.7)
_add("gelu", _x)
_add("gelu", _x, approximate="tanh")
_add("softplus", _x)
_add("softplus", _x, beta=2.5)
for _name, _dim in itertools.product(("softmax", "log_softmax"), (0, -1)):
    _add(_name, _x, dim=_dim)

# Normalization.
_image = _numbers(2, 6, 5, 7)
_six = [_numbers(6), _numbers(6, low=0.5, high=2.0)]
_add("layer_norm", _image, (5, 7), weight=_numbers(5, 7), bias=_numbers(5, 7) + 1, eps=1e-3)
_add("layer_norm", _image, (7,))
_add("rms_norm", _image, (7,), weight=_numbers(7), eps=1e-3)
_add("rms_norm", _image, (5, 7))
_add("group_norm", _image, 3, weight=_six[0], bias=_six[1], eps=1e-4)
_add("group_norm", _image + 1000, 1)
_add("instance_norm", _image, weight=_six[0], bias=_six[1])
_add("batch_norm", _image, running_mean=_six[0], running_var=_six[1], weight=_six[1], bias=_six[0])
_add("batch_norm", _x, running_mean=_numbers(7), running_var=_numbers(7, low=0.1, high=3), eps=1e-2)

# Convolutions.
_add("conv2d", _image, _numbers(4, 3, 3, 2), bias=_numbers(4), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
_add("conv2d", _image, _numbers(5, 6, 2, 4), padding="same")
_add("conv2d", _image, _numbers(12, 1, 3, 3), groups=6)
_add("conv2d", _image, _numbers(3, 6, 2, 3), _numbers(3), stride=(2, 3))
_add("conv2d", _image[0], _numbers(3, 6, 1, 1))
_add("conv1d", _numbers(2, 4, 11), _numbers(6, 2, 3), _numbers(6), stride=2, padding=1, dilation=2, groups=2)
_add(
    "conv_transpose2d", _image, _numbers(6, 2, 3, 2), _numbers(4), stride=(2, 3), padding=1, output_padding=1, groups=2
)
_add("conv_transpose2d", _image, _numbers(6, 5, 3, 3), dilation=2)

# Pooling.
for _ceil, _pad in itertools.product((False, True), (0, 1)):
    _add("max_pool2d", _image, 3, stride=2, padding=_pad, dilation=(1, 2), ceil_mode=_ceil)
    _add("avg_pool2d", _image, (3, 2), stride=2, padding=_pad, ceil_mode=_ceil, count_include_pad=_ceil)
_add("avg_pool2d", _image, 2, divisor_override=3)
_add("avg_pool2d", _image, (3, 2), stride=2, padding=1, ceil_mode=True)
_add("adaptive_avg_pool2d", _image, (3, 4))
_add("adaptive_avg_pool2d", _image, (None, 1))
_add("adaptive_max_pool2d", _image, (2, 5))

# Other sizes.
for _size, _mode in itertools.product(
    ((9, 4), (3, 11), (5, 7)), ("nearest", "nearest-exact", "bilinear", "bicubic", "area")
):
    _add("interpolate", _image, size=_size, mode=_mode)
for _size, _mode in itertools.product(((9, 4), (1, 13), (2, 3)), ("bilinear", "bicubic")):
    _add("interpolate", _image, size=_size, mode=_mode, align_corners=True)
    _add("interpolate", _image, size=_size, mode=_mode, antialias=True)
for _mode in ("nearest", "bilinear", "bicubic"):
    _add("interpolate", _image, scale_factor=(1.7, 0.6), mode=_mode)
    _add("interpolate", _image, scale_factor=1.3, mode=_mode, recompute_scale_factor=True)
_add("interpolate", _numbers(2, 3, 8), size=5, mode="linear")
_add("interpolate", _numbers(1, 2, 37, 37), size=(16, 16), mode="bicubic", antialias=True)

_add("pad", _image, (1, 2, 0, 3), value=1.5)
_add("pad", _image, (-1, 2, 1, -2))
for _mode in ("reflect", "replicate", "circular"):
    _add("pad", _image, (2, 1, 0, 3), mode=_mode)
_add("one_hot", _classes(3, 4, below=5), num_classes=6)
_add("embedding", _classes(3, 4, below=5), _numbers(5, 3))
_add("linear", _numbers(2, 3, 5), _numbers(4, 5), _numbers(4))

_q4, _k4, _v4 = _numbers(2, 4, 5, 8), _numbers(2, 4, 7, 8), _numbers(2, 4, 7, 8) * 2
_add("scaled_dot_product_attention", _q4, _k4, _v4)
_add("scaled_dot_product_attention", _q4, _k4, _v4, _numbers(2, 1, 5, 7), scale=0.7)
_add("scaled_dot_product_attention", _q4, _k4, _v4, attn_mask=_numbers(5, 7) > -1)
_add("scaled_dot_product_attention", _k4, _k4, _v4, is_causal=True)
_add("scaled_dot_product_attention", _q4, _k4[:, :2], _v4[:, :2], enable_gqa=True)
_add("scaled_dot_product_attention", _q4, _k4[:, :2], _v4[:, :1], enable_gqa=True)
_add("scaled_dot_product_attention", _q4[0], _k4[0, :2], _v4[0, :2, :, :3], enable_gqa=True)
_add("scaled_dot_product_attention", _q4, _k4, _v4[..., :3])
_add("scaled_dot_product_attention", _q4, _k4, np.concatenate([_v4] * 5, -1))
for _lead in ((), (3,), (2, 1, 3)):  # one query, a batch without heads, two axes of batches
    _few = [_numbers(*_lead, rows, size) for rows, size in ((5, 8), (7, 8), (7, 3))]
    _add("scaled_dot_product_attention", *_few)
    _add("scaled_dot_product_attention", *_few, attn_mask=_numbers(5, 7))
    _add("scaled_dot_product_attention", *_few, is_causal=True)
for _shapes in (((2, 4), (1, 4)), ((1, 4), (2, 4)), ((2, 4), (2, 1)), ((2, 1), (2, 4)), ((2, 4), (4,)), ((4,), (2, 4))):
    _few = [_numbers(*_lead, rows, 8) for _lead, rows in zip((*_shapes, _shapes[1]), (5, 7, 7), strict=True)]
    _add("scaled_dot_product_attention", *_few)
_nothing = np.where(np.arange(5)[:, None] % 2, np.arange(7) < 3, False)  # every second query has no key
for _mask in (_nothing, np.where(_nothing, 0, -np.inf).astype(np.float32), _nothing[:, :1], np.zeros((1, 7), bool)):
    _add("scaled_dot_product_attention", _q4, _k4, _v4, attn_mask=_mask)
    _add("scaled_dot_product_attention", _q4[0], _k4[0], _v4[0], attn_mask=_mask)
_add("scaled_dot_product_attention", _q4, _k4, _v4, attn_mask=_numbers(4, 5, 7))
_add("scaled_dot_product_attention", _k4, _q4, _q4, is_causal=True)
_add("scaled_dot_product_attention", _q4, _k4, _v4, is_causal=True, scale=0.3)
_add("scaled_dot_product_attention", _q4, _k4[:, :, :0], _v4[:, :, :0])
_add("scaled_dot_product_attention", _q4[..., :0], _k4[..., :0], _v4)

# Losses.
_a, _b = _numbers(4, 3, 5), _numbers(4, 3, 5) * 0.5 + 0.3
_p, _q = _numbers(4, 6, low=0.0, high=1.0), _numbers(4, 6, low=0, high=1)[::-1].copy()
_p[0, :2] = 0, 1
_logits, _labels = _numbers(7, 5) * 4, _classes(7, below=5)
_maps, _map_labels = _numbers(2, 5, 3, 4) * 4, _classes(2, 3, 4, below=5)
_some = np.where(_labels % 2 == 0, _labels, -100)
_w = _numbers(5, low=0.1, high=2)
_soft = np.exp(_numbers(5, 7).T) / np.exp(_numbers(5, 7).T).sum(1, keepdims=True)
for _r in ("none", "mean", "sum"):
    for _name in ("mse_loss", "l1_loss"):
        _add(_name, _a, _b, reduction=_r)
    _add("smooth_l1_loss", _a, _b, reduction=_r, beta=0.7)
    _add("huber_loss", _a, _b, reduction=_r, delta=0.7)
    _add("binary_cross_entropy", _p, _q, reduction=_r)
    _add("binary_cross_entropy", _p, _q, weight=_w[:1], reduction=_r)
    _add("binary_cross_entropy_with_logits", _p * 90 - 45, _q, reduction=_r)
    _add(
        "binary_cross_entropy_with_logits",
        _p * 9 - 5,
        _q,
        weight=_q,
        reduction=_r,
        pos_weight=_numbers(6, low=0.5, high=2),
    )
    _add("kl_div", np.log(_q), _p, reduction=_r)
    _add("kl_div", np.log(_q), np.log(_q[::-1].copy()), reduction=_r, log_target=True)
    _add("nll_loss", _logits, _labels, reduction=_r)
    _add("nll_loss", _maps, _map_labels, weight=_w, ignore_index=3, reduction=_r)
    _add("cross_entropy", _logits, _labels, reduction=_r)
    _add("cross_entropy", _logits * 300, _some, weight=_w, reduction=_r)
    _add("cross_entropy", _maps, _map_labels, weight=_w, ignore_index=2, reduction=_r, label_smoothing=0.2)
    _add("cross_entropy", _logits, _soft, weight=_w, reduction=_r, label_smoothing=0.1)
    _add("cross_entropy", _logits, _soft, reduction=_r)
_add("kl_div", np.log(_q), _p, reduction="batchmean")
_add("cross_entropy", _logits[0], _labels[0])
_add("cosine_similarity", _a, _b)
_add("cosine_similarity", _a, _b[:, :1], dim=-1, eps=3.0)
for _order in (1.0, 2.0, 3.0, float("inf"), 0.0, -1.0, -float("inf")):
    _add("normalize", _a, p=_order, dim=-1)
_add("normalize", _a * 1e-3, dim=0, eps=1.0)
