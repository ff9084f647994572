"""Samples of products, normalizations and attention: compared by norm."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.samples import FLOATS, NUMBERS, Shapes, declare

ROWS: tuple[Shapes, ...] = (((1,),), ((7,),), ((0, 5),), ((13, 17),), ((2, 3, 130),), ((3, 100_000),))


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _layer_norm(x: Any, weight: Any, bias: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def _attention(q: Any, k: Any, v: Any) -> Any:
    return _softmax(q @ np.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5) @ v


def _log_softmax(x: Any) -> Any:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _rms_norm(x: Any, weight: Any) -> Any:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


declare("softmax", tc.softmax, _softmax, ROWS, FLOATS)
declare("log_softmax", tc.log_softmax, _log_softmax, ROWS, FLOATS)
declare("rms_norm", tc.rms_norm, _rms_norm, [((*s[0][:-1], n), (n,)) for s in ROWS for n in s[0][-1:]], FLOATS)
declare("layer_norm", tc.layer_norm, _layer_norm, [((*s[0][:-1], n), (n,), (n,)) for s in ROWS if (n := s[0][-1]) > 1], FLOATS)  # noqa: E501 # fmt: skip
declare("matmul", tc.matmul, np.matmul, (((3, 4), (4, 5)), ((1, 1), (1, 1)), ((0, 3), (3, 2)), ((4, 0), (0, 2)), ((2, 1, 17, 13), (3, 13, 11)), ((33, 64), (64, 65))), NUMBERS)  # noqa: E501 # fmt: skip
declare("linear", tc.linear, lambda x, w, b: x @ w.T + b, (((5, 7), (3, 7), (3,)), ((2, 3, 64), (17, 64), (17,)), ((0, 4), (2, 4), (2,))), FLOATS)  # noqa: E501 # fmt: skip
declare("scaled_dot_product_attention", tc.scaled_dot_product_attention, _attention, (((1, 1, 1, 1),) * 3, ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)), ((1, 2, 9, 33),) * 3), FLOATS)  # noqa: E501 # fmt: skip
