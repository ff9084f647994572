"""Matrices that a file stores as several tensors (quants, scales, zero points), presented as one entry of its header.

Such an entry looks as if the file had its blocks, with the columns of each group side by side: a format of
:data:`~tensorcommons.formats.GROUPS`, or Q4_0 and Q8_0 where these have the same numbers. Where no block format fits,
it is float32. :func:`compose` finds the parts and checks their shapes, :func:`assembled` makes the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ..errors import InvalidWeights, quoted
from ..formats import BLOCKS, GROUPS, BlockFormat
from ..formats.groups import E4M3, READ, SIZES
from ..hub.safetensors import TensorEntry
from ..hub.weights import WeightsFile
from ..shapes import Shape
from .quantization import Quantization

SCALES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
SYMMETRIC = {("int4", 32, "float16"): "q4_0", ("int8", 32, "float16"): "q8_0"}
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # place of each of 8 columns in a word
ROWS = 8  # rows of a matrix are assembled in multiples of this, since AWQ has 8 in a word
Parts: TypeAlias = Mapping[str, Any]  # arrays by part


@dataclass(frozen=True)
class Assembly:
    """How one matrix (outputs, inputs) is made of its parts.

    ``group`` is the number of columns with one scale. ``places`` has name, dtype and shape of each part, in the order
    of the entry's ``parts``. ``form`` is the format of its blocks, None for float32.
    """

    stored: Quantization
    shape: Shape
    group: int
    places: tuple[tuple[str, str, Shape], ...]
    form: BlockFormat | None

    def arrays(self, raw: Sequence[bytes | bytearray]) -> dict[str, Any]:
        """Return the parts as arrays of words, bytes or floats."""
        kinds: dict[str, Any] = {
            "I32": "<i4",
            "I8": np.int8,
            "F8_E4M3": np.uint8,
            "F32": "<f4",
            "F16": "<f2",
            "BF16": "<u2",
        }
        return {
            part: np.frombuffer(data, kinds[dtype]).reshape(shape)
            for (part, dtype, shape), data in zip(self.places, raw, strict=True)
        }


@dataclass(frozen=True, slots=True)
class AssembledEntry(TensorEntry):
    """An entry that is made of ``parts`` by ``assembly``.

    Without an ``assembly`` it is the order of a matrix's columns, int32 (columns,), from the group of each.
    """

    assembly: Assembly | None = None

    @property
    def recipe(self) -> str:
        """Everything beside the bytes of the parts that determines its bytes, as text."""
        return "order" if self.assembly is None else self.assembly.stored.recipe


def compose(file: WeightsFile, stored: Quantization) -> None:
    """Replace the tensors of quantised matrices in the header of ``file`` by one entry for each.

    Raises InvalidWeights for a part that is missing, or has another shape or dtype than the config says.
    """
    found: dict[str, dict[str, TensorEntry]] = {}
    others = []
    for entry in file.header.entries:
        stem, _, end = entry.name.rpartition(".")
        part = stored.parts.get(end)
        if part is None or (end == "weight" and entry.dtype not in ("I8", "F8_E4M3")):
            others.append(entry)
        elif part:
            if part in found.setdefault(stem, {}):
                other = found[stem][part].name
                raise InvalidWeights(
                    file.header.file, f"{quoted(stem)} has two tensors of {part}: also {quoted(other)}"
                )
            found[stem][part] = entry
    made = [_composed(stem, parts, stored, file.header.file) for stem, parts in found.items()]
    orders = {entry.order.name for entry in made if entry.order is not None}
    if twice := next((entry.name for entry in others if entry.name in orders), None):
        raise InvalidWeights(file.header.file, f"tensor {quoted(twice)} has the name of the order of a matrix' columns")
    entries = sorted([*others, *made], key=lambda entry: (entry.start, entry.stop))
    file.header = replace(file.header, entries=tuple(entries))


def _composed(stem: str, parts: Mapping[str, TensorEntry], stored: Quantization, file: str) -> TensorEntry:
    """Return the entry of the matrix ``stem``.weight."""

    def bad(reason: str) -> InvalidWeights:
        return InvalidWeights(file, f"{quoted(f'{stem}.weight')}, quantised as {stored.file} says: {reason}")

    needed = [
        "quants",
        "scales",
        *["zeros"] * stored.has_zeros,
        *["groups"] * (stored.is_ordered or stored.layout == "gptq"),
    ]
    names = {part: f"{stem}.{end}" for end, part in reversed(tuple(stored.parts.items()))}
    for part in needed:
        if part not in parts:
            raise bad(f"tensor {quoted(names[part])} is not in the same file")
    quants, scales = parts["quants"], parts["scales"]
    want = {"packed": "I32", "gptq": "I32", "awq": "I32"}.get(
        stored.layout, "F8_E4M3" if stored.kind == "fp8" else "I8"
    )
    if quants.dtype != want or len(quants.shape) != 2 or not quants.nbytes:
        raise bad(f"tensor {quoted(quants.name)} is {quants.dtype} {quoted(quants.shape)}, not a matrix of {want}")
    if scales.dtype not in SCALES:
        raise bad(f"tensor {quoted(scales.name)} is {scales.dtype}; scales must be {', '.join(SCALES)}")
    per = 32 // stored.bits
    first, last = quants.shape
    shape = {"gptq": (last, first * per), "awq": (last * per, first), "packed": (first, last * per)}.get(
        stored.layout, (first, last)
    )
    rows, columns = shape
    if stored.group > columns and stored.layout != "packed":
        raise bad(f"groups of {stored.group} columns are larger than its {columns}")
    if stored.block is None:
        group = stored.group or columns
        across = -(-columns // group)
        allowed: list[Shape] = [(rows, across)]
        if stored.layout in ("gptq", "awq"):
            allowed = [(across, rows)]
        elif not stored.group:
            allowed += [(1,), (1, 1), (), (rows,)]
    else:
        group = stored.block[1]
        allowed = [(-(-rows // stored.block[0]), -(-columns // group))]
    if scales.shape not in allowed:
        raise bad(f"tensor {quoted(scales.name)} has shape {quoted(scales.shape)}; it must be {allowed[0]}")
    if (zeros := parts.get("zeros")) is not None:
        if stored.kind == "fp8":
            raise bad(f"tensor {quoted(zeros.name)} has zero points, which numbers of e4m3 do not have")
        _check_zeros(zeros, scales.shape, stored, shape, bad)
    if (groups := parts.get("groups")) is not None and (groups.dtype, groups.shape) != ("I32", (columns,)):
        raise bad(f"tensor {quoted(groups.name)} is {groups.dtype} {quoted(groups.shape)}; it must be I32 {(columns,)}")
    form = _format(stored, columns, min(group, columns), SCALES[scales.dtype], zeros is not None)
    is_ordered = stored.is_ordered and -(-columns // group) > 1
    if is_ordered and columns % group:
        form = None
    used = [part for part in ("quants", "scales", "zeros", "groups") if part in parts]
    assembly = Assembly(
        stored, shape, group, tuple((part, parts[part].dtype, parts[part].shape) for part in used), form
    )
    start, stop = min(each.start for each in parts.values()), max(each.stop for each in parts.values())
    order = None
    if is_ordered and form is not None and groups is not None:
        order = AssembledEntry(f"{stem}.weight.order", "I32", groups.shape, groups.start, groups.stop, parts=(groups,))
    return AssembledEntry(
        f"{stem}.weight",
        "F32" if form is None else form.name.upper(),
        shape,
        start,
        stop,
        parts=tuple(parts[part] for part in used),
        order=order,
        assembly=assembly,
    )


def _check_zeros(zeros: TensorEntry, scales: Shape, stored: Quantization, shape: Shape, bad: Any) -> None:
    per = 32 // stored.bits
    if stored.layout in ("gptq", "awq"):
        wanted: list[tuple[str, Shape]] = [("I32", (scales[0], -(-shape[0] // per)))]
    elif stored.layout == "packed":
        wanted = [("I8", scales)]
        if len(scales) == 2:
            wanted.insert(0, ("I32", (-(-scales[0] // per), scales[1])))
    else:
        wanted = [("I8", scales)]
    if (zeros.dtype, zeros.shape) not in wanted:
        allowed = " or ".join(f"{dtype} {size}" for dtype, size in wanted)
        raise bad(f"tensor {quoted(zeros.name)} is {zeros.dtype} {quoted(zeros.shape)}; it must be {allowed}")


def _format(stored: Quantization, columns: int, group: int, scale: str, has_zeros: bool) -> BlockFormat | None:
    """Return the format with the largest groups, all of whose numbers have one scale; None for none."""
    size = next((size for size in SIZES if group % size == 0 and columns % size == 0), 0)
    if not size:
        return None
    same = None if has_zeros or group != size else SYMMETRIC.get((stored.kind, size, scale))
    return BLOCKS[same] if same else GROUPS[stored.kind, size, scale]


def assembled(entry: AssembledEntry, raw: Sequence[bytes | bytearray], file: str) -> Iterator[memoryview]:
    """Yield the bytes of an entry, whole rows at a time, from those of its parts.

    Raises InvalidWeights for groups of columns that are out of range or of unequal sizes, or ambiguous zero points.
    """

    def bad(reason: str) -> InvalidWeights:
        return InvalidWeights(file, f"tensor {quoted(entry.name)}: {reason}")

    assembly = entry.assembly
    if assembly is None:
        groups = np.frombuffer(raw[0], "<i4")
        yield memoryview(np.argsort(groups, kind="stable").astype("<i4")).cast("B")
        return
    (rows, columns), parts = assembly.shape, assembly.arrays(raw)
    scales = _scales(assembly, parts)
    zeros = _zeros(assembly, parts, scales.shape, bad)
    order = _order(assembly, parts.get("groups"), bad)
    count = max(max((1 << 20) // columns, 1) // ROWS * ROWS, ROWS)
    for first in range(0, rows, count):
        some = slice(first, min(first + count, rows))
        quants = _quants(assembly, parts["quants"], some)
        if assembly.form is None:
            yield memoryview(_dense(assembly, quants, scales, zeros, order, some)).cast("B")
        else:
            if order is not None:
                quants = quants[:, order]
            yield memoryview(_blocks(assembly, assembly.form, quants, scales, zeros, some)).cast("B")


def _scales(assembly: Assembly, parts: Parts) -> Any:
    """Return the scales as stored, (rows or 1 or blocks of rows, groups)."""
    scales = parts["scales"]
    if assembly.stored.layout in ("gptq", "awq"):
        return scales.T
    return scales.reshape(scales.shape[0] if scales.ndim else 1, -1)


def _unpacked(words: Any, bits: int, order: Sequence[int] | None = None) -> Any:
    """Unpack the unsigned integers of each word: (..., n) -> (..., n * 32 / bits), from the lowest bits up."""
    places = np.arange(32 // bits) if order is None else np.array(order)
    apart = words.view(np.uint32)[..., None] >> (places * bits).astype(np.uint32)
    return (apart & np.uint32((1 << bits) - 1)).astype(np.uint8).reshape(*words.shape[:-1], -1)


def _quants(assembly: Assembly, quants: Any, rows: slice) -> Any:
    """Return the quants of ``rows`` (rows, inputs): uint8 from 0 up, or the bytes of e4m3."""
    stored = assembly.stored
    if stored.layout == "gptq":
        return _unpacked(np.ascontiguousarray(quants[:, rows].T), stored.bits)
    if stored.layout == "awq":
        return _unpacked(np.ascontiguousarray(quants[:, rows.start // 8 : -(-rows.stop // 8)]), 4, AWQ_ORDER).T
    if stored.layout == "packed":
        return _unpacked(np.ascontiguousarray(quants[rows]), stored.bits)
    return quants[rows] if stored.kind == "fp8" else quants[rows].view(np.uint8) ^ np.uint8(128)


def _zeros(assembly: Assembly, parts: Parts, shape: Shape, bad: Any) -> Any:
    """Return the zero points of unsigned quants, int16, in the ``shape`` of the scales; None for e4m3."""
    stored, zeros = assembly.stored, parts.get("zeros")
    if stored.kind == "fp8":
        return None
    if zeros is None:
        return np.full(shape, 1 << (stored.bits - 1), np.int16)
    rows = assembly.shape[0]
    if stored.layout == "gptq":
        found = _unpacked(zeros, stored.bits)[:, :rows].T
        if stored.offset and (found == (highest := (1 << stored.bits) - 1)).any():
            raise bad(
                f"a zero point is stored as {highest}, which some programs read as {highest + 1} and others as 0: save "
                "the model with checkpoint_format gptq_v2, or quantise it with sym=True"
            )
        return found.astype(np.int16) + np.int16(stored.offset)
    if stored.layout == "awq":
        return _unpacked(zeros, 4, AWQ_ORDER)[:, :rows].T.astype(np.int16)
    if zeros.dtype == np.int8:
        half = 1 << (stored.bits - 1)
        if (zeros < -half).any() or (zeros > half - 1).any():
            raise bad(f"a zero point is outside {-half} to {half - 1}")
        whole = zeros.reshape(zeros.shape[0] if zeros.ndim else 1, -1).astype(np.int16)
        return whole + np.int16(1 << (stored.bits - 1))
    return _unpacked(np.ascontiguousarray(zeros.T), stored.bits)[:, : shape[0]].T.astype(np.int16)


def _order(assembly: Assembly, groups: Any, bad: Any) -> Any:
    """Return the columns sorted by group, None if they are in order."""
    columns, group = assembly.shape[1], assembly.group
    count = -(-columns // group)
    if groups is None or count == 1 or (assembly.stored.layout in ("packed", "plain") and (groups == -1).all()):
        return None  # compressed-tensors fills what it does not use with -1
    if groups.min() < 0 or groups.max() >= count:
        wrong = groups.min() if groups.min() < 0 else groups.max()
        raise bad(f"a column is in group {wrong} of {count}")
    sizes = np.bincount(groups, minlength=count)
    if (sizes != np.minimum(group, columns - group * np.arange(count))).any():
        raise bad(f"its groups have {sizes.min()} to {sizes.max()} columns; each must have {group}")
    if assembly.stored.is_ordered:
        return np.argsort(groups, kind="stable")
    if (np.diff(groups) < 0).any():
        raise bad(f"its columns are not in the order of their groups, though {assembly.stored.file} says so (desc_act)")
    return None


def _rows_of(values: Any, rows: slice, block: int) -> Any:
    """Return the scales or zero points of ``rows``, of which each ``block`` have the same: (rows or 1, groups)."""
    return values if len(values) == 1 else values[np.arange(rows.start, rows.stop) // block]


def _blocks(assembly: Assembly, form: BlockFormat, quants: Any, scales: Any, zeros: Any, rows: slice) -> Any:
    """Return the blocks (blocks, bytes) of ``rows``, from quants whose groups are in order."""
    across = quants.shape[1] // form.size
    block = assembly.stored.block[0] if assembly.stored.block else 1

    def repeated(values: Any) -> Any:
        """Repeat what a group has for each of its blocks, as bytes (blocks, bytes)."""
        found = _rows_of(values, rows, block)[:, np.arange(across) * form.size // assembly.group]
        found = np.ascontiguousarray(np.broadcast_to(found, (len(quants), across)))
        return found.reshape(-1, 1).view(np.uint8)

    flat = np.ascontiguousarray(quants).reshape(-1, form.size)
    kind = assembly.stored.kind
    if kind == "int4":
        halves = flat.reshape(len(flat), -1, 2, 16)
        flat = (halves[:, :, 0] | halves[:, :, 1] << np.uint8(4)).reshape(len(flat), -1)
    elif kind == "int8":
        flat = flat ^ np.uint8(128)
        zeros = zeros - np.int16(128)
    fields = [flat, repeated(scales)]
    if len(form.fields) == 3:
        fields.append(repeated(zeros.astype(np.int8)))
    made = np.empty((len(flat), form.nbytes), np.uint8)
    for (offset, nbytes), field in zip(form.fields, fields, strict=True):
        made[:, offset : offset + nbytes] = field
    return made.reshape(-1)


def _dense(assembly: Assembly, quants: Any, scales: Any, zeros: Any, order: Any, rows: slice) -> Any:
    """Return the numbers of ``rows`` as float32."""
    block = assembly.stored.block[0] if assembly.stored.block else 1
    which = np.arange(assembly.shape[1]) // assembly.group
    if order is not None:
        which = which[np.argsort(order, kind="stable")]
    kind = {2: "float16", 4: "float32"}[scales.itemsize]
    kind = "bfloat16" if scales.dtype == np.uint16 else kind
    wide = READ[kind](np.ascontiguousarray(scales).reshape(-1, 1).view(np.uint8)).reshape(scales.shape)
    factor = _rows_of(wide, rows, block)[:, which]
    if zeros is None:
        return np.ascontiguousarray(factor * E4M3[quants], np.float32).reshape(-1)
    less = _rows_of(zeros, rows, block)[:, which]
    return np.ascontiguousarray(factor * (quants.astype(np.int16) - less).astype(np.float32), np.float32).reshape(-1)
