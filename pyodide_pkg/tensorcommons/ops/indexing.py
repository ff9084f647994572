"""Indexing: take, gather, scatter, and rows of an embedding table.

Indices are int32. An index on the host (in a NumPy array or a list) that is out of range raises IndexError. A shader
cannot raise: reading out of range gives NaN (0 for ints, False for bools), and writing out of range has no effect;
memory out of bounds is never accessed. A negative index counts from the end, as in NumPy.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..shapes import broadcast_shapes, normalize_axis, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import add, astype, clip, greater_equal, less, logical_and, multiply, where
from .layout import broadcast_to, permute_dims, reshape, spelled_out, view_at
from .registry import OPS, apply, define


def _require_int32(op: str, ids: Spec) -> None:
    if ids.dtype is not dtypes.int32:
        raise UnsupportedDtype(f"{op} takes integer indices, not {ids.dtype}: cast with tc.astype()")


def _infer_take(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, ids = specs
    axis = attrs["axis"]
    assert isinstance(axis, int)
    _require_int32("take_along_axis", ids)
    others = [shape[:axis] + shape[axis + 1 :] for shape in (x.shape, ids.shape)]
    if len(ids.shape) != len(x.shape) or others[0] != others[1]:
        raise ShapeMismatch(f"take_along_axis: indices {ids.shape} are incompatible with {x.shape} along axis {axis}")
    return Spec(ids.shape, x.dtype)


def _nothing(x: Any) -> Any:
    """Return the result for an index out of range."""
    return x.dtype.type(np.nan if x.dtype.kind == "f" else 0)


def _take(x: Any, ids: Any, axis: int, wrap: bool) -> Any:
    size = x.shape[axis]
    valid = (ids >= (-size if wrap else 0)) & (ids < size)
    if size == 0:
        return np.full(ids.shape, _nothing(x))
    found = np.take_along_axis(x, np.where(valid, ids, 0) % size, axis)
    return np.where(valid, found, _nothing(x))


def _take_traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the bytes of the elements taken, read and written, and of their indices."""
    return 2 * result.nbytes + specs[1].nbytes


TAKE = define("take_along_axis", _infer_take, _take, traffic=_take_traffic)


