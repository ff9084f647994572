"""The weights of a call with adapters: one for all rows of its batch, or one for each row.

For one adapter, everything is in the leaves of the graph: the base's weights, the adapter's matrices, and its scale. So
its programs are those of every adapter with equal shapes. If rows have different adapters, the matrices of all of them
are joined, and each row has a scale for each part of these products: that of its adapter, and 0 for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..errors import TensorCommonsError, quoted
from ..nn import Param, Weight, Weights
from ..nn.adapted import AdaptedWeight, LowRank, WeightOfRows
from ..ops import arange, argsort, concat, matmul, multiply, permute_dims, reshape, take
from ..tensor import Tensor
from .adapter_layout import Change, Layout, Use

Arrays: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
Part: TypeAlias = tuple[int, int, float]  # number of an adapter, its rank, its scale
SLOTS = "adapters of rows"  # argument: the number of each row's adapter, from 1; 0 is the base


class Loaded(Protocol):
    """A loaded adapter."""

    @property
    def name(self) -> str:
        """Name that calls select it by."""

    @property
    def layout(self) -> Layout:
        """The parameters that it changes or replaces."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its tensors by their names in the file."""

    def scale(self, value: float) -> Tensor:
        """Return the tensor (1,) of a scale."""


@dataclass(frozen=True)
class AdapterSet:
    """Distinct ``adapters``; if ``by_row``, each row of a batch uses one of them or none, else all rows use the one."""

    adapters: tuple[Loaded, ...]
    by_row: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """Return what identifies the set among those of a model."""
        return (self.by_row, *(each.name for each in self.adapters))

    @cached_property
    def _scales(self) -> list[tuple[Part, ...]]:
        """The parts of each argument of scales (rows, ranks of all parts); empty unless rows have own adapters."""
        found: dict[tuple[Part, ...], None] = {}
        for change in self._places:
            found.setdefault(self._parts(change))
        return list(found) if self.by_row else []

    @cached_property
    def _places(self) -> list[tuple[Param, Use]]:
        """The parameters that any of the adapters changes."""
        return list(dict.fromkeys(place for each in self.adapters for place in each.layout.changes))

    def _parts(self, place: tuple[Param, Use]) -> tuple[Part, ...]:
        changes = [(number, each.layout.changes.get(place)) for number, each in enumerate(self.adapters)]
        return tuple((number, change.rank, change.scale) for number, change in changes if change is not None)

    @cached_property
    def _replaces(self) -> bool:
        return self.by_row and any(each.layout.saved for each in self.adapters)

    def specs(self, rows: int) -> dict[str, Spec]:
        """Return the arguments of a call of a batch of ``rows``, beside the model's."""
        found = {
            _scale_name(number): Spec((rows, sum(rank for _, rank, _ in parts)), dtypes.float32)
            for number, parts in enumerate(self._scales)
        }
        return {**found, **({SLOTS: Spec((rows,), dtypes.int32)} if self._replaces else {})}

    def arrays(self, slots: Sequence[int]) -> Arrays:
        """Return the arguments for rows with the adapters of these numbers, from 1; 0 is the base."""
        numbers = np.asarray(slots, np.int32)
        found: Arrays = {}
        for argument, parts in enumerate(self._scales):
            columns = [np.outer(numbers == number + 1, np.full(rank, scale)) for number, rank, scale in parts]
            found[_scale_name(argument)] = np.concatenate(columns, axis=1).astype(np.float32)
        return {**found, **({SLOTS: numbers} if self._replaces else {})}

    def weights(self, base: Weights, given: Mapping[str, Tensor]) -> dict[Param, Weight]:
        """Return the weights of a call: those of the ``base``, changed. ``given`` are the arguments by name.

        Raises TensorCommonsError if an adapter changes what rows of one batch cannot have in different ways.
        """
        changed = dict(base)
        for param in dict.fromkeys(
            param for each in self.adapters for param, _ in (*each.layout.changes, *each.layout.saved)
        ):
            changed[param] = self._of_rows(param, base, given) if self.by_row else self._of_all(param, base[param])
        return changed

    # --- one adapter ---

    def _of_all(self, param: Param, weight: Weight) -> Weight:
        (adapter,) = self.adapters
        layout, tensors = adapter.layout, adapter.tensors

        def present(use: Use) -> Weight:
            name = layout.saved.get((param, use))
            return weight if name is None else Weight(tensors[name], param.shape)

        def change(use: Use) -> LowRank | None:
            found = layout.changes.get((param, use))
            return None if found is None else low_rank(adapter, found)

        tensor, dense = present("tensor"), layout.changes.get((param, "tensor"))
        if dense is not None:
            tensor = replace(tensor, data=tensor.float32 + dense_change(adapter, param, "tensor", dense))
        return AdaptedWeight(
            tensor.data,
            param.shape,
            products=present("product"),
            table=present("table"),
            change=change("product"),
            change_of_rows=change("table"),
        )

    # --- one adapter for each row ---

    def _of_rows(self, param: Param, base: Weights, given: Mapping[str, Tensor]) -> Weight:
        weight = base[param]
        for each in self.adapters:
            saved = {use for place, use in each.layout.saved if place is param}
            if (param, "tensor") in each.layout.changes or (saved and not self._can_replace(param, base)):
                raise TensorCommonsError(
                    f"adapter {quoted(each.name)} changes {quoted(param.name)}, which all rows of a batch have in "
                    "common: pass the same adapter for all rows"
                )
        products = weight
        stored = [each.layout.saved.get((param, "product")) for each in self.adapters]
        if any(stored):
            own = [each.tensors[name] if name else None for each, name in zip(self.adapters, stored, strict=True)]
            dense = dense_of(weight, param)
            stack = concat([reshape(dense if each is None else each, (1, *param.shape)) for each in (None, *own)])
            products = WeightOfRows(take(stack, given[SLOTS], axis=0), param.shape)
            if param.role == "vector":
                return products
        return AdaptedWeight(
            weight.data,
            param.shape,
            products=products,
            table=weight,
            change=self._joined((param, "product"), given),
            change_of_rows=self._joined((param, "table"), given),
        )

    def _can_replace(self, param: Param, base: Weights) -> bool:
        """Return whether rows can have a parameter of their own: a matrix of products, or the bias of such a one."""
        if param.role in ("matrix", "kernel"):
            return len(param.shape) == 2
        matrices = {each.name for each in base if each.role in ("matrix", "kernel") and len(each.shape) == 2}
        weight = param.name.removesuffix("bias") + "weight"
        places = {place.name for each in self.adapters for place, use in each.layout.saved if use == "product"}
        return param.name.endswith("bias") and weight in matrices and weight in places

    def _joined(self, place: tuple[Param, Use], given: Mapping[str, Tensor]) -> LowRank | None:
        parts = self._parts(place)
        if not parts:
            return None
        changes = [
            low_rank(self.adapters[number], self.adapters[number].layout.changes[place]) for number, _, _ in parts
        ]
        scale = given[_scale_name(self._scales.index(parts))]
        if len(changes) == 1:
            return replace(changes[0], scale=scale)
        down = concat([each.down for each in changes], axis=0)
        return LowRank(down, concat([each.up for each in changes], axis=1), scale)


