"""Products of a few rows, as a decoder's steps have them: the kernels are bound by reading the weights.

Up to :data:`MOST` rows, and weights whose rows lie one after another. A row has the same bits whatever the others are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from .... import dtypes
from ....shapes import Layout
from ...base import Operand, Step
from ..accessors import Access, Buffer
from ..packing import DECODERS, blocks_of
from ..shader import Dispatch
from . import block_products
from .common import Adapter, Kernel, float32, rows_and_columns, spread

MOST = 8  # rows
TEAMS = 4  # of 32 lanes, in a workgroup
AHEAD = 2  # vectors of a weight that a lane has under way
GROUPS = 264  # workgroups that hardware has at once: more columns a team beyond
LANES, MOST_AHEAD = 256, 8  # of few_rows_across.wgsl: of a workgroup, and vectors that a lane has under way
LOADED = 16  # vectors of weights that a lane loads before x is normalised
SUMS = 8192 + 512  # bytes of workgroup memory for up to 16 sums of each lane, and those of a norm
AHEAD_UNITS, LOADED_UNITS = 4, 4  # AHEAD and LOADED in units of 32 numbers of quantised weights

# Rows of x, normalised as rms_norm_row.wgsl and layer_norm_row.wgsl do it, in the same order.
SUM = """var<workgroup> squares: array<f32, {own}>;
fn sum_over_own(v: f32, lane: u32) -> f32 {{
  workgroupBarrier();
  if (lane < {own}u) {{ squares[lane] = v; }}
  workgroupBarrier();
  for (var half = {own}u / 2u; half > 0u; half /= 2u) {{
    if (lane < half) {{ squares[lane] += squares[lane + half]; }}
    workgroupBarrier();
  }}
  return squares[0];
}}"""
STAGE = """fn stage_row(row: u32, lane: u32) {{
  const count = {count}u;
  let start = row * count;
  {statistics}
  {stage}
}}"""
# Statements before a row is staged, and vector ``i`` of it; {{x}} is a vector of what is bound.
STATISTICS = {
    "rms": """const steps = {steps}u;
  var sum = 0f;
  if (lane < {own}u) {{
    for (var j = 0u; j < steps; j++) {{
      let i = lane + j * {own}u;
      if (i < count) {{ let v = {x}; sum += dot(v, v); }}
    }}
  }}
  let factor = 1f / sqrt(sum_over_own(sum, lane) / f32(4u * count) + p.eps);""",
    "layer": """const steps = {steps}u;
  let first = {first}.x;
  var sum = 0f;
  if (lane < {own}u) {{
    for (var j = 0u; j < steps; j++) {{
      let i = lane + j * {own}u;
      if (i < count) {{ sum += dot({x} - first, vec4<f32>(1f)); }}
    }}
  }}
  let shift = sum_over_own(sum, lane) / f32(4u * count);
  sum = 0f;
  if (lane < {own}u) {{
    for (var j = 0u; j < steps; j++) {{
      let i = lane + j * {own}u;
      if (i < count) {{ let v = {x} - first - shift; sum += dot(v * v, vec4<f32>(1f)); }}
    }}
  }}
  let factor = 1f / sqrt(sum_over_own(sum, lane) / f32(4u * count) + p.eps);""",
}
NORMALISED = {
    "none": "{x}",
    "rms": "{x} * factor * load4_weight(i)",
    "layer": "({x} - first - shift) * factor * load4_weight(i) + load4_shift(i)",
}
STAGE_FLOATS = """for (var i = lane; i < count; i += lanes) {{
    staged[start + i] = {value};
  }}"""
SHARED = """var<workgroup> partial: array<f32, 128u * {values}u>;"""
REDUCE = """  {put}
  workgroupBarrier();
  for (var half = 16u; half > 0u; half /= 2u) {{
    if (slice < half) {{
      for (var v = 0u; v < {values}u; v++) {{ partial[v * lanes + lane] += partial[v * lanes + lane + half]; }}
    }}
    workgroupBarrier();
  }}"""


@dataclass(frozen=True)
class Norm:
    """The norm of x: its weight, the bias of a layer norm, and what is added to the mean."""

    weight: Operand
    bias: Operand | None
    eps: float


@dataclass(frozen=True)
class FewRows:
    """``activation(x @ b.T + bias) + residual`` for each of ``weights``, (columns, depth), whose results lie in
    ``output`` from the elements ``starts`` on. With ``gated`` two weights have one result.
    """

    x: Operand  # (rows, depth), dense
    weights: Sequence[Operand]
    biases: Sequence[Operand | None]
    residual: Operand | None
    output: Operand
    activation: str | None
    starts: Sequence[int] = (0,)
    norm: Norm | None = None
    gated: bool = False
    packings: Sequence[str] = ()  # the block format of each weight, of quantised ones
    blocks: Sequence[int] = ()  # of the whole weight, of which ``weights`` may have some rows
    fast: bool = False  # x is rounded to int8 in blocks of 32

    @property
    def rows(self) -> int:
        """Rows of x."""
        return self.x.shape[0]

    def dispatch(self, adapter: Adapter) -> Dispatch:
        """The dispatch of all weights."""
        depth = self.x.shape[1]
        if not self.packings and not self.weights[0].layout.is_dense:
            return self._across(depth)
        width = 32 if self.packings else 8 if all(w.dtype is dtypes.float16 for w in self.weights) else 4
        columns = [weight.shape[0] for weight in self.weights[:1] if self.gated] or [w.shape[0] for w in self.weights]
        per = self._per(sum(columns))
        turns = self._turns(columns, per)
        groups = [-(-count // (TEAMS * per * turns)) for count in columns]
        firsts = [sum(groups[:i]) for i in range(len(groups))]
        eps = float32(self.norm.eps if self.norm else 0.0)
        row = self.weights[0].layout.offset // depth if self.packings else 0
        params = struct.pack("<2IfI", depth // width, self.x.layout.offset // 4, eps, row)
        for first, count, start in zip(firsts, columns, self.starts, strict=True):
            params += struct.pack("<4I", first, count, start, self._stride or count)
        names = [f"b{i}" for i in range(len(self.weights))]
        together = [names] if self.gated else [[name] for name in names]
        sums = [
            f"{'gu'[i] if self.gated else 's'}_{q}_{r}"
            for i in range(1 + self.gated)
            for q in range(per)
            for r in range(self.rows)
        ]
        stage = self._stage_text("$team * 32u + $slice" if self.fast else "lane")
        fast = adapter.subgroups == (32, 32) and {"subgroups", "subgroup_id"} <= adapter.features
        variables = {
            "head": "enable subgroups;" if fast else "",
            "builtins": ", @builtin(subgroup_invocation_id) own: u32, @builtin(subgroup_id) team: u32" if fast else "",
            "slice": "own" if fast else "lane % 32u",
            "team": "team" if fast else "lane / 32u",
            "width": str(width),
            "parts": str(len(columns)),
            "rows": str(self.rows),
            "per": str(per),
            "norm": self._norm_text(depth, subgroups=fast),
            "early": stage if turns > 1 else "",
            "stage": stage if turns == 1 else "",
            "units": self._units_text(depth),
            "turns": f"for (var turn = 0u; turn < {turns}u; turn++) {{" if turns > 1 else "",
            "turned": "workgroupBarrier(); }" if turns > 1 else "",
            "first": f"((item - part.x) * {turns}u + turn)" if turns > 1 else "(item - part.x)",
            "reduction": "" if fast else SHARED.format(values=len(sums)),
            "which": "let which = "
            + (" + ".join(f"select(0u, 1u, item >= p.parts[{i}].x)" for i in range(1, len(columns))) or "0u")
            + ";",
            "sums": "\n  ".join(f"var {name} = 0f;" for name in sums),
            "reduce": self._reduce(sums, fast),
            "store": self._store(per, fast),
        }
        count = -(-depth // (32 * width))
        if turns == 1 and count * per * len(together[0]) <= (LOADED_UNITS if self.packings else LOADED):
            variables["loads"], variables["loops"] = self._at_once(together, per, width, count)
        else:
            variables["loads"], variables["loops"] = "", "\n  ".join(self._loops(together, per, width))
        reading: Access = "eights" if width == 8 else "vectors"
        buffers = self._normed_buffers()
        for i, (name, weight) in enumerate(zip(names, self.weights, strict=True)):
            packing, blocks = (self.packings[i], f"{self.blocks[i]}u") if self.packings else ("", "")
            buffers.append(Buffer(name, weight, reading, packing=packing, blocks=blocks))
        buffers += [Buffer(f"bias{i}", bias) for i, bias in enumerate(self.biases) if bias is not None]
        if self.residual is not None:
            buffers.append(Buffer("residual", self.residual))
        buffers.append(Buffer("y", self.output, written=True))
        return Dispatch("matmul/few_rows", variables, params, tuple(buffers), spread(sum(groups), 1))

    def _across(self, depth: int) -> Dispatch:
        """The dispatch of one weight, whose columns lie side by side."""
        ((weight,), (bias,)) = self.weights, self.biases
        columns = weight.shape[0]
        params = struct.pack("<4If12x", depth, self.x.layout.offset // 4, self.x.layout.offset, columns,
                             float32(self.norm.eps if self.norm else 0.0))  # fmt: skip
        fours = 4 if columns >= 16 * GROUPS else 2
        shares = -(-depth * fours // LANES)  # of a slice
        ahead = -(-shares // -(-shares // MOST_AHEAD))
        adds = [
            f"let w{u} = load4_b(min(k + {u}u * slices, p.depth - 1u) * (p.columns / 4u) + column);"
            for u in range(ahead)
        ]
        for r, u in product(range(self.rows), range(ahead)):
            at = f"min(k + {u}u * slices, p.depth - 1u)"
            x = f"staged[{r}u * (p.depth / 4u) + {at} / 4u][{at} % 4u]"
            if self.norm is None:
                x = f"load_x(p.x_start + {r}u * p.depth + {at})"
            adds.append(f"s_{r} += select(vec4<f32>(), {x} * w{u}, k + {u}u * slices < p.depth);")
        lines = [f"var v = total{' + load4_bias(column)' if bias is not None else ''};"]
        if self.activation:
            lines.append(f"v = vec4<f32>({', '.join(f'op_{self.activation}(v.{each})' for each in 'xyzw')});")
        lines.append(f"store4_y(at, v{' + load4_residual(at)' if self.residual is not None else ''});")
        variables = {
            "rows": str(self.rows),
            "norm": self._norm_text(depth),
            "stage": self._stage_text("lane"),
            "sums": "\n  ".join(f"var s_{r} = vec4<f32>();" for r in range(self.rows)),
            "fours": str(fours),
            "ahead": str(ahead),
            "add": "\n    ".join(adds),
            "put": "\n  ".join(f"partial[{r}u * lanes + lane] = s_{r};" for r in range(self.rows)),
            "store": "\n  ".join(lines),
        }
        buffers = self._normed_buffers() if self.norm else [Buffer("x", self.x)]
        buffers.append(Buffer("b", Operand(weight.place, Layout.contiguous((depth, columns)), weight.dtype), "vectors"))
        for name, operand in (("bias", bias), ("residual", self.residual)):
            if operand is not None:
                buffers.append(Buffer(name, operand, "vectors"))
        buffers.append(Buffer("y", self.output, "vectors", written=True))
        return Dispatch(
            "matmul/few_rows_across", variables, params, tuple(buffers), spread(-(-columns // (4 * fours)), 1)
        )

    def _normed_buffers(self) -> list[Buffer]:
        """The buffers of x and of its norm."""
        buffers = [Buffer("x", self.x, "elements" if self.x.layout.offset % 4 else "vectors")]
        if self.norm is not None:
            buffers.append(Buffer("weight", self.norm.weight, "vectors"))
            if self.norm.bias is not None:
                buffers.append(Buffer("shift", self.norm.bias, "vectors"))
        return buffers

    @property
    def _stride(self) -> int:
        """Elements from a row of a part of a result to the next; 0 where rows follow each other."""
        return self.output.layout.strides[0] if len(self.output.shape) == 2 and not self.output.layout.is_dense else 0

    @property
    def _stages(self) -> bool:
        """True if x goes to workgroup memory."""
        return self.norm is not None or self.fast

    def _stage_text(self, lane: str) -> str:
        if not self._stages:
            return ""
        return "\n  ".join([*(f"stage_row({r}u, {lane});" for r in range(self.rows)), "workgroupBarrier();"])

    def _units_text(self, depth: int) -> str:
        x = "staged[{at}]" if self.norm else self._vector("{at}")
        return block_products.declarations(self.rows, depth, fast=self.fast, x=x) if self.packings else ""

    def _vector(self, at: str) -> str:
        """WGSL for vector ``at`` of x as it is bound."""
        if first := self.x.layout.offset % 4:
            parts = (f"load_x(4u * (p.x_offset + {at}) + {first + c}u)" for c in range(4))
            return f"vec4<f32>({', '.join(parts)})"
        return f"load4_x(p.x_offset + {at})"

    def _turns(self, columns: Sequence[int], per: int) -> int:
        """Return how many groups of columns a workgroup computes, since it stages x in int8 once for all of them."""
        if not self.fast or len(columns) > 1:
            return 1
        return next((turns for turns in (8, 4, 2) if columns[0] >= 4 * GROUPS * TEAMS * per * turns), 1)

    def _per(self, columns: int) -> int:
        most = max(16 // (self.rows * (1 + self.gated)), 1)
        return next((per for per in (4, 2) if per <= most and columns >= GROUPS * TEAMS * per * 2), 1)

    def _norm_text(self, depth: int, *, subgroups: bool = False) -> str:
        if not self._stages:
            return ""
        count, kind = depth // 4, "none" if self.norm is None else "rms" if self.norm.bias is None else "layer"
        own = next((lanes for lanes in (32, 64, 128) if count <= 8 * lanes), 128)
        x = self._vector("start + i")
        value, statistics = NORMALISED[kind].format(x=x), ""
        if self.norm is not None:
            steps = -(-count // own)
            statistics = STATISTICS[kind].format(own=own, steps=steps, x=x, first=self._vector("start"))
        if self.fast:
            kept, stage = "", block_products.stage(depth, value, subgroups=subgroups)
        else:
            kept = f"var<workgroup> staged: array<vec4<f32>, {self.rows * count}>;\n"
            stage = STAGE_FLOATS.format(value=value)
        total = SUM.format(own=own) if self.norm is not None else ""
        return f"{kept}{total}\n{STAGE.format(count=count, statistics=statistics, stage=stage)}"

    def _loops(self, together: Sequence[Sequence[str]], per: int, width: int) -> Iterator[str]:
        """One loop over the depth for each part of the result, whose workgroups run only that one."""
        ahead = max(AHEAD_UNITS // (per * len(together[0])), 1) if self.packings else AHEAD
        places = ["k", *(f"k{u}" for u in range(1, ahead))]
        for number, names in enumerate(together):
            yield f"{'else ' if number else ''}if (which == {number}u) {{"
            yield f"for (var k = slice; k < p.depth; k += {32 * ahead}u) {{"
            for u in range(1, ahead):
                yield f"let more{u} = k + {32 * u}u < p.depth; let k{u} = select(k, k + {32 * u}u, more{u});"
            for name in names:
                yield from (
                    f"let w{names.index(name)}_{q}_{u} = {load};" for q, u, load in _loads(name, per, width, places)
                )
            yield from self._products(names, per, width, places, ["", *(f"more{u}" for u in range(1, ahead))])
            yield "} }"

    def _at_once(self, together: Sequence[Sequence[str]], per: int, width: int, count: int) -> tuple[str, str]:
        """The same without a loop: what loads the weights, before x is normalised, and the products after that."""
        places = ["slice", *(f"min(slice + {32 * u}u, p.depth - 1u)" for u in range(1, count))]
        kind = {4: "vec4<f32>", 8: "vec4<u32>", 32: "Unit"}[width]
        loads = [
            f"var w{i}_{q}_{u}: {kind};" for i in range(len(together[0])) for q in range(per) for u in range(count)
        ]
        for number, names in enumerate(together):
            loads.append(f"{'else ' if number else ''}if (which == {number}u) {{")
            for i, name in enumerate(names):
                loads += [f"w{i}_{q}_{u} = {load};" for q, u, load in _loads(name, per, width, places)]
            loads.append("}")
        inside = [f"slice + {32 * u}u < p.depth" for u in range(count)]
        if len(together) == 1 or not self.packings:
            return "\n  ".join(loads), "\n  ".join(self._products(together[0], per, width, places, inside))
        products = list[str]()  # the formats of the weights may differ
        for number, names in enumerate(together):
            products.append(f"{'else ' if number else ''}if (which == {number}u) {{")
            products += [*self._products(names, per, width, places, inside), "}"]
        return "\n  ".join(loads), "\n  ".join(products)

    def _products(
        self, weights: Sequence[str], per: int, width: int, places: Sequence[str], inside: Sequence[str]
    ) -> Iterator[str]:
        """The products of vectors of weights with those of x; one whose condition in ``inside`` is false is nothing."""
        for r in range(self.rows):
            for u, place in enumerate(places):
                if width == 32:
                    yield f"let x_{r}_{u} = units_at({r}u, {place});"
                elif width == 8:
                    yield f"let x_{r}_{u} = {self._x(r, f'2u * ({place})', '2u * p.depth')};"
                    yield f"let z_{r}_{u} = {self._x(r, f'2u * ({place}) + 1u', '2u * p.depth')};"
                else:
                    yield f"let x_{r}_{u} = {self._x(r, place, 'p.depth')};"
        for i, name in enumerate(weights):
            for q in range(per):
                for r in range(self.rows):
                    for u, condition in enumerate(inside):
                        w = f"w{i}_{q}_{u}"
                        value = f"dot(x_{r}_{u}, {w})"
                        if width == 32:
                            value = block_products.product(self.packings[int(name[1:])], f"x_{r}_{u}", w)
                        elif width == 8:
                            value = (
                                f"(dot(x_{r}_{u}, vec4<f32>(unpack2x16float({w}.x), unpack2x16float({w}.y)))"
                                f" + dot(z_{r}_{u}, vec4<f32>(unpack2x16float({w}.z), unpack2x16float({w}.w))))"
                            )
                        target = f"{'gu'[i] if self.gated else 's'}_{q}_{r}"
                        yield f"{target} += {f'select(0f, {value}, {condition})' if condition else value};"

    def _x(self, row: int, place: str, depth: str) -> str:
        at = f"{row}u * {depth} + {place}" if row else place
        return f"staged[{at}]" if self.norm else self._vector(at)

    def _reduce(self, sums: Sequence[str], fast: bool) -> str:
        if fast:
            return "\n  ".join(f"{name} = subgroupAdd({name});" for name in sums)
        put = "\n  ".join(f"partial[{v}u * lanes + lane] = {name};" for v, name in enumerate(sums))
        return REDUCE.format(put=put, values=len(sums))

    def _store(self, per: int, fast: bool) -> str:
        """Compose the epilogue of the value that a lane stores: number ``slice``, [row][column]."""

        def chosen(name: str, prefix: str, first: int) -> list[str]:
            if not fast:  # [column][row] in workgroup memory
                return [f"var {name} = partial[({first}u + slice % per * rows + row) * lanes + lane / 32u * 32u];"]
            lines = [f"var {name} = {prefix}_0_0;"]
            for r in range(self.rows):
                for q in range(per):
                    if r or q:
                        lines.append(f"if (slice == {r * per + q}u) {{ {name} = {prefix}_{q}_{r}; }}")
            return lines

        def activated(value: str) -> str:
            return f"op_{self.activation}({value})" if self.activation else value

        if self.gated:
            lines = [*chosen("gate", "g", 0), *chosen("up", "u", per * self.rows)]
            lines += [*self._bias("gate", 0), *self._bias("up", 1)]
            lines.append(f"store_y(at, {activated('gate')} * up);")
            return "\n  ".join(lines)
        lines = chosen("total", "s", 0)
        for i, bias in enumerate(self.biases):
            if bias is not None:
                lines.append(f"if (which == {i}u) {{ total += load_bias{i}(n); }}")
        residual = " + load_residual(at)" if self.residual is not None else ""
        lines.append(f"store_y(at, {activated('total')}{residual});")
        return "\n  ".join(lines)

    def _bias(self, name: str, number: int) -> Iterator[str]:
        if self.biases[number] is not None:
            yield f"{name} += load_bias{number}(n);"


def suits(x: Operand, weight: Operand, output: Operand, adapter: Adapter) -> bool:
    """Return whether ``x @ weight`` is such a product: x (rows, depth), ``weight`` (depth, columns)."""
    rows, depth = x.shape
    lies = weight.layout.permute((1, 0)).is_dense or (weight.layout.is_dense and weight.shape[1] % 4 == 0)
    whole = lies and output.layout.is_dense and x.layout.is_contiguous and x.layout.offset % 4 == 0
    return whole and fits(rows, depth, adapter)


def reads(block_format: str) -> bool:
    """Return whether weights of this format are read in units of quants; those without a format are dense."""
    return not block_format or DECODERS[block_format].integers


def fits(rows: int, depth: int, adapter: Adapter, *, normed: bool = False, fast: bool = False) -> bool:
    """Return whether x has few rows, which are read in whole vectors, and workgroup memory is enough.

    It has the sums, and x where that is ``normed``, as float, or rounded to int8 (``fast``).
    """
    floats = 4096 * rows + 4 * rows * depth * normed
    needed = SUMS + block_products.staged_bytes(rows, depth) if fast else floats
    few = 0 < rows <= MOST and depth > 0 and depth % (32 if fast else 8) == 0
    return not adapter.fallback and few and needed <= adapter.storage


def _row_products(step: Step, adapter: Adapter) -> list[Dispatch]:
    """See graph/row_products.py."""
    x, *rest = step.inputs
    count, eps, starts = (step.attrs[name] for name in ("count", "eps", "starts"))
    assert isinstance(count, int) and isinstance(starts, tuple)
    norm = None
    if isinstance(eps, float):
        norm = Norm(rest.pop(0), rest.pop(0) if step.attrs["norm"] == "layer_norm" else None, eps)
    flat = Operand(x.place, replace(Layout.contiguous(rows_and_columns(x)), offset=x.layout.offset), x.dtype)
    biases = rest[count:] if step.attrs["biased"] else [None] * count
    activation, formats, shapes = (step.attrs[name] for name in ("activation", "block_formats", "weight_shapes"))
    assert isinstance(formats, tuple) and isinstance(shapes, tuple)
    packings = [str(name) for name in formats]
    weights = rest[:count]
    if packings:
        layouts = [Layout.contiguous(shape) for shape in shapes if isinstance(shape, tuple)]  # type: ignore[arg-type]
        weights = [Operand(each.place, own, dtypes.float32) for each, own in zip(weights, layouts, strict=True)]
    products = FewRows(
        flat, weights, biases, None, step.output, str(activation) if activation else None,
        [int(start) for start in starts if isinstance(start, int)], norm, bool(step.attrs["gated"]), packings,
        [blocks_of(packing, weight.shape) for packing, weight in zip(packings, weights, strict=False)],
        step.attrs["precision"] == "fast",
    )  # fmt: skip
    return [products.dispatch(adapter)]


def _accepts(position: int, layout: Layout) -> bool:
    """A weight whose columns lie side by side."""
    return len(layout.shape) == 2 and layout.permute((1, 0)).is_dense


KERNELS = [Kernel("row_products", _row_products, _accepts, offsets=1)]


def _loads(name: str, per: int, width: int, places: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the number of a column, that of a place in its row, and what loads the vector there."""
    for q in range(per):
        for u, place in enumerate(places):
            at = f"min(column + {q}u, part.y - 1u)"
            if width == 32:
                yield q, u, block_products.unit(name, f"(p.row + {at}) * p.depth + {place}")
            else:
                yield q, u, f"{'bits' if width == 8 else 'load4'}_{name}({at} * p.depth + {place})"