def _infer_scatter(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, ids, updates = specs
    axis = attrs["axis"]
    assert isinstance(axis, int)
    _require_int32("scatter", ids)
    if updates.dtype is not x.dtype:
        raise UnsupportedDtype(f"scatter: updates must have the dtype of the tensor, {x.dtype}, not {updates.dtype}")
    fits = len(ids.shape) == len(x.shape) and all(
        n <= size for a, (n, size) in enumerate(zip(ids.shape, x.shape, strict=True)) if a != axis
    )
    if not fits or updates.shape != ids.shape:
        raise ShapeMismatch(
            f"scatter along axis {axis}: indices {ids.shape} and updates {updates.shape} do not match {x.shape}"
        )
    return x


REDUCTIONS: dict[str, Any] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(x: Any, ids: Any, updates: Any, axis: int, reduction: str) -> Any:
    """Apply the updates in the order of the axis, so that the last of several updates to one element wins."""
    result = np.array(x)
    size = x.shape[axis]
    grid = list(np.indices(ids.shape))
    order = np.argsort(grid[axis].ravel(), kind="stable")
    valid = ((ids >= -size) & (ids < size)).ravel()[order]
    at = [part.ravel()[order][valid] for part in grid]
    at[axis] = ids.ravel()[order][valid] % max(size, 1)
    values = np.asarray(updates).ravel()[order][valid]
    if reduction in REDUCTIONS:
        REDUCTIONS[reduction].at(result, tuple(at), values)
    else:
        result[tuple(at)] = values  # in order
    return result


SCATTER = define("scatter", _infer_scatter, _scatter, operations=lambda specs, result, attrs: size_of(specs[1].shape))


def _indices(indices: TensorLike, like: Tensor, size: int) -> Tensor:
    """Convert indices to an int32 tensor; those on the host are checked against ``size``."""
    if isinstance(indices, Tensor):
        return index_tensor(indices, like)
    array = np.asarray(indices)
    if array.size and array.dtype.kind not in "iu":
        raise UnsupportedDtype(f"indices must be integers, not {array.dtype}")
    outside = array[(array < -size) | (array >= size)]
    if outside.size:
        raise IndexError(f"index {outside.flat[0]} is out of range for an axis of size {size}")
    return as_tensor(array.astype(np.int32), like=(like,))


def index_tensor(ids: TensorLike, like: Tensor) -> Tensor:
    """Convert integers to an int32 tensor. Those that int32 cannot hold become its ends, out of range of every axis."""
    if not isinstance(ids, Tensor):
        array = dtypes.host_array(ids)
        if array.dtype.kind in "iu":  # NumPy's default is int64, which not every device has
            array = np.clip(array, -(2**31), 2**31 - 1).astype(np.int32)
        return as_tensor(array, like=(like,))
    if ids.dtype.kind not in ("int", "uint"):
        return ids
    if ids.dtype in (dtypes.int64, dtypes.uint32):  # a cast would wrap around
        ids = clip(ids, -(2**31) if ids.dtype is dtypes.int64 else 0, 2**31 - 1)
    return astype(ids, dtypes.int32, copy=False)


def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """``x[..., indices, ...]`` at ``axis``, which is optional for a tensor of one axis.

    The axes of ``indices`` (int32, any number) replace ``axis`` in the result. A negative index counts from the
    end.

    Raises:
        IndexError: an index on the host is out of range. One on a device gives NaN (0 for ints, False for bools).
        ShapeMismatch: ``axis`` is needed, or out of range.
        UnsupportedDtype: the indices are not integers.

    >>> print(tc.take([10, 20, 30], [2, 0]).numpy())
    [30 10]
    """
    tensor = as_tensor(x)
    if axis is None and tensor.ndim != 1:
        raise ShapeMismatch(f"take: pass axis for a tensor with {tensor.ndim} axes")
    place = normalize_axis(axis or 0, tensor.ndim)
    return _take_rows(tensor, _indices(indices, tensor, tensor.shape[place]), place, wrap=True)


def _take_rows(x: Tensor, ids: Tensor, axis: int, wrap: bool) -> Tensor:
    """Take the same indices for all elements of the other axes."""
    _require_int32("take", ids.spec)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    row = reshape(ids, (*([1] * len(before)), ids.size, *([1] * len(after))))
    chosen = apply(TAKE, x, broadcast_to(row, (*before, ids.size, *after)), axis=axis, wrap=wrap)
    return reshape(chosen, (*before, *ids.shape, *after))


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int = -1) -> Tensor:
    """``y[i, j] = x[indices[i, j], j]`` for ``axis`` 0: ``indices`` (int32) has as many axes as ``x``.

    The other axes broadcast. Indices out of range are as in :func:`take`.

    Raises:
        IndexError, UnsupportedDtype: as :func:`take`.
        ShapeMismatch: the shapes are incompatible.

    >>> print(tc.take_along_axis([[10, 20], [30, 40]], [[1], [0]]).numpy())
    [[20]
     [30]]
    """
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim)
    ids = _indices(indices, tensor, tensor.shape[place])
    if ids.ndim != tensor.ndim:
        raise ShapeMismatch(f"take_along_axis: indices {ids.shape} must have as many axes as {tensor.shape}")
    others = [shape[:place] + (1,) + shape[place + 1 :] for shape in (tensor.shape, ids.shape)]
    common = broadcast_shapes(*others)

    def grow(value: Tensor) -> Tensor:
        return broadcast_to(value, common[:place] + (value.shape[place],) + common[place + 1 :])

    return apply(TAKE, grow(tensor), grow(ids), axis=place, wrap=True)


def take_known(x: Tensor, ids: Tensor, axis: int) -> Tensor:
    """Take along an axis as :func:`take_along_axis`, without broadcasting; negative indices are out of range."""
    return apply(TAKE, x, ids, axis=normalize_axis(axis, x.ndim), wrap=False)


