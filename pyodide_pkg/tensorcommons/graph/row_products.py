"""Products of one value of a few rows, as a decoder's step has them, with what stands before and after them.

One dispatch multiplies up to :data:`TOGETHER` weights of different sizes (query, key and value), computes the norm that
they are products of, and multiplies an activated product by another one (a gated feed-forward layer). Weights are all
dense, or all quantised, of any formats. It pays on devices where a step costs more than what it computes
(``steps_cost``), for the few rows of a decoder's step: each workgroup computes the norm of the rows again, which takes
less time than a dispatch. Kernels compute each part as it is computed alone, so this is a pattern of the second phase
(:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.backend import Backend
from ..backends.base import Attributes, Op, Spec
from ..backends.ops import OPS
from ..shapes import Shape, size_of
from .arena import align
from .graph import Graph
from .node import Node
from .plan import PART
from .rewrite import Replacement, rewritten
from .views import owner_of

TOGETHER = 3  # weights: x, the norm's weight, the result and as many biases are the 8 storage buffers of a stage, or 9
PRODUCTS = ("linear", "quantized_linear")
NORMS = {"rms_norm": 1, "layer_norm": 2}  # operands beside x
BUFFERS = 8  # storage buffers that a shader stage has everywhere


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    length = attrs["length"]
    assert isinstance(length, int)
    return Spec((length,), specs[0].dtype)


def _reference(
    x: Any, *more: Any, count: int, biased: bool, norm: str | None, eps: float | None, activation: str | None,
    gated: bool, starts: Sequence[int], length: int, block_formats: Sequence[str], weight_shapes: Sequence[Shape],
    precision: str,
) -> Any:  # fmt: skip
    rest = list(more)
    if norm is not None:
        x = OPS[norm].reference(x, *(rest.pop(0) for _ in range(NORMS[norm])), eps=eps)
    weights, biases = rest[:count], [[bias] for bias in rest[count:]] if biased else [[]] * count
    activations = [activation, None] if gated else [activation] * count
    product, kinds = OPS["linear"], [dict[str, Any]()] * count
    if block_formats:
        product = OPS["quantized_linear"]
        kinds = [
            {"block_format": form, "weight_shape": shape, "precision": precision}
            for form, shape in zip(block_formats, weight_shapes, strict=True)
        ]
    products = [
        product.reference(x, weight, *bias, activation=None, residual=False, **kind)
        for weight, bias, kind in zip(weights, biases, kinds, strict=True)
    ]
    products = [OPS[name].reference(y) if name else y for name, y in zip(activations, products, strict=True)]
    result = np.zeros(length, products[0].dtype)
    for start, y in zip(starts, [products[0] * products[1]] if gated else products, strict=True):
        result[start : start + y.size] = y.reshape(-1)
    return result


def _shapes(attrs: Attributes) -> Sequence[Shape]:
    shapes = attrs["weight_shapes"]
    assert isinstance(shapes, tuple)
    return shapes  # type: ignore[return-value]


# x; the operands of its ``norm``, if there is one; ``count`` weights, and with ``biased`` their biases. The results
# lie in one value of ``length`` elements, from the elements ``starts`` on. ``block_formats`` are those of quantised
# weights, or empty; ``weight_shapes`` are (out, in) of each weight.
ROW_PRODUCTS = Op(
    "row_products",
    _infer,
    _reference,
    multiply_adds=lambda specs, result, attrs: sum(
        size_of(specs[0].shape[:-1]) * size_of(shape) for shape in _shapes(attrs)
    ),
    operations=lambda specs, result, attrs: (
        size_of(result.shape) * (bool(attrs["activation"]) + bool(attrs["gated"]) + bool(attrs["biased"]))
        + 4 * size_of(specs[0].shape) * (attrs["norm"] is not None)
    ),
)


@dataclass(frozen=True)
class _Group:
    """Products ``members`` of ``x``, or of its norm if ``norm`` is given; ``gate`` is what a gated pair becomes."""

    x: Node
    members: Sequence[Node]
    norm: Node | None
    gate: Node | None


def join_row_products(graph: Graph, backend: Backend[Any]) -> Graph:
    """Return ``graph`` with products of a few rows joined, where ``backend`` has kernels for them."""
    uses, ends = graph.uses(), set(graph.outputs)
    users: dict[Node, list[Node]] = {}
    found: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        for child in dict.fromkeys(node.inputs):
            users.setdefault(child, []).append(node)
        if node.op is not None and node.op.name in PRODUCTS and node not in ends and _joins(node, backend):
            found.setdefault(node.inputs[0], []).append(node)
    replaced: dict[Node, tuple[_Group, int]] = {}  # a node, its group and the number of its part
    for x, members in found.items():
        for group in _groups(x, members, users, uses, ends, backend):
            parts = [group.gate] if group.gate is not None else group.members
            replaced |= {part: (group, number) for number, part in enumerate(parts)}
    made: dict[int, Node] = {}

    def pattern(node: Node) -> Replacement | None:
        if node not in replaced:
            return None
        group, number = replaced[node]
        sizes = [size_of(part.spec.shape) for part in ([group.gate] if group.gate else group.members)]
        starts = _starts(sizes, node.spec.dtype.itemsize)

        def part(operands: tuple[Node, ...]) -> Node:
            joined = made.get(id(group)) or made.setdefault(id(group), _join(group, operands, starts, sizes))
            return Node(PART, {"start": starts[number], "shape": node.spec.shape}, (joined,), node.spec)

        return Replacement(_operands(group), part)

    return rewritten(graph, pattern) if replaced else graph


def _joins(node: Node, backend: Backend[Any]) -> bool:
    """Return whether the product ``node`` can be one of several in a step: stored weights, each bound as a whole."""
    x, *weights = node.inputs
    stored = all(owner_of(weight)[0].op is None and backend.binds_whole(weight.spec) for weight in weights)
    return stored and not node.attrs["residual"] and backend.joins_products(x.spec, **_kind(node))


def _kind(product: Node) -> Any:
    """Return the options of ``joins_products`` for a product."""
    return {
        "block_format": product.attrs.get("block_format", ""),
        "fast": product.attrs.get("precision") == "fast",
    }


def _starts(sizes: Sequence[int], itemsize: int) -> list[int]:
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + align(size * itemsize) // itemsize)
    return starts[:-1]


def _groups(
    x: Node,
    members: list[Node],
    users: dict[Node, list[Node]],
    uses: Counter[Node],
    ends: set[Node],
    backend: Backend[Any],
) -> Sequence[_Group]:
    is_norm = x.op is not None and x.op.name in NORMS and len(x.inputs) == NORMS[x.op.name] + 1
    norm = x if is_norm and x not in ends and set(users[x]) <= set(members) else None
    if not all(backend.joins_products(x.spec, normed=True, **_kind(member)) for member in members):
        norm = None
    base = x if norm is None else x.inputs[0]
    if norm is not None and (any(each.op is not None for each in norm.inputs[1:]) or not owner_of(base)[1].is_dense):
        norm, base = None, x
    groups: list[_Group] = []
    waiting: dict[Any, list[Node]] = {}
    for member in members:
        if any(member in group.members for group in groups):
            continue
        pair = _gated(member, members, users, uses)
        if pair is not None:
            groups.append(_Group(base, pair[:2], norm, pair[2]))
        else:
            across = not owner_of(member.inputs[1])[1].is_dense
            kind = member.op, member.attrs.get("precision"), member if across else None
            key = member.attrs["activation"], len(member.inputs) > 2, member.spec.dtype.name, kind
            waiting.setdefault(key, []).append(member)
    paired = {member for group in groups for member in group.members}
    for (_, biased, _, _), alike in waiting.items():
        alike = [member for member in alike if member not in paired]
        most = (BUFFERS - 3) // 2 if biased else TOGETHER
        for at in range(0, len(alike), most):
            some = alike[at : at + most]
            if len(some) > 1 or norm is not None:
                groups.append(_Group(base, some, norm, None))
    covered = sum(len(group.members) for group in groups)
    return groups if norm is None or covered == len(members) else [g for g in groups if g.norm is None]


def _gated(
    member: Node, members: list[Node], users: dict[Node, list[Node]], uses: Counter[Node]
) -> tuple[Node, Node, Node] | None:
    """Find ``act(member) * other`` of two members: the two and the product."""
    if member.attrs["activation"] or uses[member] != 1:
        return None
    (act,) = users[member]
    if not any(act.is_op(name) for name in ("silu", "gelu", "gelu_tanh", "relu")) or uses[act] != 1:
        return None
    (total,) = users[act]
    if not total.is_op("multiply") or total.spec != member.spec:
        return None
    other = next((each for each in total.inputs if each is not act), None)
    if other is None or (other.op, other.attrs.get("precision")) != (member.op, member.attrs.get("precision")):
        return None
    fits = other in members and other is not member and uses[other] == 1 and other.spec == member.spec
    if not fits or other.attrs["activation"] or len(other.inputs) != len(member.inputs):
        return None
    return member, other, total


def _operands(group: _Group) -> tuple[Node, ...]:
    weights = [member.inputs[1] for member in group.members]
    biases = [bias for member in group.members for bias in member.inputs[2:]]
    return (group.x, *(group.norm.inputs[1:] if group.norm else ()), *weights, *biases)


def _join(group: _Group, operands: tuple[Node, ...], starts: Sequence[int], sizes: Sequence[int]) -> Node:
    first = group.members[0]
    activation = first.attrs["activation"]
    if group.gate is not None:
        (activation,) = (child.op.name for child in group.gate.inputs if child.op and child.inputs[0] is first)
    shapes = [member.attrs.get("weight_shape", member.inputs[1].spec.shape) for member in group.members]
    attrs: Attributes = {
        "block_formats": tuple(member.attrs["block_format"] for member in group.members if member.is_op(PRODUCTS[1])),
        "weight_shapes": tuple(shapes),
        "precision": first.attrs.get("precision", "exact"),
        "count": len(group.members),
        "biased": len(first.inputs) > 2,
        "norm": group.norm.op.name if group.norm and group.norm.op else None,
        "eps": group.norm.attrs["eps"] if group.norm else None,
        "activation": activation,
        "gated": group.gate is not None,
        "starts": tuple(starts),
        "length": starts[-1] + sizes[-1],
    }
    dtype = (group.gate or first).spec.dtype
    return Node(ROW_PRODUCTS, attrs, operands, Spec((starts[-1] + sizes[-1],), dtype))