NO_ADAPTERS = AdapterSet(())


def low_rank(adapter: Loaded, change: Change) -> LowRank:
    """Return the tensors of a change."""
    return LowRank(adapter.tensors[change.down], adapter.tensors[change.up], adapter.scale(change.scale))


def dense_change(adapter: Loaded, param: Param, use: Use, change: Change) -> Tensor:
    """Compute a change as a tensor of the shape of its parameter, float32.

    Tables and positions are (in, out), and so are matrices of the role "kernel", as GPT-2 stores them.
    """
    part = low_rank(adapter, change)
    down, up = (
        reshape(each, (-1, size)) for each, size in ((part.down, part.down.size // change.rank), (part.up, change.rank))
    )
    total = multiply(matmul(up, down), part.scale)
    is_turned = use == "table" or (param.role in ("kernel", "positions") and len(param.shape) == 2)
    return permute_dims(total, (1, 0)) if is_turned else reshape(total, param.shape)


def dense_of(weight: Weight, param: Param) -> Tensor:
    """Return a weight as a dense tensor; a quantised matrix is widened to float32."""
    is_dense = weight.format in ("float32", "float16")
    columns = weight.tensor if is_dense else weight.rows(arange(param.shape[0], device=weight.data.own_device))
    return columns if weight.order is None else take(columns, argsort(weight.order), axis=1)


def _scale_name(number: int) -> str:
    return f"adapter scales {number}"