def gather(x: TensorLike, axis: int, indices: TensorLike) -> Tensor:
    """Take along an axis as :func:`take_along_axis`; as in PyTorch, ``indices`` may be shorter along the other axes.

    The result has the shape of ``indices``. Raises the errors of :func:`take_along_axis`.

    >>> print(tc.gather([[10, 20], [30, 40]], 1, [[1]]).numpy())
    [[20]]
    """
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim)
    ids = _indices(indices, tensor, tensor.shape[place])
    others = [a for a in range(tensor.ndim) if a != place]
    if ids.ndim != tensor.ndim or any(ids.shape[a] > tensor.shape[a] for a in others):
        raise ShapeMismatch(f"gather: indices {ids.shape} are incompatible with {tensor.shape} along axis {place}")
    part = tensor[tuple(slice(None) if a == place else slice(ids.shape[a]) for a in range(tensor.ndim))]
    return apply(TAKE, part, ids, axis=place, wrap=True)


def gather_nd(x: TensorLike, indices: TensorLike) -> Tensor:
    """``y[...] = x[indices[..., 0], ..., indices[..., k - 1]]``: the last axis of ``indices`` (int32) is a position.

    ``indices`` (..., k) choose along the first k axes of ``x``, the rest of its axes follow: the result has the shape
    ``indices.shape[:-1] + x.shape[k:]``. Indices out of range, and negative ones, are as in :func:`take`.

    Raises:
        IndexError, UnsupportedDtype: as :func:`take`.
        ShapeMismatch: k is 0, or exceeds the axes of ``x``.

    >>> print(tc.gather_nd([[10, 20], [30, 40]], [[0, 1], [1, 0]]).numpy())
    [20 30]
    """
    tensor = as_tensor(x, like=(indices,))
    where_to = indices if isinstance(indices, Tensor) else np.asarray(indices)
    depth = where_to.shape[-1] if where_to.ndim else 0
    if not 1 <= depth <= tensor.ndim:
        raise ShapeMismatch(f"gather_nd: the last axis of indices {where_to.shape} must be 1 to {tensor.ndim} long")
    ids = [_indices(where_to[..., i], tensor, tensor.shape[i]) for i in range(depth)]
    return _take_points(tensor, ids, range(depth))


def scatter(
    x: TensorLike, indices: TensorLike, updates: TensorLike, axis: int = -1, reduction: str = "assign"
) -> Tensor:
    """Copy ``x`` and set ``y[indices[i, j], j] = updates[i, j]`` (for ``axis`` 0), or combine both by ``reduction``.

    ``reduction`` is "assign", "add", "mul", "max" or "min". ``indices`` (int32) and ``updates`` have one shape with as
    many axes as ``x``, not longer than ``x`` along the axes other than ``axis``. If an index occurs twice, "assign"
    uses the last update along ``axis`` and the others combine all, in their order, on every device. float16 is added
    and multiplied in float32; "max" and "min" of NaN are NaN. An update has no effect if its index is on a device and
    out of range.

    Raises:
        IndexError: an index on the host is out of range.
        ShapeMismatch: the shapes are incompatible.
        UnsupportedDtype: the indices are not integers.

    >>> print(tc.scatter([1, 2, 3], [0, 2], [10, 30]).numpy())
    [10  2 30]
    >>> print(tc.scatter([1, 2, 3], [0, 0], [10, 10], reduction="add").numpy())
    [21  2  3]
    >>> print(tc.scatter([5, 2, 3], [0, 1], [4, 9], reduction="max").numpy())
    [5 9 3]
    """
    if reduction not in ("assign", *REDUCTIONS):
        names = ", ".join(map(repr, ("assign", *REDUCTIONS)))
        raise TensorCommonsError(f"scatter: reduction must be one of {names}, not {quoted(reduction)}")
    tensor = as_tensor(x, like=(indices, updates))
    place = normalize_axis(axis, tensor.ndim)
    ids = _indices(indices, tensor, tensor.shape[place])
    values = as_tensor(updates, like=(tensor,))
    if values.ndim == 0:
        values = broadcast_to(values, ids.shape)
    if reduction in REDUCTIONS and tensor.dtype is dtypes.bool:
        raise UnsupportedDtype(f"scatter: reduction={reduction!r} takes numbers, not bool")
    _infer_scatter([tensor.spec, ids.spec, values.spec], {"axis": place})
    rounds = reduction in ("add", "mul") and tensor.dtype is dtypes.float16
    kind = dtypes.float32 if rounds else tensor.dtype
    wide = [value if value.dtype is kind else astype(value, kind) for value in (tensor, values)]
    result = apply(SCATTER, wide[0], ids, wide[1], axis=place, reduction=reduction)
    return result if kind is tensor.dtype else astype(result, tensor.dtype)


