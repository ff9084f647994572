"""One computation over several cores: LiteRT runs a graph on one thread, and two graphs that are dispatched together
side by side.

From the first large product on, values are split along one axis into parts, a graph each: the batch, or with one text
its tokens. What works on each part by itself stays split; attention needs the keys and values of all tokens, so there
the graphs end, and the next stage's begin with the parts of the others. Weights are shared inputs of all graphs, so
this takes no memory but what lies between the stages. MiniLM 1 x 128 takes 24 to 35 ms so instead of 40 to 47, with
seven stages; a stage by itself costs 0.05 ms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import numpy as np

from ...shapes import Shape, size_of
from ..base import Attributes, Computation, Op, Spec, Value

ROWS = 64  # of a product from which on splitting pays: every part reads the weights again
WORK = 5e7  # multiply-adds of a whole computation; below that it takes a few ms
UNEVEN = 0.6  # share of the largest of two parts that is still worth it

Slot: TypeAlias = "tuple[int, int]"  # a value and the part of it; part WHOLE for all of it
WHOLE = -1


def _as_first(specs: Sequence[Spec], _: Attributes) -> Spec:
    return specs[0]


# As the ops of these names: only their rules and their meaning are needed of them here.
SLICE = Op("slice", _as_first, lambda x, ranges: x[tuple(slice(*each) for each in ranges)])
CONCAT = Op("concat", _as_first, lambda *xs, axis: np.concatenate(xs, axis))


@dataclass(frozen=True)
class Split:
    """A split of a value along ``axis`` at ``bounds``, which begin with 0 and end with its size."""

    axis: int
    bounds: tuple[int, ...]

    def span(self, part: int) -> tuple[int, int]:
        """First and end of a part."""
        return self.bounds[part], self.bounds[part + 1]


@dataclass
class Stage:
    """One graph: a computation whose leaves are ``needs`` and whose outputs are ``gives``; both are slots."""

    computation: Computation
    needs: list[Slot]
    gives: list[Slot]
    level: int = 0  # graphs of one level do not wait for each other
    part: int = WHOLE
    rows: bool = False  # multiplies one row of a decoding step by weights


@dataclass(frozen=True)
class Cut:
    """Decisions about a value: its split (part 0 computes what has none), its stage, what it needs of inputs."""

    split: Split | None
    stage: int
    needs: tuple[Split | None, ...] = ()


def whole(computation: Computation) -> list[Stage]:
    """All of it as one graph."""
    leaves = {
        value.index: (n, WHOLE) for n, value in enumerate(computation.values) if value.op is None and not value.host
    }
    needs = [leaves.get(index, (-1, WHOLE)) for index in range(computation.leaves)]
    return [Stage(computation, needs, [(number, WHOLE) for number in computation.outputs])]


def stages_of(computation: Computation, cores: int) -> list[Stage]:
    """The graphs of ``computation`` in an order that can run: one, where that is as good."""
    values = computation.values
    if cores < 2 or sum(_work(values, value) for value in values) < WORK:
        return whole(computation)
    cuts = _decided(values, min(cores, 4))
    if not any(cut.split for cut in cuts.values()):
        return whole(computation)
    return staged(computation, cuts)


def staged(computation: Computation, cuts: Mapping[int, Cut]) -> list[Stage]:
    """Return the graphs that compute each value of ``cuts`` in its stage. Other values are computed where needed."""
    return _Builder(computation, cuts).stages()


def _work(values: Sequence[Value], value: Value) -> int:
    """Multiply-adds of what is mostly that."""
    if value.op is None:
        return 0
    return value.op.multiply_adds([values[child].spec for child in value.inputs], value.spec, value.attrs)


def _decided(values: Sequence[Value], parts: int) -> dict[int, Cut]:
    """The cut of every value that is not free: free ones are cheap, and made again by each graph that needs them."""
    cuts: dict[int, Cut] = {}
    for number, value in enumerate(values):
        if value.op is None:
            continue
        ours = [cuts.get(child) for child in value.inputs]
        if not any(ours) and not _work(values, value):
            continue
        found = (
            _propagated(values, value, ours) if any(cut and cut.split for cut in ours) else _seed(values, value, parts)
        )
        if found is None:
            stage = max((cut.stage + bool(cut.split) for cut in ours if cut), default=0)
            cuts[number] = Cut(None, stage)
            continue
        split, needs = found
        stage = 0
        for cut, need in zip(ours, needs, strict=True):
            if cut is not None:
                stage = max(stage, cut.stage + (cut.split is None or cut.split != need))
        cuts[number] = Cut(split, stage, needs)
    return cuts


Found: TypeAlias = "tuple[Split, tuple[Split | None, ...]]"


def _seed(values: Sequence[Value], value: Value, parts: int) -> Found | None:
    """A first split: the outermost axis of a product's rows that makes even parts."""
    assert value.op is not None
    shape = values[value.inputs[0]].spec.shape
    if value.op.name not in ("linear", "quantized_linear") or size_of(shape[:-1]) < ROWS:
        return None
    for axis, size in enumerate(shape[:-1]):
        count = min(parts, size, max(size_of(shape[:-1]) // (ROWS // 2), 1))
        bounds = tuple(size * part // count for part in range(count + 1)) if count > 1 else ()
        if bounds and max(b - a for a, b in itertools.pairwise(bounds)) * count <= size * UNEVEN * 2:
            return _linear(values, value, Split(axis, bounds), 0)
    return None


def _propagated(values: Sequence[Value], value: Value, cuts: Sequence[Cut | None]) -> Found | None:
    """Return the split of the result that its inputs' splits give; None where it needs all of them whole."""
    assert value.op is not None
    for position, cut in enumerate(cuts):
        if cut is None or cut.split is None:
            continue
        rule = _elementwise if value.op.elementwise else RULES.get(value.op.name)
        found = rule(values, value, cut.split, position) if rule is not None else None
        if found is not None:
            return found
    return None


def _elementwise(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    rank = len(value.spec.shape)
    axis = split.axis + rank - len(values[value.inputs[position]].spec.shape)
    if value.spec.shape[axis] != split.bounds[-1]:
        return None
    return Split(axis, split.bounds), tuple(
        _along(values[child].spec.shape, axis - rank + len(values[child].spec.shape), split.bounds)
        for child in value.inputs
    )


def _along(shape: Shape, axis: int, bounds: tuple[int, ...]) -> Split | None:
    """The part of an operand that goes with a part of the result; all of it where it is broadcast."""
    return Split(axis, bounds) if axis >= 0 and shape[axis] == bounds[-1] else None


def _linear(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    count = len(value.inputs)
    if split.axis == len(value.spec.shape) - 1 or position not in (0, count - 1):
        return None
    residual = bool(value.attrs["residual"])
    if position and not residual:
        return None
    needs = [split, *([None] * (count - 1))]
    if residual:
        needs[-1] = split
    return split, tuple(needs)


def _rows(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    """Softmax and norms of each row: all operands of the result's shape go with it."""
    if split.axis == len(value.spec.shape) - 1 or values[value.inputs[position]].spec.shape != value.spec.shape:
        return None
    return split, tuple(split if values[child].spec.shape == value.spec.shape else None for child in value.inputs)


def _reshape(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    before, after = values[value.inputs[0]].spec.shape, value.spec.shape
    outer, size = size_of(before[: split.axis]), before[split.axis]
    for axis, wanted in enumerate(after):
        if size_of(after[:axis]) == outer and wanted > 1 and all(bound * wanted % size == 0 for bound in split.bounds):
            return Split(axis, tuple(bound * wanted // size for bound in split.bounds)), (split,)
    return None


def _permute(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    return Split(cast(Shape, value.attrs["axes"]).index(split.axis), split.bounds), (split,)


def _slice(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    size = split.bounds[-1]
    return (split, (split,)) if cast(Any, value.attrs["ranges"])[split.axis] == (0, size, 1) else None


def _attention(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    """Texts by themselves, or the queries of one against all of its keys."""
    more = value.inputs[3:]
    if split.axis == 0:
        return split, (split,) * len(value.inputs)
    if split.axis == 2 and position == 0 and not value.attrs["causal"]:
        return split, (split, None, None, *(split for _ in more))
    return None


def _take(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    return (split, (None, split)) if position == 1 and split.axis == value.attrs["axis"] else None


def _reduction(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    axes = cast(Shape, value.attrs["axes"])
    if split.axis in axes or value.attrs.get("parts", 1) != 1:
        return None
    lower = 0 if value.attrs["keepdims"] else sum(axis < split.axis for axis in axes)
    return Split(split.axis - lower, split.bounds), (split,)


def _concat(values: Sequence[Value], value: Value, split: Split, position: int) -> Found | None:
    return None if split.axis == value.attrs["axis"] else (split, (split,) * len(value.inputs))


RULES: Mapping[str, Callable[[Sequence[Value], Value, Split, int], Found | None]] = {
    **dict.fromkeys(("linear", "quantized_linear"), _linear),
    **dict.fromkeys(("softmax", "log_softmax", "layer_norm", "rms_norm"), _rows),
    "reshape": _reshape,
    "permute_dims": _permute,
    "broadcast_to": _elementwise,
    "slice": _slice,
    "scaled_dot_product_attention": _attention,
    "take_along_axis": _take,
    **dict.fromkeys(("sum", "mean", "max", "min", "any", "all", "count_nonzero", "var", "logsumexp"), _reduction),
    "concat": _concat,
}


class _Builder:
    """Writes the computation of each stage and part."""

    def __init__(self, computation: Computation, cuts: Mapping[int, Cut]) -> None:
        self.whole = computation
        self.cuts = cuts
        self.shown: set[int] = set()  # values that another stage or part needs
        for number, cut in cuts.items():
            inputs = computation.values[number].inputs
            for child, need in zip(inputs, cut.needs or (None,) * len(inputs), strict=True):
                for source in self._sources(child):
                    other = cuts[source]
                    if other.stage < cut.stage or other.split != (need if cut.split else None):
                        self.shown.add(source)
        for number in computation.outputs:
            if number not in cuts:
                self.shown.update(self._sources(number))

    def _sources(self, number: int) -> list[int]:
        """Return the values with a cut that value ``number`` is, or is computed from where it is needed."""
        found, waiting = list[int](), [number]
        while waiting:
            number = waiting.pop()
            if number in self.cuts:
                found.append(number)
            else:
                waiting += self.whole.values[number].inputs
        return found

    def stages(self) -> list[Stage]:
        """All of them, those of one stage one after another; last, what puts outputs together."""
        result = []
        wanted: dict[tuple[int, int], list[int]] = {}
        for number in sorted({*self.shown, *(n for n in self.whole.outputs if n in self.cuts)}):
            cut = self.cuts[number]
            for part in range(len(cut.split.bounds) - 1 if cut.split else 1):
                wanted.setdefault((cut.stage, part), []).append(number)
        for stage, part in sorted(wanted):
            result.append(_Graph(self, stage, part).of(wanted[stage, part]))
        last = [n for n in self.whole.outputs if n not in self.cuts or self.cuts[n].split is not None]
        if last:
            stage = 1 + max(cut.stage for cut in self.cuts.values())
            result.append(_Graph(self, stage, WHOLE).of(last))
        return result


# A step of :class:`_Graph`: it yields the steps whose numbers it needs, and returns a number of its own.
Steps: TypeAlias = "Generator[Steps, int, int]"


def _finished(step: Steps) -> int:
    """The number that ``step`` returns. Steps wait for each other in a list: a graph may be deeper than the stack."""
    waiting, number = [step], None
    while waiting:
        try:
            waiting.append(waiting[-1].send(cast(Any, number)))
            number = None
        except StopIteration as end:
            waiting.pop()
            number = cast(int, end.value)
    assert number is not None
    return number


@dataclass
class _Graph:
    """One graph of a stage: ``part`` of the split values, part 0 of what is whole; WHOLE puts outputs together."""

    builder: _Builder
    stage: int
    part: int
    values: list[Value] = field(default_factory=list)
    needs: dict[Slot, int] = field(default_factory=dict)
    known: dict[tuple[int, Split | None], int] = field(default_factory=dict)

    def of(self, wanted: Sequence[int]) -> Stage:
        """The stage that gives the values ``wanted``."""
        outputs, gives = [], []
        for number in wanted:
            cut = self.builder.cuts.get(number)
            is_part = cut is not None and cut.split is not None and self.part != WHOLE
            outputs.append(_finished(self._made(number) if is_part else self._fitted(number, None)))
            gives.append((number, self.part if is_part else WHOLE))
        leaves = len(self.needs)
        computation = Computation(tuple(self.values), tuple(outputs), self.builder.whole.host_bytes, leaves)
        return Stage(computation, list(self.needs), gives, self.stage, self.part)

    def _add(self, value: Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _slot(self, slot: Slot, spec: Spec) -> int:
        """A value that another graph has made, or a leaf of the whole."""
        key = (slot[0], Split(slot[1], (-1,)))
        if key not in self.known:
            self.needs[slot] = len(self.needs)
            self.known[key] = self._add(Value(None, {}, (), spec, self.needs[slot]))
        return self.known[key]

    def _made(self, number: int) -> Steps:
        """A value, or this graph's part of it, computed here or by this part in an earlier stage."""
        value, cut = self.builder.whole.values[number], self.builder.cuts.get(number)
        split = cut.split if cut is not None else None
        key = (number, split)
        if key in self.known:
            return self.known[key]
        if value.op is None:
            self.known[key] = self._add(value) if value.host else self._slot((number, WHOLE), value.spec)
            return self.known[key]
        if cut is not None and cut.stage < self.stage:
            spec = value.spec if split is None else _part_of(value.spec, split, self.part)
            return self._slot((number, WHOLE if split is None else self.part), spec)
        needs = cut.needs if cut is not None and cut.needs else (None,) * len(value.inputs)
        inputs = []
        for child, need in zip(value.inputs, needs, strict=True):
            inputs.append((yield self._fitted(child, need)))
        spec, attrs = value.spec, value.attrs
        if split is not None:
            spec = _part_of(spec, split, self.part)
            attrs = _attrs_of(value, spec)
        self.known[key] = self._add(Value(value.op, attrs, tuple(inputs), spec))
        return self.known[key]

    def _fitted(self, number: int, need: Split | None) -> Steps:
        """A value whole, or this graph's part of it by ``need``."""
        cut = self.builder.cuts.get(number)
        if cut is not None and cut.split is not None and cut.split == need:
            return (yield self._made(number))
        key = (number, replace(need, axis=-1 - need.axis) if need else Split(WHOLE, ()))
        if key not in self.known:
            self.known[key] = yield self._whole(number, cut) if need is None else self._cut_out(number, need)
        return self.known[key]

    def _whole(self, number: int, cut: Cut | None) -> Steps:
        value = self.builder.whole.values[number]
        if cut is None:
            return (yield self._made(number))
        if cut.split is None:
            here = cut.stage == self.stage and self.part in (0, WHOLE)
            return (yield self._made(number)) if here else self._slot((number, WHOLE), value.spec)
        parts = range(len(cut.split.bounds) - 1)
        pieces = tuple(self._slot((number, part), _part_of(value.spec, cut.split, part)) for part in parts)
        return self._add(Value(CONCAT, {"axis": cut.split.axis}, pieces, value.spec))

    def _cut_out(self, number: int, need: Split) -> Steps:
        value, spec = self.builder.whole.values[number], self.builder.whole.values[number].spec
        if value.op is not None and value.op.name == "broadcast_to":  # what is broadcast need not be cut
            inner = self.builder.whole.values[value.inputs[0]].spec.shape
            along = _along(inner, need.axis - len(spec.shape) + len(inner), need.bounds)
            source = yield self._fitted(value.inputs[0], along)
            part = _part_of(spec, need, self.part)
            return self._add(Value(value.op, {"shape": part.shape}, (source,), part))
        whole = yield self._fitted(number, None)
        first, end = need.span(self.part)
        ranges = tuple((first, end, 1) if a == need.axis else (0, n, 1) for a, n in enumerate(spec.shape))
        return self._add(Value(SLICE, {"ranges": ranges}, (whole,), _part_of(spec, need, self.part)))


def _part_of(spec: Spec, split: Split, part: int) -> Spec:
    first, end = split.span(part)
    return Spec((*spec.shape[: split.axis], end - first, *spec.shape[split.axis + 1 :]), spec.dtype)


def _attrs_of(value: Value, spec: Spec) -> Attributes:
    """The attributes of a value's part: those that name a shape, for the part's."""
    if "shape" in value.attrs:
        return {**value.attrs, "shape": spec.shape}
    if "ranges" in value.attrs:
        ranges = cast(Any, value.attrs["ranges"])
        sizes = zip(ranges, value.spec.shape, spec.shape, strict=True)
        return {**value.attrs, "ranges": tuple(own if size == part else (0, part, 1) for own, size, part in sizes)}
    return value.attrs
