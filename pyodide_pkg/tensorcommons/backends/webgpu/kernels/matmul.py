"""Products: one description of the operands, and for each adapter the shader and tile that suit the product's size.

A software adapter multiplies in registers alone (``linear.wgsl``, ``row.wgsl``, ``packed.wgsl``, ``matmul.wgsl``).
Hardware keeps tiles in workgroup memory (``tiled.wgsl``), cuts the depth of small products among more invocations
(``sliced.wgsl``), or has units for matrices of float16 (``subgroup_gemm.wgsl``). Ints have one kernel everywhere
(``integers.wgsl``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .... import dtypes
from ....errors import InternalError, UnsupportedOp
from ....shapes import Layout, Shape, size_of
from ...base import Attributes, Operand, Step
from ..accessors import Access, Buffer
from ..packing import blocks_of
from ..shader import Dispatch, source
from . import few_rows, subgroup_gemm, tiles
from .blocks import BLOCKS, COLUMNS
from .common import Adapter, Kernel, is_leading, merge_axes, rows_and_columns, spread
from .elementwise import aligned
from .few_rows import FewRows

ACTIVATIONS = (None, "relu", "gelu", "tanh", "sigmoid", "gelu_tanh")  # by the numbers of `activate` in activation.wgsl


@dataclass(frozen=True)
class Tile:
    """The tile of the result that a workgroup computes; ``slices`` is the number of invocations that share a depth,
    ``depth`` that of a slice in workgroup memory where it is not the shader's, ``blocks`` the 4 × 4 of an invocation.

    It is taken for products of at least ``groups`` such tiles; a large one if they fill more than half of it.
    """

    shader: str
    rows: int
    columns: int
    groups: int
    slices: int = 1
    depth: int = 0
    blocks: tuple[int, int] = (2, 2)

    @property
    def variables(self) -> dict[str, str]:
        """These numbers by the names that the shader has for them."""
        values = {"tile_rows": self.rows, "tile_columns": self.columns, "slices": self.slices}
        return {name: str(value) for name, value in values.items()}


# For operands of float16 in vectors of eight, where subgroups multiply matrices.
HALVES = (Tile("matmul/matrices", 128, 128, 132, depth=32), Tile("matmul/matrices", 64, 64, 1, depth=64))
# Measured on an H200: the largest tiles that leave none of its 132 processors idle are the fastest.
HARDWARE = (
    Tile("matmul/tiled", 128, 128, 250),
    Tile("matmul/tiled", 64, 128, 120),
    Tile("matmul/tiled", 64, 64, 120),
    Tile("matmul/matmul", 16, 16, 4000),  # many small matrices
    Tile("matmul/tiled", 32, 32, 264, slices=4, blocks=(1, 2)),  # two a processor
    Tile("matmul/tiled", 16, 32, 90, slices=8, blocks=(1, 2)),
    Tile("matmul/sliced", 16, 8, 90, slices=32),
    Tile("matmul/sliced", 16, 4, 0, slices=64),
)
LARGE = ("matmul/matrices", "matmul/tiled")  # not for what fills less than half of a tile
JOINING = ("matmul/tiled", "matmul/sliced")  # take several weights
SOFTWARE_LINEAR = Tile("matmul/linear", 16, 64, 0)  # row-major a, and b of whole vectors
SOFTWARE_ROW = Tile("matmul/row", 1, 64, 0)  # the same of one row
SOFTWARE_PACKED = Tile("matmul/packed", 16, 32, 0)  # row-major a, and b of a block format
SOFTWARE_PACKED_ROW = Tile("matmul/packed", 1, 32, 0)  # the same of one row
SOFTWARE = Tile("matmul/matmul", 16, 16, 0)
SOFTWARE_LONG = Tile("matmul/sliced", 4, 4, 0, slices=256)  # a depth that takes one invocation too many iterations

# The sums of sliced.wgsl from the weight `b`.
ADD_SLICES = """for (var k = slice * 4u; k < p.depth; k += slices * 8u) {{
    let a0 = block_a(a_start, row, k);
    let b0 = block_{b}(b_start, column, k);
    let a1 = block_a(a_start, row, k + slices * 4u);
    let b1 = block_{b}(b_start, column, k + slices * 4u);
    sums += b0 * transpose(a0) + b1 * transpose(a1);
  }}"""
# The text of packed.wgsl for one row and for more: where rows of a begin, the sums, and how they are stored.
PACKED_ROW = {
    "starts": "let x = u32(p.a_offset) / 4u;\n  var s0 = vec4<f32>(); var s1 = vec4<f32>();",
    "add": "let a = load4_a(x + k);\n      s0 += b0 * a; s1 += b1 * a;",
    "store": """var sums = array<vec4<f32>, 2>(s0, s1);
  let nothing = vec4<f32>();
  for (var t = 0u; t < 2u; t++) {
    store_block(0u, 0u, column + t * 4u, mat4x4<f32>(sums[t], nothing, nothing, nothing));
  }""",
}
PACKED_ROWS = {
    "starts": "\n  ".join(
        f"""let x{i} = u32(p.a_offset) / 4u + four_from(row + {4 * i}u, p.rows) * vectors;
  var s{i}0 = mat4x4<f32>(); var s{i}1 = mat4x4<f32>();"""
        for i in range(4)
    ),
    "add": "\n      ".join(
        f"let a{i} = mat4x4<f32>({', '.join(f'load4_a(x{i}.{each} + k)' for each in 'xyzw')});\n"
        f"      s{i}0 += b0 * a{i}; s{i}1 += b1 * a{i};"
        for i in range(4)
    ),
    "store": """var sums = array<mat4x4<f32>, 8>(s00, s01, s10, s11, s20, s21, s30, s31);
  for (var t = 0u; t < 8u; t++) { store_block(0u, row + t / 2u * 4u, column + t % 2u * 4u, sums[t]); }""",
}
STORES = {
    "vectors": "store4_y(at / 4u, {value});",
    "elements": """for (var j = 0u; j < 4u; j++) {{
        if (column + j < p.columns) {{ store_y(at + j, {value}); }}
      }}""",
}


@dataclass(frozen=True)
class Product:
    """``activation(a @ b + bias) + residual``: operands as (rows, depth) and (depth, columns) after batch axes."""

    a: Operand
    b: Operand
    bias: Operand | None
    residual: Operand | None
    output: Operand
    activation: int
    batch: Shape  # that both broadcast to
    bias_of: str = "load{four}_bias({side})"
    whole: Product | None = None  # that this is a part of, for the same bits
    packing: str = ""  # the block format of b, as quantised weights have one
    blocks: int = 0  # of the whole weight
    fast: bool = False  # with a rounded to int8 (formats/int8_blocks.py), which kernels of few rows alone do

    @property
    def rows(self) -> int:
        """Rows of one matrix of the result."""
        return self.a.shape[-2]

    @property
    def columns(self) -> int:
        """Columns of one matrix of the result."""
        return self.b.shape[-1]

    @property
    def stride(self) -> int:
        """Elements from one row of the result to the next: its columns, or those of the whole."""
        strides = self.output.layout.strides
        return strides[-2] if len(strides) > 1 else self.columns

    @property
    def depth(self) -> int:
        """Number of products that one element adds up."""
        return self.a.shape[-1]

    def dispatches(self, adapter: Adapter) -> list[Dispatch]:
        """The product on ``adapter``."""
        if self.output.layout.size == 0:
            return []
        if self._has_few_rows(adapter):
            return [self._few_rows.dispatch(adapter)]
        if self.fast:
            raise InternalError("activations of many rows are rounded in a step before: graph/int8_activations.py")
        return [self.dispatch(self.tile(adapter), adapter)]

    def of_integers(self) -> list[Dispatch]:
        """The product of ints, whose order of sums does not change the result."""
        groups = (-(-self.columns // 16), *spread(-(-self.rows // 16) * size_of(self.batch), 1)[:2])
        buffers = (Buffer("a", self.a), Buffer("b", self.b), Buffer("y", self.output, written=True))
        params = self._params(size_of(self.batch))
        return (
            [Dispatch("matmul/integers", {}, params, buffers, groups, self.depth + 30)]
            if self.output.layout.size
            else []
        )

    def _has_few_rows(self, adapter: Adapter) -> bool:
        product = self.whole or self
        if self.packing:
            return few_rows.reads(self.packing) and few_rows.fits(product.rows, product.depth, adapter, fast=self.fast)
        return not product.batch and few_rows.suits(product.a, product.b, product.output, adapter)

    @property
    def _few_rows(self) -> FewRows:
        weight = Operand(self.b.place, self.b.layout.permute((1, 0)), self.b.dtype)
        packed = ([self.packing], [self.blocks]) if self.packing else ((), ())
        activation = ACTIVATIONS[self.activation]
        return FewRows(
            self.a, [weight], [self.bias], self.residual, self.output, activation,
            packings=packed[0], blocks=packed[1], fast=self.fast,
        )  # fmt: skip

    def dispatch(
        self, tile: Tile, adapter: Adapter, weights: Sequence[Operand] = (), biases: Sequence[Operand | None] = ()
    ) -> Dispatch:
        """This product in such tiles, and those of the same a by more ``weights``, each a batch of the output then."""
        names = ["b", *(f"b{i}" for i in range(1, len(weights) + 1))]
        variables = {**tile.variables, **self._variables(tile, names), **self._epilogue(tile, adapter)}
        if weights and self.bias is not None:
            four, kind = ("4", "vec4<f32>") if self._writing == "vectors" else ("", "f32")
            cases = [f"if (batch == {i}u) {{ return load{four}_bias{i}(at); }}" for i in range(1, len(names))]
            body = " ".join([*cases, f"return load{four}_bias(at);"])
            variables["product"] += f"fn bias_of{four}(batch: u32, at: u32) -> {kind} {{ {body} }}"
        reading: Access = "elements" if self._reading(self.b, -2) == "elements" else "vectors"
        extra = [Buffer(name, weight, reading) for name, weight in zip(names[1:], weights, strict=True)]
        extra += [Buffer(f"bias{i}", bias, self._writing) for i, bias in enumerate(biases, 1) if bias is not None]
        groups = (-(-self.columns // tile.columns), *spread(self._row_tiles(tile) * len(names), 1)[:2])
        params = self._params(size_of(self.batch) * len(names))
        return Dispatch(tile.shader, variables, params, (*extra, *self._buffers(tile)), groups, self._loops(tile))

    def _row_tiles(self, tile: Tile) -> int:
        return -(-self.rows // tile.rows) * size_of(self.batch)

    def _loops(self, tile: Tile) -> int:
        """Iterations of an invocation of a software adapter over the depth, and the loops inside."""
        if tile == SOFTWARE_LONG:
            return -(-self.depth // (8 * tile.slices))
        if tile.shader == "matmul/packed":
            return 6 * -(-self.depth // 16)
        inside = 5 * ((self._reading(self.a, -1) == "elements") + (self._reading(self.b, -2) == "elements"))
        return -(-self.depth // 4) * (1 + (inside if tile == SOFTWARE else 0))

    def tile(self, adapter: Adapter) -> Tile:
        """Choose the tile for the size and the operands on ``adapter``."""
        if self.whole is not None:
            return self.whole.tile(adapter)
        tile = self._tile(adapter)
        return tile if not adapter.fallback or self._loops(tile) <= adapter.loops else SOFTWARE_LONG

    def _tile(self, adapter: Adapter) -> Tile:
        if not adapter.fallback:
            halves: tuple[Tile, ...] = HALVES if adapter.multiplies_halves and self._in_eights else ()
            return next(tile for tile in (*halves, *HARDWARE) if self._suits(tile))
        if self.batch or not self.depth or self._reading(self.a, -1) != "depth" or not _is_whole(self.a, (0, 1)):
            return SOFTWARE
        if self.packing:
            return SOFTWARE_PACKED_ROW if self.rows == 1 else SOFTWARE_PACKED
        order = {"depth": (1, 0), "across": (0, 1)}.get(self._reading(self.b, -2))
        if order is None or not _is_whole(self.b, order):
            return SOFTWARE
        return SOFTWARE_ROW if self.rows == 1 else SOFTWARE_LINEAR

    def _suits(self, tile: Tile) -> bool:
        filled = 2 * self.rows > tile.rows and 2 * self.columns > tile.columns
        groups = self._row_tiles(tile) * -(-self.columns // tile.columns)
        return not tile.groups or (groups >= tile.groups and (filled or tile.shader not in LARGE))

    @property
    def _in_eights(self) -> bool:
        """True if both operands are float16 that can be read eight at a time."""
        halves = self.a.dtype is self.b.dtype is dtypes.float16
        return halves and "elements" not in (self._reading(self.a, -1, 8), self._reading(self.b, -2, 8))

    def _reading(self, operand: Operand, along: int, width: int = 4) -> str:
        """Choose how ``width`` elements of an operand are read; ``along`` is its axis of depth. A key of ``BLOCKS``."""
        layout = operand.layout
        for name, axis in (("depth", along), ("across", -3 - along)):
            others = [s for i, s in enumerate(layout.strides, -len(layout.strides)) if i != axis]
            numbers = (*others, layout.offset, layout.shape[axis], self.depth)
            if layout.strides[axis] == 1 and all(number % width == 0 for number in numbers):
                return name
        return "elements"

    def _variables(self, tile: Tile, weights: Sequence[str]) -> dict[str, str]:
        variables = {"product": source("matmul/product")}
        if tile in (SOFTWARE_LINEAR, SOFTWARE_ROW):
            return {**variables, "columns_of_b": COLUMNS[self._reading(self.b, -2)]}
        if tile.shader == "matmul/packed":
            return {**variables, **(PACKED_ROW if tile.rows == 1 else PACKED_ROWS)}
        size = (tile.rows, tile.columns)
        if tile.depth:
            by_depth = [self._reading(o, along, 8) == "depth" for o, along in ((self.a, -1), (self.b, -2))]
            return {**variables, **subgroup_gemm.variables(*size, tile.depth, *by_depth)}
        if tile.shader == "matmul/tiled":
            lie = {"a": self._lies(self.a, -1), "b": self._lies(self.b, -2)}
            packed = bool(self.packing)
            own = tiles.variables(size, tile.blocks, tile.slices, self.depth, lie, weights, packed=packed)
            return {**variables, **own}
        more = [
            f"fn block_{name}(start: i32, column: u32, depth: u32) -> mat4x4<f32> {{\n  {self._block(name, tile)}\n}}"
            for name in weights[1:]
        ]
        variables["blocks"] = "\n".join([source("matmul/blocks"), *more])
        variables["add_products"] = tiles.by_weight([ADD_SLICES.format(b=b) for b in weights])
        return {**variables, "block_a": self._block("a", tile), "block_b": self._block("b", tile)}

    def _lies(self, operand: Operand, along: int) -> tuple[str, bool]:
        """Return how an operand is read, and whether neighbours in memory are neighbours in depth."""
        reading, strides = self._reading(operand, along), operand.layout.strides
        near = abs(strides[along]) <= abs(strides[-3 - along])
        return reading, reading == "depth" or (reading == "elements" and near)

    def _block(self, name: str, tile: Tile) -> str:
        """The body of ``block_a``, ``block_b`` or, of another weight like b, ``block_<name>``."""
        is_a = name == "a"
        first, strides = ("row", "p.a_strides") if is_a else ("column", "p.b_strides")
        reading = self._reading(self.a if is_a else self.b, -1 if is_a else -2)
        return BLOCKS["written out" if reading == "elements" and tile == SOFTWARE_LONG else reading].format(
            name=name, first=first, count=f"p.{first}s",
            across=f"{strides}.{'z' if is_a else 'w'}", along=f"{strides}.{'w' if is_a else 'z'}",
        )  # fmt: skip

    def _epilogue(self, tile: Tile, adapter: Adapter) -> dict[str, str]:
        """Compose the code that stores results: whole, or the activation and what comes after it on what is stored
        already.

        Hardware is not even shown an activation that there is not: it would leave loops around it as they are.
        """
        four, at, side = ("4", "at / 4u", "column / 4u") if self._writing == "vectors" else ("", "at + j", "column + j")
        bias = f" + {self.bias_of.format(four=four, side=side)}" if self.bias is not None else ""
        residual = f" + load{four}_residual({at})" if self.residual is not None else ""
        row, total = ("sums[i]", "total") if four else ("sums[i][j]", "total[j]")

        def activated(value: str) -> str:
            number = "p.activation" if adapter.fallback else f"{self.activation}u"
            return f"activate{four}({number}, {value})" if self.activation or adapter.fallback else value

        texts = {
            "store_row": activated(row + bias) + residual,
            "store_four": activated(total + bias) + residual,
            "activate_stored": "",
        }
        if self.activation and tile.shader == "matmul/tiled":
            texts["store_row"] = row + bias
            texts["activate_stored"] = activated(f"load{four}_y({at})") + residual
        return {name: text and STORES[self._writing].format(value=text) for name, text in texts.items()}

    @property
    def _writing(self) -> Access:
        return "elements" if self.columns % 4 or self.stride % 4 else "vectors"

    def _buffers(self, tile: Tile) -> tuple[Buffer, ...]:
        read: list[tuple[str, Operand | None, Access]] = [("bias", self.bias, self._writing)]
        read.append(("residual", self.residual, self._writing))
        whole: Access = "eights" if tile.depth else "vectors"
        for name, operand, along in (("b", self.b, -2), ("a", self.a, -1)):
            read.insert(0, (name, operand, "elements" if self._reading(operand, along) == "elements" else whole))
        buffers = [
            Buffer(name, operand, access, packing=self.packing if name == "b" else "")
            for name, operand, access in read
            if operand is not None
        ]
        return (*buffers, Buffer("y", self.output, self._writing, written=True))

    def _params(self, batch: int) -> bytes:
        lead = [
            Layout(o.layout.shape[:-2], o.layout.strides[:-2], o.layout.offset).broadcast_to(self.batch)
            for o in (self.a, self.b)
        ]
        a_lead, b_lead = merge_axes(lead)
        if len(a_lead.shape) > 2:
            raise UnsupportedOp("matmul", "webgpu", f"{len(a_lead.shape)} batch axes do not merge to two")
        pad = 2 - len(a_lead.shape)
        inner = ((1,) * pad + a_lead.shape)[1]
        a_strides = (*([0] * pad), *a_lead.strides, *self.a.layout.strides[-2:])
        b_strides = (*([0] * pad), *b_lead.strides, *self.b.layout.strides[-2:])
        return struct.pack(
            "<4I4i4i2i4I8x", self.rows, self.columns, self.depth, inner, *a_strides, *b_strides,
            self.a.layout.offset, self.b.layout.offset, self.activation, batch, self.stride, self.blocks,
        )  # fmt: skip


def _is_whole(operand: Operand, order: Sequence[int]) -> bool:
    """Return whether a matrix, its axes in that order, is all of its storage."""
    return operand.layout.offset == 0 and operand.layout.permute(order).is_contiguous


def _is_transposed(position: int, layout: Layout) -> bool:
    """Return whether an operand is a weight that is stored as (inputs, outputs)."""
    return position == 1 and layout.permute((1, 0)).is_contiguous


def _linear(step: Step, adapter: Adapter) -> Sequence[Dispatch]:
    return _linear_of(step).dispatches(adapter)


def _linear_of(step: Step) -> Product:
    x, weight, *more = step.inputs
    residual = more.pop() if step.attrs["residual"] else None
    packing, blocks = str(step.attrs.get("block_format", "")), 0
    if packing:
        weight, blocks = quantized(step, weight)
    turned = Operand(weight.place, weight.layout.permute((1, 0)), weight.dtype)
    flat = Operand(x.place, replace(Layout.contiguous(rows_and_columns(x)), offset=x.layout.offset), x.dtype)
    activation = ACTIVATIONS.index(step.attrs["activation"])
    bias = more[0] if more else None
    whole = None if step.whole is None else _linear_of(step.whole)
    return Product(
        flat, turned, bias, residual, step.output, activation, (), whole=whole, packing=packing, blocks=blocks,
        fast=step.attrs.get("precision") == "fast",
    )  # fmt: skip


def quantized(step: Step, words: Operand) -> tuple[Operand, int]:
    """Return the weight of a step, whose storage is ``words``, as a matrix, and the number of its blocks.

    A part of a step has a number of columns from ``first`` on, which are rows of the weight.
    """
    shape, first = step.attrs["weight_shape"], step.attrs.get("first", 0)
    assert isinstance(shape, tuple) and isinstance(first, int)
    rows, columns = (size for size in shape if isinstance(size, int))
    layout = Layout.contiguous((rows, columns))
    if step.op.name == "quantized_linear":
        layout = layout.slice(0, first, first + step.output.shape[-1])
    return Operand(words.place, layout, dtypes.float32), blocks_of(str(step.attrs["block_format"]), (rows, columns))


def _cut_linear(step: Step, axis: int) -> Sequence[int | None] | None:
    """Along the rows, or along the columns, which are the rows of the weight."""
    _, _, *more = step.inputs
    if axis == len(step.output.shape) - 1:
        return [None, 0, *(len(each.shape) - 1 for each in more)]
    if not is_leading(step, axis):
        return None
    return [axis, None, *(axis if len(each.shape) == len(step.output.shape) > 1 else None for each in more)]


def _cut_quantized(step: Step, axis: int) -> Sequence[int | None] | None:
    """As for ``linear``, with all of the storage of the weight for each part."""
    axes = _cut_linear(step, axis)
    return axes and [axes[0], None, *axes[2:]]


def _moved_quantized(step: Step, axis: int, first: int) -> Attributes:
    """The attributes of a part that begins at ``first`` along ``axis``."""
    before = step.attrs.get("first", 0)
    assert isinstance(before, int)
    return {**step.attrs, "first": before + first} if axis == len(step.output.shape) - 1 else step.attrs


def parts_of_depth(rows: int, depth: int, columns: int) -> int:
    """Return the number of parts of the depth in which a product fills the hardware; the next step adds them up.

    Measured on an H200, at 128 rows: parts of 96 and more, as many as give 384 tiles of 32 × 32.
    """
    if rows <= 16 or columns == 0 or columns % 4:
        return 1
    most = min(384 // (-(-rows // 32) * -(-columns // 32)), depth // 96, 8)
    return next((count for count in range(most, 1, -1) if depth % (32 * count) == 0), 1)


def _linear_parts(step: Step, adapter: Adapter) -> Sequence[Dispatch]:
    """Each part of the depth is a batch: the operands as they lie, in strides."""
    (x, weight), count = step.inputs, step.output.shape[0]
    rows, depth = rows_and_columns(x)
    columns, part = weight.shape[0], depth // count
    left = Operand(x.place, Layout((count, rows, part), (part, depth, 1)), x.dtype)
    row, column = weight.layout.strides
    right = Layout((count, part, columns), (part * column, column, row), weight.layout.offset)
    return Product(left, replace(weight, layout=right), None, None, step.output, 0, (count,)).dispatches(adapter)


def _linears(step: Step, adapter: Adapter) -> Sequence[Dispatch]:
    """Products of one x by several weights: batches of one dispatch where hardware can, each as it would be alone."""
    count = step.attrs["count"]
    assert isinstance(count, int)
    x, *rest = step.inputs
    weights = [Operand(each.place, each.layout.permute((1, 0)), each.dtype) for each in rest[:count]]
    biases: Sequence[Operand | None] = rest[count:] or [None] * count
    flat = Operand(x.place, Layout.contiguous(rows_and_columns(x)), x.dtype)
    activation = ACTIVATIONS.index(step.attrs["activation"])
    layout, place = Layout.contiguous(step.output.shape[1:]), step.output.place
    size = place.nbytes // count
    alone = []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        part = Operand(replace(place, offset=place.offset + i * size, nbytes=size), layout, step.output.dtype)
        alone.append(Product(flat, weight, bias, None, part, activation, ()))
    tile = alone[0].tile(adapter)
    if tile.shader not in JOINING:
        return [dispatch for product in alone for dispatch in product.dispatches(adapter)]
    joined = replace(alone[0], output=step.output, bias_of="bias_of{four}(batch, {side})")
    return [joined.dispatch(tile, adapter, weights[1:], biases[1:])]


def _each_linear(step: Step) -> list[Step]:
    """One product after another."""
    count = step.attrs["count"]
    assert isinstance(count, int)
    x, *rest = step.inputs
    attrs = {"activation": step.attrs["activation"], "residual": False}
    products = []
    place, layout = step.output.place, Layout.contiguous(step.output.shape[1:])
    size = place.nbytes // count
    for i in range(count):
        own = replace(place, offset=place.offset + i * size, nbytes=size)
        part = Operand(own, layout, step.output.dtype)
        inputs = (x, rest[i], *([rest[count + i]] if len(rest) > count else []))
        products.append(replace(step, op=replace(step.op, name="linear"), attrs=attrs, inputs=inputs, output=part))
    return products


def _matmul(step: Step, adapter: Adapter) -> Sequence[Dispatch]:
    product = _matmul_of(step)
    return product.dispatches(adapter) if step.output.dtype.kind == "float" else product.of_integers()


def _matmul_of(step: Step) -> Product:
    a, b = step.inputs
    whole = None if step.whole is None else _matmul_of(step.whole)
    return Product(a, b, None, None, step.output, 0, step.output.shape[:-2], whole=whole)


def _cut_matmul(step: Step, axis: int) -> Sequence[int | None] | None:
    """Along the batch, the rows or the columns."""
    rank = len(step.output.shape)
    if axis < rank - 1 and not is_leading(step, axis):
        return None
    if axis >= rank - 2:
        own = [len(x.shape) - rank + axis for x in step.inputs]
        return [own[0], None] if axis == rank - 2 else [None, own[1]]
    return aligned(step, axis)


KERNELS = [
    Kernel("linear", _linear, _is_transposed, _cut_linear, offsets=2),
    Kernel("linears", _linears, parts=_each_linear),
    Kernel("linear_parts", _linear_parts, _is_transposed),
    Kernel("quantized_linear", _linear, cut=_cut_quantized, offsets=1, moved=_moved_quantized),
    Kernel("matmul", _matmul, lambda position, layout: True, _cut_matmul),
]
