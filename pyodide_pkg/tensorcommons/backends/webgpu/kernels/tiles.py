"""The text of ``matmul/tiled.wgsl`` that depends on its tile and on how the operands lie in memory.

Whatever is kept from one step to the next has a name of its own: an array that a loop indexes would leave the
registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

DEPTH = 8  # of a slice
WARP = 32  # lanes that run together on the hardware this was measured on
# The sums from one weight: slices are fetched while those before them are multiplied.
MULTIPLY = """{fetch_first}
  for (var k = 0u; k < p.depth; k += $step) {{
    $put
    workgroupBarrier();
    {fetch_next}
    $own_columns
    for (var d = 0u; d < 8u; d++) {{
      $multiply
    }}
    workgroupBarrier();
  }}"""
# The results of a lane, where nobody else has sums of them.
STORE = """for (var i = 0u; i < $high * $wide; i++) {
    let at = own + vec2<u32>(i % $wide * lanes_x, i / $wide * lanes_y);
    store_block(batch, row + at.y * 4u, column + at.x * 4u, sums[i]);
  }
  for (var i = 0u; i < $high * $wide * 4u; i++) {
    let at = own + vec2<u32>(i / 4u % $wide * lanes_x, i / 4u / $wide * lanes_y);
    activate_stored(batch, row + at.y * 4u + i % 4u, column + at.x * 4u);
  }"""
# Block by block, every lane puts its sums into half an array of the slices' memory, and then adds up what all slices
# have of some of the tile's vectors.
MERGE = """{{
    let half = lane % 2u * 4u;
    let to = &slices[lane / 2u];
    (*to)[half] = sums[{i}][0]; (*to)[half + 1u] = sums[{i}][1];
    (*to)[half + 2u] = sums[{i}][2]; (*to)[half + 3u] = sums[{i}][3];
    workgroupBarrier();
    for (var n = 0u; n < own_totals; n++) {{
      let vector = (lane + n * lanes) % (tile_lanes * 4u);
      let at = vector % tile_lanes;
      var total = vec4<f32>();
      for (var s = 0u; s < ${{slices}}u; s++) {{
        total += slices[(s * tile_lanes + at) / 2u][at % 2u * 4u + vector / tile_lanes];
      }}
      totals[{i}u * own_totals + n] = total;
    }}
    workgroupBarrier();
  }}"""
STORE_MERGED = """const own_totals = (tile_lanes * 4u + lanes - 1u) / lanes;
  var totals: array<vec4<f32>, $high * $wide * own_totals>;
  $merge
  if (lane >= tile_lanes * 4u) { return; }
  for (var i = 0u; i < $high * $wide * own_totals; i++) {
    let vector = lane + i % own_totals * lanes;
    let block = i / own_totals;
    let at = corner_of(vector % tile_lanes) + vec2<u32>(block % $wide * lanes_x, block / $wide * lanes_y);
    store_four(batch, row + at.y * 4u + vector / tile_lanes, column + at.x * 4u, totals[i]);
  }"""


@dataclass(frozen=True)
class Side:
    """An operand's part of the slices in workgroup memory: ``size`` rows of a, or columns of b, of each slice.

    ``reading`` is how four elements come from the buffer: "depth" and "across" as one vector, "elements" one by one,
    by depth or across as ``by_depth`` says. ``first`` is where its columns begin in workgroup memory. ``checked``: the
    slices may pass the depth, and there they have zeros. ``packed``: it is in a block format (``packing``), and is
    kept in registers as quants, which become numbers on the way to workgroup memory.
    """

    name: str
    size: int
    first: int
    lanes: int
    slices: int
    reading: str
    by_depth: bool
    checked: bool
    packed: bool = False

    @property
    def count(self) -> int:
        """Vectors that a lane brings of every step."""
        return self.size * DEPTH * self.slices // 4 // self.lanes

    def places(self) -> Iterator[str]:
        """Yield WGSL for the start of each vector of this lane: in the buffer, in depth, in workgroup memory."""
        first, total = ("row", "p.rows") if self.name == "a" else ("column", "p.columns")
        across, along = ("z", "w") if self.name == "a" else ("w", "z")
        name, fours = self.name, self.size // 4
        yield f"let {name}_step = p.{name}_strides.{along};"
        yield f"let {name}_across = p.{name}_strides.{across};"
        for n in range(self.count):
            vector = f"(lane + {n * self.lanes}u)"
            deep, side = f"{vector} / {fours}u", f"{vector} % {fours}u * 4u"  # neighbouring lanes take neighbours
            if self.by_depth:
                deep, side = (f"{vector} % {2 * self.slices}u * 4u", f"{vector} / {2 * self.slices}u")
            if self.packed:  # what a lane brings is side by side, so that it has one scale
                runs = 2 * self.slices // self.count
                deep, side = f"lane % {runs}u * {4 * self.count}u + {4 * n}u", f"lane / {runs}u"
            yield f"let {name}_side{n} = {side};"
            yield f"let {name}_k{n} = {deep};"
            yield f"let {name}_slice{n} = {name}_k{n} / {DEPTH}u;"
            yield f"let {name}_column{n} = {self.first}u + {name}_slice{n} * {fours}u + {name}_side{n} / 4u;"
            last = 4 if self.reading == "across" else 1
            inside = f"i32(min({first} + {name}_side{n}, {total} - {last}u))" if last == 4 or self.by_depth else "0"
            yield f"let {name}_at{n} = {name}_start + {inside} * {name}_across + i32({name}_k{n}) * {name}_step;"
            yield f"var {name}{n}: {'u32' if self.packed else 'vec4<f32>'};"
        if self.packed:
            yield f"var {name}_own: vec2<f32>;"

    def fetch(self, k: str, buffer: str) -> Iterator[str]:
        """Bring the step at depth ``k`` to registers. It is text and no function, which would wait for its loads."""
        name = self.name
        if self.packed:
            yield from self._fetch_quants(k, buffer)
            return
        for n in range(self.count):
            if self.reading != "elements":
                value = f"load4_{buffer}(u32({name}_at{n} + i32({k}) * {name}_step) / 4u)"
                if self.checked:
                    value = f"select(vec4<f32>(), {value}, {k} + {name}_k{n} < p.depth)"
                yield f"{name}{n} = {value};"
                continue
            for j in range(4):
                if self.by_depth:
                    at, deep = f"i32({k} + {j}u) * {name}_step", f"{k} + {name}_k{n} + {j}u"
                else:
                    first, total = ("row", "p.rows") if name == "a" else ("column", "p.columns")
                    side = f"i32(min({first} + {name}_side{n} + {j}u, {total} - 1u))"
                    at, deep = f"i32({k}) * {name}_step + {side} * {name}_across", f"{k} + {name}_k{n}"
                value = f"load_{buffer}(u32({name}_at{n} + {at}))"
                yield f"{name}{n}[{j}] = {f'select(0.0, {value}, {deep} < p.depth)' if self.checked else value};"

    def _fetch_quants(self, k: str, buffer: str) -> Iterator[str]:
        """Bring the quants of the step at depth ``k`` to registers, as words, and what they share."""
        name = self.name
        yield f"let {name}_from = (u32({name}_at0) + {k}) / 4u;"
        values = [f"word_{buffer}({name}_from / 8u, {name}_from % 8u + {n}u)" for n in range(self.count)]
        values.append(f"own_{buffer}({name}_from / 4u)")
        for value, target in zip(values, [*(f"{name}{n}" for n in range(self.count)), f"{name}_own"], strict=True):
            nothing = "vec2<f32>()" if target == f"{name}_own" else "0u"
            inside = f"{k} + {name}_k0 < p.depth"  # all of it or nothing
            yield f"{target} = {f'select({nothing}, {value}, {inside})' if self.checked else value};"

    def put(self) -> Iterator[str]:
        """Yield WGSL that copies registers to workgroup memory. The order of a slice's depths does not matter if both
        operands have the same: each slice begins with another depth, so that lanes that store slices side by side do
        not collide.
        """
        turn = max(1, 4 // self.slices)
        for n in range(self.count):
            vector = f"{self.name}{n}"
            if self.packed:
                vector = f"{self.name}_numbers{n}"
                yield f"let {vector} = numbers_{self.name}({self.name}{n}, {self.name}_own);"
            column, k, slice, side = (f"{self.name}_{what}{n}" for what in ("column", "k", "slice", "side"))
            for j in range(4 if self.by_depth else 1):
                at = f"({k} + {j}u + {turn}u * {slice}) % {DEPTH}u" if self.slices > 1 else f"{k} + {j}u"
                place = f"slices[{column}][{at}]"
                yield f"{place}[{side} % 4u] = {vector}[{j}];" if self.by_depth else f"{place} = {vector};"


def by_weight(texts: Sequence[str]) -> str:
    """The text for the weight of this batch: a branch around all of it, since one within would wait for its loads."""
    if len(texts) == 1:
        return texts[0]
    return " else ".join(f"if (batch == {i}u) {{\n  {text}\n  }}" for i, text in enumerate(texts))


def variables(
    tile: tuple[int, int],
    blocks: tuple[int, int],
    slices: int,
    depth: int,
    readings: Mapping[str, tuple[str, bool]],
    weights: Sequence[str],
    *,
    packed: bool = False,
) -> Mapping[str, str]:
    """Values of the shader's variables: ``tile`` rows × columns, of which a lane has ``blocks`` of 4 × 4.

    ``readings`` has for a and b how they are read, and whether neighbours in memory are neighbours in depth;
    ``weights`` are the buffers to be b, each for a batch of its own where they are several. ``packed``: b is in a block
    format.
    """
    (rows, columns), (high, wide) = tile, blocks
    tile_lanes = rows * columns // (16 * high * wide)
    lanes = tile_lanes * slices
    checked = depth % (DEPTH * slices) != 0
    a = Side("a", rows, 0, lanes, slices, *readings["a"], checked)
    b = Side("b", columns, rows // 4 * slices, lanes, slices, *readings["b"], checked, packed)
    x_lanes = min(8, columns // (4 * wide))
    y_lanes = min(WARP, tile_lanes) // x_lanes
    both, each_block = (a, b), list(product(range(high), range(wide)))
    own = [f"let a{i} = &slices[slice * {rows // 4}u + own.y + {i * y_lanes}u];" for i in range(high)]
    own += [f"let b{j} = &slices[{b.first}u + slice * {columns // 4}u + own.x + {j * x_lanes}u];" for j in range(wide)]

    def fetches(weight: str) -> Mapping[str, str]:
        step = f"(k + {DEPTH * slices}u)"
        return {
            "fetch_first": "\n  ".join((*a.fetch("0u", "a"), *b.fetch("0u", weight))),
            "fetch_next": "\n    ".join((*a.fetch(step, "a"), *b.fetch(step, weight))),
        }

    multiply = [f"sums[{i * wide + j}] += outer_product((*a{i})[d], (*b{j})[d]);" for i, j in each_block]
    return {
        "tile_lanes": f"{tile_lanes}u",
        "columns_in_memory": f"{max((rows + columns) // 4 * slices, lanes // 2 if slices > 1 else 0)}u",
        "step": f"{DEPTH * slices}u",
        "x_lanes": f"{x_lanes}u",
        "y_lanes": f"{y_lanes}u",
        "high": f"{high}u",
        "wide": f"{wide}u",
        "places": "\n  ".join(line for side in both for line in side.places()),
        "add_products": by_weight([MULTIPLY.format(**fetches(each)) for each in weights]),
        "put": "\n    ".join(line for side in both for line in side.put()),
        "own_columns": "\n    ".join(own),
        "multiply": "\n      ".join(multiply),
        "merge": "\n  ".join(MERGE.format(i=i) for i in range(high * wide)),
        "store": STORE if slices == 1 else STORE_MERGED,
    }
