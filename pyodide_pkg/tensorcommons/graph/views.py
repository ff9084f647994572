"""Views: nodes that show the bytes of another value become layouts over it.

A view that no layout expresses, such as a reshape of a transposed value, is copied.
"""

from __future__ import annotations

from ..shapes import Layout
from .node import Node


def own_layout(node: Node) -> Layout:
    """Layout of a node's own value in its memory: row-major, unless its op writes another order of axes."""
    shape = node.spec.shape
    if node.op is None or node.op.memory_order is None:
        return Layout.contiguous(shape)
    order = node.op.memory_order
    physical = Layout.contiguous([shape[axis] for axis in order])
    inverse = [order.index(axis) for axis in range(len(order))]
    return physical.permute(inverse)


def owner_of(node: Node) -> tuple[Node, Layout]:
    """The node whose bytes ``node`` shows, and the layout over them. A view that needs a copy owns its own bytes.

    Each view remembers its answer, so a chain of views takes time for its length once.
    """
    chain = []
    current = node
    while current.op is not None and current.op.view is not None and current.shown is None:
        chain.append(current)
        current = current.inputs[0]
    owner, layout = _shown_by(current)
    for view in reversed(chain):
        assert view.op is not None and view.op.view is not None
        seen = view.op.view(layout, view.attrs)
        view.shown = (None, Layout.contiguous(view.spec.shape)) if seen is None else (owner, seen)
        owner, layout = _shown_by(view)
    return owner, layout


def _shown_by(node: Node) -> tuple[Node, Layout]:
    if node.shown is None:
        return node, own_layout(node)
    owner, layout = node.shown
    return node if owner is None else owner, layout


def resolve_view(node: Node) -> tuple[Node, Layout] | None:
    """The leaf with bytes that ``node`` is a view of, or ``None`` if something has to be computed first."""
    if node.storage is not None:
        return node, Layout.contiguous(node.spec.shape)
    owner, layout = owner_of(node)
    return (owner, layout) if owner.op is None and owner.storage is not None else None
