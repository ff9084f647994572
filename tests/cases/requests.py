"""Random graphs: constants, broadcasts, views, products, norms and appends, read by several requests in part.

A :class:`Drawn` is a function of the same arrays at each call, so the same requests can be computed merged,
one by one, and by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Tensor
from tests.cases.support import numbers

ROWS, WIDE, NARROW = 20, 192, 32  # enough rows and depth for a split-K product on hardware
EPS = 0.1  # epsilon of norms: does not magnify rows of nearly equal values, and their errors
Array = np.ndarray[Any, Any]
Values = Mapping[str, Any]


class Choices:
    """Random integers of a seed."""

    def __init__(self, *seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, count: int) -> int:
        return int(self._rng.integers(count))

    def of(self, items: Sequence[Any]) -> Any:
        return items[self(len(items))]


def arrays_of(dtype: str) -> dict[str, Array]:
    """Draw the inputs of the graphs: two activations, a cache, and weights."""
    made = {
        "x": numbers(ROWS, WIDE), "y": numbers(ROWS, NARROW, seed=1), "cache": numbers(1, 1, ROWS, NARROW, seed=2),
        "table": numbers(50, NARROW, seed=3), "places": numbers(ROWS, NARROW, seed=4),
    }  # fmt: skip
    for rows in (WIDE, NARROW):
        made |= {f"norm {rows}": 1 + numbers(rows, seed=5) / 8, f"shift {rows}": numbers(rows, seed=6)}
        for columns in (WIDE, NARROW):
            made[f"matrix {rows} {columns}"] = numbers(rows, columns, seed=7) / columns**0.5
    return {name: array.astype(dtype) for name, array in made.items()}


WEIGHTS = [name for name in arrays_of("float32") if name not in ("x", "y", "cache")]
IDS = np.arange(ROWS, dtype=np.int32) * 7 % 50


class _NumPy:
    """The functions of tensorcommons that graphs are made of, by NumPy in float64."""

    float32 = float16 = np.float64

    def linear(self, x: Any, w: Any, b: Any = None) -> Any:
        return x @ w.T if b is None else x @ w.T + b

    def relu(self, x: Any) -> Any:
        return np.maximum(x, 0)

    def sigmoid(self, x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    def layer_norm(self, x: Any, w: Any, b: Any, eps: float) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w + b

    def softmax(self, x: Any) -> Any:
        powers = np.exp(x - x.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def embedding(self, ids: Any, table: Any) -> Any:
        return table[ids]

    def kv_cache_append(self, cache: Any, update: Any, position: int) -> Any:
        result = cache.copy()
        result[:, :, position : position + update.shape[2]] = update
        return result

    def matmul(self, a: Any, b: Any) -> Any:
        return a @ b

    def permute_dims(self, x: Any, axes: Any) -> Any:
        return np.transpose(x, axes)

    def full(self, shape: Any, value: float) -> Any:
        return np.full(shape, value)

    def __getattr__(self, name: str) -> Any:  # tanh, concat, sum, reshape, broadcast_to, max
        return getattr(np, name)


NUMPY: Any = _NumPy()


class _Tensors:
    """The functions of :class:`_NumPy` on a device."""

    def __init__(self, given: Values) -> None:
        self._x = given["x"]

    def full(self, shape: Any, value: float) -> Tensor:
        return tc.full(shape, value, dtype=self._x.dtype, device=self._x.device)

    def embedding(self, ids: Any, table: Any) -> Tensor:
        return tc.take(table, tc.asarray(ids, device=self._x.device), axis=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(tc, name)


Step = Callable[[Any, Values, Sequence[Any]], Any]  # of the functions, the inputs, and the earlier values


@dataclass
class Drawn:
    """Steps that each make one value of ``ROWS`` rows, and for each request the indices of the values that it reads."""

    steps: list[Step] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    requests: list[list[int]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def of(self, given: Values, request: int | None = None) -> list[Any]:
        """Compute the values that one or all requests read: tensors from tensors, float64 arrays from arrays."""
        wanted = self.requests[request] if request is not None else [n for each in self.requests for n in each]
        of: Any = _Tensors(given) if isinstance(given["x"], Tensor) else NUMPY
        made: list[Any] = []
        for step in self.steps[: max(wanted) + 1]:
            made.append(step(of, given, made))
        return [made[number] for number in wanted]

    def add(self, name: str, step: Step, width: int) -> None:
        self.steps.append(step)
        self.widths.append(width)
        self.done.append(f"{len(self.steps) - 1} = {name}")


def drawn(seed: int, requests: int = 3) -> Drawn:
    """Draw the graph of a seed: a trunk, and for each request some more steps, of which it reads up to three values."""
    pick, graph = Choices(seed), Drawn()
    graph.add("x", lambda of, given, made: given["x"], WIDE)
    graph.add("y", lambda of, given, made: given["y"], NARROW)
    for _ in range(4 + pick(8)):
        _step(graph, pick)
    trunk = len(graph.steps)
    for _ in range(requests):
        before = len(graph.steps)
        for _ in range(pick(5)):
            _step(graph, pick)
        own = [*range(max(trunk - 4, 0), trunk), *range(before, len(graph.steps)), pick(trunk)]
        graph.requests.append([pick.of(own) for _ in range(1 + pick(3))])
        graph.done.append(f"read {graph.requests[-1]}")
    return graph


def _step(graph: Drawn, pick: Choices) -> None:
    """Draw a step on earlier values, more often on recent ones."""

    def earlier(width: int) -> int:
        fitting = [number for number, known in enumerate(graph.widths) if known == width]
        return int(fitting[-1 - pick(min(len(fitting), 3))])

    width = pick.of((WIDE, NARROW))
    a, b, other = earlier(width), earlier(width), pick.of((WIDE, NARROW))
    number = pick.of((0.5, -2.0, 3.0))
    kind = pick.of(list(KINDS))
    if kind == "embedding":
        width = NARROW
    if kind == "append":
        width, a = NARROW, earlier(NARROW)
    make, result = KINDS[kind](a, b, width, other, number, pick)
    graph.add(f"{kind}({a}, {b}) {width}", make, result)


def _linear(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    has_bias, residual = pick(2), pick(2)

    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        bias = (given[f"shift {width}"],) if has_bias else ()
        return of.linear(made[a], given[f"matrix {width} {width}"], *bias) + (made[b] if residual and a != b else 0)

    def across(of: Any, given: Values, made: Sequence[Any]) -> Any:
        return of.linear(made[a], given[f"matrix {other} {width}"], *((given[f"shift {other}"],) if has_bias else ()))

    return (step, width) if pick(2) else (across, other)


def _linear_norm(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        total = of.linear(made[a], given[f"matrix {width} {width}"], given[f"shift {width}"]) + made[b]
        return of.layer_norm(total, given[f"norm {width}"], given[f"shift {width}"], EPS)

    return step, width


def _activation(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    name = pick.of(("relu", "tanh", "sigmoid"))
    return lambda of, given, made: getattr(of, name)(made[a]), width


def _add(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    if pick(2):
        return lambda of, given, made: made[a] + made[b], width
    return lambda of, given, made: made[a] + given[f"shift {width}"], width


def _norm(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    plain = pick(2)

    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        x = made[a] if plain else made[a] + made[b]
        return of.layer_norm(x, given[f"norm {width}"], given[f"shift {width}"], EPS)

    return step, width


def _chain(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    return lambda of, given, made: of.tanh(made[a] * number + made[b]) * 0.5 - 1, width


def _constants(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    """Draw constants that differ only in shape: the rows, the columns, and the totals of others."""

    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        totals = [of.sum(of.full((rows, 1), number) * 0.25) for rows in (3, 5)]
        rows, columns = of.full((ROWS, 1), number) * 0.25, of.full((width,), number) * 0.25
        return made[a] * 0.5 + rows + columns + (totals[0] - totals[1])

    return step, width


def _views(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    kind = pick(4)

    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        x = made[a]
        if kind == 0:
            return x[::-1]
        if kind == 1:
            return of.concat([x[:, width // 2 :], x[:, : width // 2]], axis=1)
        if kind == 2:
            turned = of.permute_dims(of.reshape(x, (4, ROWS // 4, width)), (1, 0, 2))
            return of.reshape(turned, (ROWS, width))
        return of.broadcast_to(x[3:4], (ROWS, width))

    return step, width


def _reduction(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    name, axis = pick.of(("sum", "max")), pick(2)
    scale = 0.3 / (width if axis else ROWS) if name == "sum" else 0.3  # 1 gives zeros if all rows are equal
    return lambda of, given, made: made[b] - getattr(of, name)(made[a], axis=axis, keepdims=True) * scale, width


def _softmax(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    return lambda of, given, made: of.softmax(made[a]) * 4, width


def _matmul(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        weights = of.softmax(of.matmul(made[a], of.permute_dims(made[b], (1, 0))) / width)
        return of.matmul(weights, made[b])

    return step, width


def _embedding(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        total = of.embedding(IDS, given["table"]) + given["places"]
        return of.layer_norm(total, given[f"norm {NARROW}"], given[f"shift {NARROW}"], EPS)

    return step, NARROW


def _append(a: int, b: int, width: int, other: int, number: float, pick: Choices) -> tuple[Step, int]:
    first, count = pick(ROWS // 2), 1 + pick(ROWS // 2)

    def step(of: Any, given: Values, made: Sequence[Any]) -> Any:
        rows = of.reshape(made[a][:count], (1, 1, count, NARROW))
        return of.reshape(of.kv_cache_append(given["cache"], rows, first), (ROWS, NARROW))

    return step, NARROW


KINDS: dict[str, Callable[..., tuple[Step, int]]] = {
    "linear": _linear, "linear_norm": _linear_norm, "activation": _activation, "add": _add, "norm": _norm,
    "chain": _chain, "constants": _constants, "views": _views, "reduction": _reduction, "softmax": _softmax,
    "matmul": _matmul, "embedding": _embedding, "append": _append,
}  # fmt: skip
