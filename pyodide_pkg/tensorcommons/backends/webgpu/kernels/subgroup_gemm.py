"""The text of ``matmul/matrices.wgsl`` that depends on its tile and on how the operands lie in memory.

Whatever is kept from one step to the next has a name of its own: an array that a loop indexes would leave the
registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

LANES = 128  # of a workgroup: four subgroups, two by two
SIDE = 16  # of a matrix
PADDING = 8  # float16 between rows of workgroup memory, so that they do not collide


@dataclass(frozen=True)
class Slice:
    """A slice of an operand in workgroup memory: ``side`` rows (or columns) and ``depth`` of the sum.

    ``by_depth``: neighbours in memory are neighbours in depth, here as in the operand's buffer; else across it.
    ``start`` is where it begins, in float16.
    """

    name: str
    by_depth: bool
    side: int
    depth: int
    start: int

    @property
    def width(self) -> int:
        """Elements of a row in workgroup memory, without its padding."""
        return self.depth if self.by_depth else self.side

    @property
    def stride(self) -> int:
        """Elements from one row in workgroup memory to the next."""
        return self.width + PADDING

    @property
    def size(self) -> int:
        """Float16 elements of the slice in workgroup memory."""
        return (self.side if self.by_depth else self.depth) * self.stride

    @property
    def units(self) -> Iterator[tuple[int, str, str]]:
        """Number, row and first element in it of each eight that a lane brings."""
        for n in range(self.side * self.depth // 8 // LANES):
            unit = f"(lane + {n * LANES}u)"
            yield n, f"{unit} / {self.width // 8}u", f"{unit} % {self.width // 8}u * 8u"

    def places(self) -> Iterator[str]:
        """Yield WGSL for the places of the first slice's eights in the buffer. Results outside are not stored."""
        first, count = ("row", "p.rows") if self.name == "a" else ("column", "p.columns")
        across, along = ("z", "w") if self.name == "a" else ("w", "z")
        yield f"let {self.name}_step = p.{self.name}_strides.{along};"
        for n, row, element in self.units:
            if self.by_depth:
                at = f"i32(min({first} + {row}, {count} - 1u)) * p.{self.name}_strides.{across} + i32({element})"
                deep = element
            else:
                at = f"i32(min({first} + {element}, {count} - 8u)) + i32({row}) * {self.name}_step"
                deep = row
            yield f"let {self.name}_at{n} = ({self.name}_start + {at}) / 8;"
            yield f"let {self.name}_depth{n} = {deep};"
            yield f"var {self.name}{n}: vec4<u32>;"

    def fetch(self, k: str) -> Iterator[str]:
        """Bring the slice at depth ``k`` to registers; past the depth are zeros."""
        for n, _, _ in self.units:
            at = f"u32({self.name}_at{n} + i32({k}) / 8 * {self.name}_step)"
            inside = f"{self.name}_depth{n} + {k} < p.depth"
            yield f"{self.name}{n} = select(vec4<u32>(), bits_{self.name}({at}), {inside});"

    def put(self) -> Iterator[str]:
        """Yield WGSL that copies registers to workgroup memory."""
        for n, row, element in self.units:
            yield f"halves[({self.start}u + {row} * {self.stride}u + {element}) / 8u] = {self.name}{n};"

    @property
    def part(self) -> tuple[int, str]:
        """Size of a subgroup's part of the slice, and the byte at which it begins."""
        half = self.side // 2
        number = "subgroup / 2u" if self.name == "a" else "subgroup % 2u"
        if self.by_depth:
            return half * self.stride, f"({self.start}u + {number} * {half * self.stride}u) * 2u"
        return (self.depth - 1) * self.stride + half, f"({self.start}u + {number} * {half}u) * 2u"

    def load(self, number: int, k: int) -> str:
        """Matrix ``number`` of the subgroup's part at depth ``k``."""
        kind, major = ("left", "row") if self.name == "a" else ("right", "col")
        if not self.by_depth:
            major = {"row": "col", "col": "row"}[major]
        at = number * SIDE * self.stride + k if self.by_depth else k * self.stride + number * SIDE
        matrix = f"subgroup_matrix_{kind}<f16, {SIDE}, {SIDE}>, {major}_major"
        return f"let {kind}{number} = subgroupMatrixLoad<{matrix}>({self.name}_part, {at}u, {self.stride}u);"


def variables(rows: int, columns: int, depth: int, a_by_depth: bool, b_by_depth: bool) -> Mapping[str, str]:
    """Values of the shader's variables, for a tile of ``rows`` × ``columns`` and slices of ``depth``."""
    a = Slice("a", a_by_depth, rows, depth, 0)
    b = Slice("b", b_by_depth, columns, depth, a.size)
    high, wide = range(rows // 2 // SIDE), range(columns // 2 // SIDE)
    step = []
    for k in range(0, depth, SIDE):
        loads = [*(a.load(i, k) for i in high), *(b.load(j, k) for j in wide)]
        sums = (
            f"s{i}_{j} = subgroupMatrixMultiplyAccumulate(left{i}, right{j}, s{i}_{j});" for i, j in product(high, wide)
        )
        step.append("\n    ".join(["{", *loads, *sums, "}"]))
    store = []
    for i in high:
        lines = [f"subgroupMatrixStore<row_major>(results, {j * SIDE}u, s{i}_{j}, band_stride);" for j in wide]
        lines.append(f"""workgroupBarrier();
  for (var unit = own; unit < band; unit += 32u) {{
    let y = unit / (band / 4u) * 4u;
    let x = unit % (band / 4u);
    let at = y * (band_stride / 4u) + x;
    store_block(batch, first_row + {i * SIDE}u + y, first_column + x * 4u, mat4x4<f32>(
      fours[at], fours[at + band_stride / 4u], fours[at + band_stride / 2u], fours[at + 3u * band_stride / 4u]));
  }}
  workgroupBarrier();""")
        store.append("\n  ".join(lines))
    both = (a, b)
    return {
        "bytes": str(2 * (a.size + b.size)),
        "band": str(columns // 2),
        "tile_depth": str(depth),
        "places": "\n  ".join(line for each in both for line in each.places()),
        "sums": "\n  ".join(
            f"var s{i}_{j}: subgroup_matrix_result<f32, {SIDE}, {SIDE}>;" for i, j in product(high, wide)
        ),
        "fetch_first": "\n  ".join(line for each in both for line in each.fetch("0u")),
        "fetch": "\n    ".join(line for each in both for line in each.fetch("k")),
        "put": "\n    ".join(line for each in both for line in each.put()),
        "multiply": "\n    ".join(step),
        "store": "\n  ".join(store),
        **{f"{each.name}_part_size": str(each.part[0]) for each in both},
        **{f"{each.name}_part_start": each.part[1] for each in both},
    }
