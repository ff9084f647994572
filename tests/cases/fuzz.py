"""Random graphs, compared with the NumPy references of their operations one by one.

Operands have every layout in memory. Steps whose results would jump with a rounding error (comparisons, floor) follow
only exact values: small multiples of 1/8, of which sums and products are exact on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Tensor
from tensorcommons.formats import BLOCKS
from tensorcommons.graph.node import Node
from tensorcommons.ops.quantized import quantized_linear, quantized_rows
from tensorcommons.samples.quantized import random_blocks
from tensorcommons.tensor import realize
from tests.cases import long

SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 64, 65, 130, 260)  # around those of tiles, panels and vectors
MOST = 2**13  # elements of a value
LARGE = 2**10  # larger numbers are not multiplied, so that exact ones stay exact
EPS = 0.1  # epsilon of norms, which would magnify the rounding errors of nearly equal elements
TOLERANCE = 5e-5
GRAPHS = {"cpu": 150, "webnn": 12, "webgpu": 2}  # a software adapter compiles each kernel for a second
Array = Any


class Choice(Protocol):
    """Source of random whole numbers: a seed here, Hypothesis in tests/ops/test_fuzz.py."""

    def __call__(self, low: int, high: int) -> int:
        """Return a number from ``low`` to ``high``, both included."""
        ...


Put = Callable[[Array], Tensor]  # stores an array as it is


# Layouts of an operand in memory: each gives a tensor that equals the array.
def _dense(put: Put, a: Array) -> Tensor:
    return put(a)


def _computed(put: Put, a: Array) -> Tensor:
    return tc.concat([put(a)], 0) if a.ndim else put(a)


def _behind(put: Put, a: Array) -> Tensor:
    """Begin three elements into a storage."""
    flat = np.concatenate([np.ones(3, a.dtype), a.reshape(-1)])
    return tc.reshape(put(flat)[3:], a.shape)


def _turned(put: Put, a: Array) -> Tensor:
    return tc.permute_dims(put(a.T.copy()), range(a.ndim)[::-1])


def _backwards(put: Put, a: Array) -> Tensor:
    key = (slice(None, None, -1),) * a.ndim
    return put(a[key])[key]


def _with_gaps(put: Put, a: Array) -> Tensor:
    """Take every second element of a row, beginning at an odd one."""
    if not a.ndim:
        return put(a)
    wide = np.ones((*a.shape[:-1], 2 * a.shape[-1] + 1), a.dtype)
    wide[..., 1::2] = a
    return put(wide)[..., 1::2]


def _in_rows(put: Put, a: Array) -> Tensor:
    """Take the first columns of longer rows."""
    if not a.ndim:
        return put(a)
    return put(np.concatenate([a, np.ones((*a.shape[:-1], 5), a.dtype)], -1))[..., : a.shape[-1]]


LAYOUTS = (_dense, _computed, _behind, _turned, _backwards, _with_gaps, _in_rows)


class Draw:
    """Draws of one graph: its values, the arrays that they should have, and whether they are exact."""

    def __init__(self, device: Device, pick: Choice) -> None:
        self.device = device
        self.pick = pick
        self.is_exact = True
        self.scale = 0.0  # the largest number
        self._arrays: dict[Node, Array] = {}

    def some(self, items: Sequence[Any]) -> Any:
        return items[self.pick(0, len(items) - 1)]

    def one_in(self, count: int) -> bool:
        return self.pick(1, count) == count

    def size(self, most: int = SIZES[-1]) -> int:
        return 0 if self.one_in(60) else int(self.some([size for size in SIZES if size <= most]))

    def shape(self, rank: int) -> tuple[int, ...]:
        shape, rest = [], MOST
        for _ in range(rank):
            shape.append(self.size(rest))
            rest //= max(shape[-1], 1)
        return tuple(shape)

    def leaf(self, *shape: int, dtype: str = "float32", low: int = -4, high: int = 4, odd: bool = True) -> Tensor:
        """Draw whole numbers in a random layout; floats are eighths of them, or in one of 24 cases also not finite."""
        rng = np.random.default_rng(self.pick(0, 2**31))
        a: Array = np.asarray(rng.integers(low, high + 1, shape))
        if dtype.startswith("float"):
            a = a / 8
            if odd and self.one_in(24) and a.size and self.device.kind == "cpu":
                a = np.where(rng.random(shape) < 0.1, rng.choice((np.nan, np.inf, -np.inf, -0.0), shape), a)
        tensor: Tensor = self.some(LAYOUTS)(self.put, a.astype(dtype) if dtype != "bool" else a % 2 == 1)
        return tensor

    def put(self, a: Array) -> Tensor:
        """Store an array on the device."""
        tensor = tc.asarray(a, device=self.device)
        self._arrays[tensor.node] = a
        return tensor

    def array(self, x: Tensor | Node) -> Array:
        """Return the array of a value, by the references of its operations."""
        node = x if isinstance(x, Node) else x.node
        if node not in self._arrays:
            assert node.op is not None
            with np.errstate(all="ignore"):
                result = node.op.reference(*map(self.array, node.inputs), **node.attrs)
            self._arrays[node] = np.asarray(result, node.spec.dtype.numpy)
        a = self._arrays[node]
        if a.dtype.kind == "f":
            self.scale = max(self.scale, float(np.abs(a[np.isfinite(a)]).max(initial=0)))
        return a

    def is_small(self, x: Tensor) -> bool:
        a = self.array(x)
        return bool(np.abs(a[np.isfinite(a)]).max(initial=0) < LARGE) if a.dtype.kind != "b" else True

    def beside(self, x: Tensor, dtype: str | None = None) -> Tensor:
        """Draw a leaf that broadcasts to ``x``, or ``x`` itself."""
        if dtype is None and self.one_in(4):
            return x
        shape = [1 if self.one_in(4) else size for size in x.shape][
            self.pick(0, len(x.shape)) if self.one_in(2) else 0 :
        ]
        return self.leaf(*shape, dtype=dtype or x.dtype.name)


Step = Callable[[Draw, Tensor], Tensor]


def _slice(d: Draw, x: Tensor) -> Tensor:
    key = []
    for size in x.shape:
        step = d.some((1, 1, 2, -1, -2, 3))
        low, high = sorted((d.pick(0, size), d.pick(0, size)))
        if not d.one_in(8):  # most parts are not empty
            low, high = (0, size) if low == high else (low, high)
        key.append(slice(low, high, step) if step > 0 else slice(high, d.some((low, None)), step))
    return x[tuple(key)]


def _permute(d: Draw, x: Tensor) -> Tensor:
    axes = list(range(x.ndim))
    return tc.permute_dims(x, [axes.pop(d.pick(0, len(axes) - 1)) for _ in range(x.ndim)])


def _reshape(d: Draw, x: Tensor) -> Tensor:
    shape, rest = [], x.size
    for _ in range(d.pick(0, 3)):
        shape.append(d.some([size for size in range(1, rest + 1) if rest % size == 0] or [1]))
        rest //= shape[-1]
    return tc.reshape(x, (*shape, rest))


def _broadcast(d: Draw, x: Tensor) -> Tensor:
    if x.size > MOST // 27 or x.ndim > 4:
        return x
    return tc.broadcast_to(
        x, (*(d.pick(1, 3) for _ in range(d.pick(0, 2))), *(n if n != 1 else d.pick(1, 3) for n in x.shape))
    )


def _add_a_part(d: Draw, x: Tensor) -> Tensor:
    return x + x[tuple(slice(0, 1) if d.one_in(2) and size else slice(None) for size in x.shape)]


def _concat(d: Draw, x: Tensor) -> Tensor:
    if not x.ndim or x.size > MOST:
        return x
    axis = d.pick(0, x.ndim - 1)
    other = [d.size(9) if i == axis else size for i, size in enumerate(x.shape)]
    parts = [x, d.leaf(*other, dtype=x.dtype.name), *([x] if d.one_in(3) else [])]
    return tc.concat(parts[:: d.some((1, -1))], axis)


def _reduce(d: Draw, x: Tensor) -> Tensor:
    x = _float32(x)
    axes = tuple(axis for axis in range(x.ndim) if d.one_in(2))
    named = ["max", "min"] if all(x.shape[axis] for axis in axes) else []
    rough = ["sum", "mean", "logsumexp"]
    if d.is_exact and x.ndim and all(x.shape):
        named += ["argmax", "argmin"]
    name = d.some([*named, *rough])
    d.is_exact &= name not in rough
    chosen: Any = d.pick(0, x.ndim - 1) if name.startswith("arg") else axes
    return getattr(tc, name)(x, axis=chosen, keepdims=d.one_in(2))


FLOAT_PAIRS = (tc.add, tc.subtract, tc.maximum, tc.minimum)
INT_PAIRS = (tc.add, tc.subtract, tc.multiply, tc.maximum, tc.minimum)
COMPARISONS = (tc.equal, tc.not_equal, tc.less, tc.less_equal, tc.greater, tc.greater_equal)
JUMPS = (tc.floor, tc.ceil, tc.trunc, tc.round, tc.isnan, tc.isfinite, lambda x: tc.astype(x, "bool"))
SMOOTH = (
    *(tc.sigmoid, tc.tanh, tc.gelu, partial(tc.gelu, approximate="tanh"), tc.silu, tc.erf, tc.relu),
    *(lambda x: tc.exp(-tc.abs(x)), lambda x: tc.sqrt(tc.abs(x)), lambda x: tc.log1p(tc.abs(x))),
)


def _elementwise(d: Draw, x: Tensor) -> Tensor:
    """Draw a chain of operations."""
    for _ in range(d.pick(1, 6)):
        kind = x.dtype.kind
        if d.one_in(5):
            x = tc.where(d.beside(x, "bool"), x, d.beside(x))
        elif kind == "bool":
            pairs = (tc.logical_and, tc.logical_or, tc.logical_xor, tc.equal)
            x = d.some(pairs)(x, d.beside(x)) if d.one_in(2) else tc.astype(x, d.some(("int32", "float32")))
        elif d.one_in(4) and (kind == "int" or d.is_exact):
            x = d.some(COMPARISONS)(x, d.beside(x)) if d.one_in(2) or kind == "int" else d.some(JUMPS)(x)
        elif kind == "int":
            x = (
                d.some(INT_PAIRS)(x, d.beside(x))
                if d.one_in(2)
                else d.some((tc.abs, tc.negative, tc.square, _float32))(x)
            )
        elif d.one_in(4):
            d.is_exact = False
            x = d.some(SMOOTH)(x)
        else:
            operations = (*FLOAT_PAIRS, tc.multiply) if d.is_small(x) else FLOAT_PAIRS
            x = d.some(operations)(x, d.beside(x)) if not d.one_in(4) else d.some((tc.abs, tc.negative))(x)
    return x


def _float32(x: Tensor) -> Tensor:
    return x if x.dtype.name == "float32" else tc.astype(x, "float32")


def _finished(d: Draw, y: Tensor) -> Tensor:
    """Draw the epilogue of a product."""
    d.is_exact = False
    if d.one_in(3):
        y = d.some((tc.relu, tc.gelu, tc.sigmoid, tc.tanh, partial(tc.gelu, approximate="tanh")))(y)
    if d.one_in(3):
        y = y + d.leaf(*y.shape)
    return y


def _linear(d: Draw, x: Tensor) -> Tensor:
    x = _float32(x if x.ndim else tc.reshape(x, (1, 1)))
    n = d.size(min(260, MOST // max(x.size // max(x.shape[-1], 1), 1)))
    bias = d.leaf(n) if d.one_in(2) else None
    if x.shape[-1] % 32 == 0 and x.shape[-1] and n and d.one_in(2):
        shape = n, x.shape[-1]
        form = d.some([form for form in BLOCKS.values() if not form.misfit(shape)])
        words = d.put(random_blocks(form, shape))
        return _finished(d, quantized_linear(x, words, bias, block_format=form.name, shape=shape))
    dtype = d.some(("float32", "float32", "float16"))
    if d.one_in(3):
        weight = tc.permute_dims(d.leaf(x.shape[-1], n, dtype=dtype), (1, 0))
    else:
        weight = d.leaf(n, x.shape[-1], dtype=dtype)
    return _finished(d, tc.linear(x, weight, bias))


def _matmul(d: Draw, x: Tensor) -> Tensor:
    x = _float32(x if x.ndim > 1 else tc.reshape(x, (1, x.size)))
    lead = [1 if d.one_in(3) else size for size in x.shape[:-2]][d.pick(0, x.ndim - 2) :]
    n = d.size(min(130, MOST // max(x.size // max(x.shape[-1], 1), 1)))
    if np.prod(lead, dtype=int) * n * x.shape[-1] > 4 * MOST:
        lead = []
    d.is_exact = False
    return tc.matmul(x, d.leaf(*lead, x.shape[-1], n, dtype=d.some(("float32", "float16"))))


def _norm(d: Draw, x: Tensor) -> Tensor:
    x = _float32(x if x.ndim else tc.reshape(x, (1,)))
    if not x.shape[-1]:
        return x
    d.is_exact = False
    if d.one_in(3):
        return d.some((tc.softmax, tc.log_softmax))(x, axis=d.pick(0, x.ndim - 1))
    weight = d.leaf(x.shape[-1])
    if d.one_in(3):
        return tc.rms_norm(x, weight, EPS)
    return tc.layer_norm(x + d.leaf(*x.shape) if d.one_in(2) else x, weight, d.leaf(x.shape[-1]), EPS)


def _take(d: Draw, x: Tensor) -> Tensor:
    x = x if x.ndim > 1 else tc.reshape(x, (x.size, 1))
    rows = x.shape[0]
    ids = d.leaf(*d.shape(d.pick(0, 2)), dtype="int32", low=-rows - 2, high=rows + 2)
    if ids.size * x.size > MOST * max(rows, 1):
        ids = d.leaf(3, dtype="int32", low=-rows - 2, high=rows + 2)
    if x.ndim == 2 and x.dtype.name == "float32" and d.one_in(2):
        halves = d.is_exact and d.one_in(2)
        return _float32(tc.embedding(tc.astype(x, "float16") if halves else x, ids))
    axis = d.pick(0, x.ndim - 1)
    return tc.take(x, ids, axis if x.shape[axis] == rows else 0)


VIEWS: tuple[Step, ...] = (_slice, _permute, _reshape, _broadcast, _add_a_part, _concat)
STEPS: tuple[Step, ...] = (
    *(_slice, _permute, _reshape, _broadcast, _concat, _reduce, _take),
    *(_elementwise, _elementwise, _linear, _linear, _matmul, _norm),
)


def _attention(d: Draw) -> Tensor:
    """Draw finite numbers: a value times the weight 0 of a key that is not seen is left out or not."""
    d.is_exact = False
    shared, group, batch = d.pick(1, 2), d.pick(1, 3), d.pick(1, 2)
    queries, keys, width = d.size(33) or 1, d.size(65) or 1, d.size(33) or 1
    q = d.leaf(batch, queries, shared * group, width, odd=False)
    k, v = (d.leaf(batch, keys, shared, size, odd=False) for size in (width, d.some((width, 5))))
    mask = None
    if d.one_in(2):
        shape = d.some(((keys,), (queries, keys), (batch, 1, 1, keys), (batch, shared * group, queries, keys)))
        mask = d.leaf(*shape, dtype="bool")
        mask = d.some((mask, tc.where(mask, d.put(np.float32(0)), d.put(np.float32(-np.inf)))))
    q, k, v = (tc.permute_dims(each, (0, 2, 1, 3)) for each in (q, k, v))
    y = tc.scaled_dot_product_attention(q, k, v, mask, is_causal=d.one_in(3))
    return tc.reshape(tc.permute_dims(y, (0, 2, 1, 3)), (batch, queries, -1)) if d.one_in(2) else y


def _convolution(d: Draw) -> Tensor:
    """Draw finite numbers: a weight times the zeros around an image is left out or not."""
    d.is_exact = False
    groups = d.pick(1, 3)
    x = d.leaf(d.pick(1, 2), groups * d.pick(1, 3), d.pick(3, 12), d.pick(3, 12), odd=False)
    outputs, kernel = groups * d.some((1, 2, 9)), (d.pick(1, 3), d.pick(1, 3))
    stride, bias = (d.pick(1, 3), d.pick(1, 2)), d.leaf(outputs, odd=False) if d.one_in(2) else None
    if d.one_in(3):
        weight = d.leaf(x.shape[1], outputs // groups, *kernel, odd=False)
        return tc.conv_transpose2d(x, weight, bias, stride, groups=groups)
    weight = d.leaf(outputs, x.shape[1] // groups, *kernel, odd=False)
    return tc.conv2d(x, weight, bias, stride, d.pick(0, 2), groups=groups)


def _rotary(d: Draw) -> Tensor:
    d.is_exact = False
    length, half = d.size(17) or 1, d.pick(1, 17)
    x = d.leaf(d.pick(1, 2), d.pick(1, 3), length, 2 * half + d.some((0, 0, 3)))
    rows = length + d.pick(0, 3)
    positions = d.leaf(length, dtype="int32", low=-1, high=rows) if d.one_in(2) else None
    return tc.rotary_embedding(x, d.leaf(rows, half), d.leaf(rows, half), positions, interleaved=d.one_in(2))


def _append(d: Draw) -> Tensor:
    batch, heads, capacity, n = d.pick(1, 2), d.pick(1, 2), d.pick(1, 9), d.size(33) or 1
    update = d.leaf(batch, d.pick(1, capacity), heads, n)
    positions = d.leaf(batch, dtype="int32", low=-2, high=capacity)
    return tc.kv_cache_append(d.leaf(batch, heads, capacity, n), tc.permute_dims(update, (0, 2, 1, 3)), positions)


def _rows(d: Draw) -> Tensor:
    form = d.some(list(BLOCKS.values()))
    shape = d.pick(1, 9), form.size * d.pick(1, 3)
    ids = d.leaf(*d.shape(d.pick(0, 1)), dtype="int32", low=-2, high=shape[0] + 1)
    d.is_exact = False
    return quantized_rows(d.put(random_blocks(form, shape)), ids, block_format=form.name, shape=shape)


def _floats(d: Draw) -> Tensor:
    return d.leaf(*d.shape(d.pick(0, 4)))


def _leaf(d: Draw) -> Tensor:
    return d.leaf(*d.shape(d.pick(0, 4)), dtype=d.some(("float32", "float32", "float32", "int32", "bool")))


SOURCES = (_leaf, _leaf, _leaf, _leaf, _attention, _convolution, _rotary, _append, _rows)


async def check(
    device: Device,
    pick: Choice,
    steps: Sequence[Step] = STEPS,
    sources: Sequence[Callable[[Draw], Tensor]] = SOURCES,
) -> None:
    """Compare one random graph on ``device`` with NumPy; a failure shows its steps."""
    draw = Draw(device, pick)
    source = draw.some(sources)
    values = [source(draw)]
    done = [f"{source.__name__} {values[0].shape}"]
    for _ in range(pick(1, 5)):
        if values[-1].size > MOST:
            break
        step = draw.some(steps)
        values.append(step(draw, values[-1]))
        done.append(f"{step.__name__} {values[-1].shape}")
    outputs = [values[-1], *([draw.some(values)] if draw.one_in(3) else [])]
    wanted = [draw.array(each) for each in outputs]
    await realize(outputs)
    try:
        for output, expected in zip(outputs, wanted, strict=True):
            _compare(await output.read(), expected, 0.0 if draw.is_exact else TOLERANCE, draw.scale)
    except AssertionError as error:
        error.add_note("; ".join(done))
        raise


def _compare(got: Array, wanted: Array, tolerance: float, scale: float) -> None:
    """Assert equal dtypes, shapes and values; floats within ``tolerance`` of their own size and of ``scale``."""
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), (
        f"{got.dtype}{got.shape}: {wanted.dtype}{wanted.shape}"
    )
    if wanted.dtype.kind != "f" or not tolerance:
        np.testing.assert_array_equal(got, wanted)
        return
    odd = ~np.isfinite(wanted)
    np.testing.assert_array_equal(got[odd], wanted[odd])
    error, size = (np.abs(np.float64(a)) for a in (got[~odd] - wanted[~odd], wanted[~odd]))
    wrong = ~(error <= tolerance * (size + 0.1 * scale))
    assert not wrong.any(), (
        f"{wrong.sum()} of {wanted.size}: {got[~odd][wrong][:5]} instead of {wanted[~odd][wrong][:5]}"
    )


def seeded(*seed: int) -> Choice:
    rng = np.random.default_rng(seed)
    return lambda low, high: int(rng.integers(low, high + 1))


async def random_expressions(device: Device) -> None:
    """Views, whose steps need few kernels."""
    for seed in range(150):
        await check(device, seeded(seed), VIEWS, (_floats,))


async def random_graphs(device: Device) -> None:
    for seed in range(GRAPHS[device.kind]):
        await _graph(device, seed)


@long("cpu", "webgpu", "webnn")
async def thousands_of_random_graphs(device: Device) -> None:
    for seed in range(1000, 1000 + 20 * GRAPHS[device.kind]):
        await _graph(device, seed)


async def _graph(device: Device, seed: int) -> None:
    try:
        await check(device, seeded(seed))
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