def embedding(table: TensorLike, ids: TensorLike) -> Tensor:
    """``table[ids]``: table ``(rows, size)``, ids ``(...)`` int32, result ``(..., size)`` of the table's dtype.

    An id outside the table, also a negative one, gives a row of NaN (0 for ints) on every device, since a shader cannot
    raise; models check ids beforehand.

    >>> print(tc.embedding([[1.0, 2.0], [3.0, 4.0]], [1, 0, 1]).numpy())
    [[3. 4.]
     [1. 2.]
     [3. 4.]]
    """
    rows = as_tensor(table, like=(ids,))
    numbers = index_tensor(ids, rows)
    if rows.ndim != 2:
        raise ShapeMismatch(f"embedding: the table must be (rows, size), not {rows.shape}")
    return _take_rows(rows, numbers, 0, wrap=False)


def getitem(x: Tensor, key: Any) -> Tensor:
    """``x[key]`` as in NumPy: integers, slices, ``...`` and ``None`` give a view, arrays a copy.

    An array is a list, a NumPy array or a tensor, of integers or bools; several broadcast, as in ``x[rows, columns]``.
    Indices out of range are as in :func:`take`. The shape of the result depends on a mask, so it is read at once; where
    a device cannot be waited for, write ``x[await mask.read()]``.

    Raises:
        IndexError: an index on the host is out of range, or there are too many indices.
        UnsupportedDtype: an array is neither of integers nor bools.
        ReadRequired: a mask is a tensor on a device that cannot be waited for here.
    """
    keys = [_plain(k) for k in (key if isinstance(key, tuple) else (key,))]
    if len(keys) == 1 and isinstance(keys[0], np.ndarray) and keys[0].dtype == bool and not keys[0].ndim:
        return view_at(x, (None, ...))[: int(keys[0])]
    key = tuple(keys)
    if not any(isinstance(k, (Tensor, np.ndarray, list)) for k in keys):
        return view_at(x, key)
    advanced = [i for i, k in enumerate(keys) if _is_integer(k) or isinstance(k, (Tensor, np.ndarray, list))]
    side_by_side = advanced[-1] - advanced[0] == len(advanced) - 1
    keys = _without_masks(x, keys)
    chosen = {i: k for i, k in enumerate(keys) if isinstance(k, (Tensor, np.ndarray))}
    part = view_at(x, tuple(slice(None) if i in chosen else k for i, k in enumerate(keys)))
    axis_of = {i: sum(not _is_integer(k) for k in keys[:i]) for i in chosen}  # in part
    axes = [axis_of[i] for i in chosen]
    broadcast_shapes(*(k.shape for k in chosen.values()))  # raises before an upload
    ids = [_indices(k, part, part.shape[axis_of[i]]) for i, k in chosen.items()]
    found = _take_rows(part, ids[0], axes[0], wrap=True) if len(ids) == 1 else _take_points(part, ids, axes)
    first, count = (axes[0] if len(ids) == 1 else 0), found.ndim - part.ndim + len(ids)
    target = min(axes) if side_by_side else 0
    order = [a for a in range(found.ndim) if not first <= a < first + count]
    order[target:target] = range(first, first + count)
    return found if order == list(range(found.ndim)) else permute_dims(found, order)


def _plain(key: Any) -> Any:
    """Replace a tensor without axes by its number where it is on the host; bools by masks, as NumPy takes them."""
    if isinstance(key, Tensor) and not key.shape and key.device.facts.is_host and key.dtype.kind in ("int", "uint"):
        return operator.index(key)
    if isinstance(key, Tensor) and key.dtype is dtypes.bool:
        return np.asarray(key)
    return np.asarray(key) if isinstance(key, (bool, np.bool_)) else key


