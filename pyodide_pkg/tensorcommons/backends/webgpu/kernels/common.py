"""Shared by all kernels: the adapter's capabilities, workgroup counts, and the packing of uniforms."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ....dtypes import int8
from ....errors import UnsupportedOp
from ....shapes import Layout, size_of
from ...base import Attributes, Operand, Step
from ..shader import Dispatch
from ..windows import UNLIMITED, Windows

MAX_GROUPS = 65535  # maxComputeWorkgroupsPerDimension is at least this everywhere
LOOPS = (
    65535 - 1024
)  # Mesa's llvmpipe ends all loops of an invocation after 65,535 iterations; some are left for small ones
ENDLESS = 2**62


@dataclass(frozen=True)
class Adapter:
    """Capabilities that decide between kernels: software or not, features (of the language, too), subgroup sizes, the
    matrices that subgroups multiply (dtypes of operands and result, rows, columns, depth), invocations and bytes of a
    workgroup, and the iterations that an invocation may take, and how much it binds.
    """

    fallback: bool
    features: frozenset[str]
    subgroups: tuple[int, int]
    matrices: frozenset[tuple[str | int, ...]] = frozenset()
    invocations: int = 256
    storage: int = 16384
    loops: int = ENDLESS
    windows: Windows = UNLIMITED

    @property
    def workgroup(self) -> int:
        """Invocations of a workgroup for kernels with one independent item each.

        SwiftShader runs a workgroup on one thread, so small ones spread few rows over all cores. An H200 begins
        workgroups of 64 more slowly than their items are read: 2.3 TB/s, 4.0 from 128 on.
        """
        return 4 if self.fallback else 128

    @property
    def multiplies_halves(self) -> bool:
        """True if subgroups of 32 multiply float16 matrices of 16 × 16 into float32, as ``matrices.wgsl`` needs it."""
        needed = {"shader-f16", "subgroups", "chromium-experimental-subgroup-matrix", "buffer_view"}
        sizes = self.subgroups == (32, 32) and ("f16", "f32", 16, 16, 16) in self.matrices
        return not self.fallback and needed <= self.features and sizes and self.storage >= 32768


# For an axis of a step's result: the axis of each input that goes with it (None for an input that is read whole), or
# None for an axis along which the result may not be cut.
SplitRule: TypeAlias = Callable[[Step, int], "Sequence[int | None] | None"]


@dataclass(frozen=True)
class Kernel:
    """The kernel of one op: ``lower`` returns its dispatches, ``accepts`` whether it reads an input in a layout.

    Every kernel reads dense inputs; an input in another layout is copied. ``cut`` splits a step that exceeds a device's
    limits; a part has the bits that it has in the whole. ``parts`` returns steps that compute the same one after
    another, for a step that is not cut itself.
    """

    op: str
    lower: Callable[[Step, Adapter], Sequence[Dispatch]]
    accepts: Callable[[int, Layout], bool] = lambda position, layout: False
    cut: SplitRule = lambda step, axis: None
    writes_any: bool = False  # whether the result, too, is written through any layout
    offsets: int = 0  # dense inputs, from the first on, that may begin at an offset in their place
    parts: Callable[[Step], Sequence[Step]] | None = None
    moved: Callable[[Step, int, int], Attributes] = lambda step, axis, first: step.attrs  # of a part, by axis and start


def is_aligned(operand: Operand) -> bool:
    """Return whether each row of an operand of four axes begins, and ends, with a whole vector of 4."""
    layout = operand.layout
    return operand.shape[3] % 4 == 0 and all(number % 4 == 0 for number in (*layout.strides[:3], layout.offset))


def is_leading(step: Step, axis: int) -> bool:
    """Return whether a range of ``axis`` of a dense result is one range of its bytes."""
    return all(size == 1 for size in step.output.shape[:axis])


def along_rows(step: Step, axis: int) -> Sequence[int | None] | None:
    """The cut of a kernel whose rows are independent: inputs with the rows of the result are cut, others read whole."""
    if axis == len(step.output.shape) - 1 or not is_leading(step, axis):
        return None
    return [axis if x.shape[:-1] == step.output.shape[:-1] else None for x in step.inputs]


def along_first(step: Step, axis: int) -> Sequence[int | None] | None:
    """The cut of a kernel whose images, the first axis, are independent."""
    return [0, *[None] * (len(step.inputs) - 1)] if axis == 0 else None


def spread(items: int, workgroup: int) -> tuple[int, int, int]:
    """Workgroups for ``items`` independent items, spread over two axes where one cannot hold them: few too many."""
    groups = -(-items // workgroup)
    y = -(-groups // MAX_GROUPS)
    return -(-groups // y) if groups else 0, y, 1


def require_shader_types(step: Step) -> None:
    """Raises UnsupportedOp for a dtype that WGSL cannot compute. Bytes of any dtype can be kept, written and read."""
    is_packed = "block_format" in step.attrs or bool(step.attrs.get("block_formats"))
    for operand in (*step.inputs, step.output):
        if operand.dtype.wgsl is None and not (is_packed and operand.dtype is int8):  # read as words
            raise UnsupportedOp(
                step.op.name, "webgpu", f"WGSL has no {operand.dtype}; read it, or cast it before it goes there"
            )


def merge_axes(layouts: Sequence[Layout], limit: int = 8) -> list[Layout]:
    """Layouts of one shape with neighbouring axes merged wherever all of them allow it, and axes of size 1 dropped."""
    shape: list[int] = []
    strides: list[list[int]] = [[] for _ in layouts]
    for axis, size in enumerate(layouts[0].shape):
        if size == 1:
            continue
        own = [layout.strides[axis] for layout in layouts]
        if shape and all(s[-1] == o * size for s, o in zip(strides, own, strict=True)):
            shape[-1] *= size
            for s, o in zip(strides, own, strict=True):
                s[-1] = o
        else:
            shape.append(size)
            for s, o in zip(strides, own, strict=True):
                s.append(o)
    if len(shape) > limit:
        raise UnsupportedOp("strided access", "webgpu", f"{len(shape)} axes do not merge to {limit} or fewer")
    return [Layout(tuple(shape), tuple(s), layout.offset) for s, layout in zip(strides, layouts, strict=True)]


def float32(value: float) -> float:
    """``value`` as ``struct`` packs it into four bytes: what rounds to more than float32 holds is an infinity."""
    return math.copysign(math.inf, value) if abs(value) >= 3.4028235677973366e38 else value


def vectors(values: Sequence[int], count: int, kind: str) -> bytes:
    """``values`` as ``count`` four-component vectors of a uniform, padded with zeros."""
    return struct.pack(f"<{count * 4}{kind}", *values, *[0] * (count * 4 - len(values)))


def offsets(rank: int, operands: int) -> str:
    """WGSL that adds to ``at``, a vector with a component an operand, where element ``rest`` of a shape lies in each.

    It is written out for ``rank`` axes: a loop that indexes the uniforms takes a software adapter three times as long.
    """
    lines = []
    for axis in range(rank - 1, -1, -1):
        part = f"[{axis // 4}].{'xyzw'[axis % 4]}"
        strides = [f"p.strides[{2 * operand + axis // 4}].{'xyzw'[axis % 4]}" for operand in range(operands)]
        along = f"vec{operands}<i32>({', '.join(strides)})"
        if axis:
            lines.append(f"let outer{axis} = rest / p.shape{part};")
            lines.append(f"at += i32(rest - outer{axis} * p.shape{part}) * {along};")
            lines.append(f"rest = outer{axis};")
        else:
            lines.append(f"at += i32(rest) * {along};")
    return "\n  ".join(lines)


def rows_and_columns(operand: Operand) -> tuple[int, int]:
    """A row-major operand as a matrix: everything but the last axis is rows."""
    return size_of(operand.shape[:-1]), operand.shape[-1]