def setitem(x: Tensor, key: Any, value: TensorLike) -> None:
    """``x[key] = value`` as in NumPy; tensors that were made from ``x``, views too, keep their values.

    ``value`` broadcasts to the shape of ``x[key]``, and takes the dtype of ``x``.

    Raises:
        ShapeMismatch, IndexError: as :func:`getitem`, or ``value`` does not broadcast to ``x[key]``.
        UnsupportedDtype: the dtype of ``x`` cannot represent ``value``.
    """
    update = as_tensor(value, like=(x,))
    if update.dtype is not x.dtype:
        if (update.dtype.kind == "float" and x.dtype.kind != "float") or x.dtype is dtypes.bool:
            raise UnsupportedDtype(f"x[key] = value: {update.dtype} cannot become {x.dtype}: cast it with tc.astype()")
        update = astype(update, x.dtype)
    is_mask = isinstance(key, (Tensor, np.ndarray)) and key.dtype == dtypes.bool
    if is_mask and update.ndim == 0 and key.shape == x.shape[: key.ndim]:
        mask = reshape(as_tensor(key, like=(x,)), (*key.shape, *[1] * (x.ndim - key.ndim)))
        changed = where(mask, update, x)
    else:
        places = getitem(reshape(positions(x.size, x), x.shape), key)
        flat, at = reshape(x, (x.size,)), reshape(places, (places.size,))
        if update.shape != places.shape:
            surplus = update.ndim - places.ndim
            if surplus > 0 and all(size == 1 for size in update.shape[:surplus]):
                update = reshape(update, update.shape[surplus:])
            update = broadcast_to(update, places.shape)
        changed = reshape(
            apply(SCATTER, flat, at, reshape(update, (places.size,)), axis=0, reduction="assign"), x.shape
        )
    x.replace(changed)


def positions(count: int, like: Tensor) -> Tensor:
    """Return the numbers from 0 to ``count - 1`` as int32, on the device of ``like``."""
    return Tensor.symbolic(apply(OPS["arange"], start=0, step=1, count=count, dtype="int32").node, like.own_device)


def _is_integer(key: Any) -> bool:
    return isinstance(key, (int, np.integer))


def _without_masks(x: Tensor, keys: list[Any]) -> list[Any]:
    """Normalize keys to one for each axis or ``None``: expand ``...``, convert lists to arrays, masks to indices."""
    arrays = [(np.zeros(0, np.int32) if k == [] else dtypes.host_array(k)) if isinstance(k, list) else k for k in keys]
    masks = {i for i, k in enumerate(arrays) if isinstance(k, np.ndarray) and k.dtype == bool}
    taken = sum(k.ndim if i in masks else k is not None and k is not Ellipsis for i, k in enumerate(arrays))
    result: list[Any] = []
    for k in spelled_out(arrays, taken, x.ndim):
        if not (isinstance(k, np.ndarray) and k.dtype == bool):
            result.append(k)
            continue
        axis = sum(key is not None for key in result)
        if k.shape != x.shape[axis : axis + k.ndim] or not k.ndim:
            raise IndexError(f"a mask of shape {k.shape} does not match the axes from {axis} of {x.shape}")
        result.extend(np.nonzero(k))
    return result


def _take_points(x: Tensor, ids: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    """``x[ids[0], ids[1], ...]`` at ``axes``; the axes of the indices come first in the result."""
    shape = broadcast_shapes(*(each.shape for each in ids))
    rest = [a for a in range(x.ndim) if a not in axes]
    rows = reshape(permute_dims(x, [*axes, *rest]), (math.prod(x.shape[a] for a in axes), *(x.shape[a] for a in rest)))
    row: Tensor | None = None
    inside: Tensor | None = None
    for each, axis in zip(ids, axes, strict=True):
        _require_int32("x[...]", each.spec)
        size = x.shape[axis]
        valid = logical_and(greater_equal(each, -size), less(each, size))
        number = where(less(each, 0), add(each, size), each)
        row = number if row is None else add(multiply(row, size), number)
        inside = valid if inside is None else logical_and(inside, valid)
    assert row is not None and inside is not None
    return _take_rows(rows, broadcast_to(where(inside, row, -1), shape), 0, wrap=False)
