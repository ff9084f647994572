"""The GGUF format: metadata by key, the list of the tensors, then their bytes.

    4 bytes    "GGUF"
    4 bytes    version, 2 or 3, little-endian as all numbers
    8 bytes    number of tensors
    8 bytes    number of metadata pairs: key, type, value
               for each tensor: name, number of dimensions, dimensions (that of the rows' elements first), type, offset
    the rest   from a multiple of ``general.alignment`` on, the tensors' bytes; each begins at the next such multiple

A string is its length in 8 bytes and UTF-8; an array is the type of its elements, their number in 8 bytes, and the
elements. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file is not trusted: every contradiction is an
``InvalidWeights`` that names the field and the values, and no size that the file states is allocated before that many
bytes have arrived.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..bridge.runtime import in_slices
from ..errors import InvalidWeights, quoted
from ..formats import BLOCKS
from .config import MAX_VALUES
from .foreign import ENOUGH, foreign
from .safetensors import ITEMSIZE, MAX_HEADER, MAX_TENSORS, Header, TensorEntry
from .streams import READ, ShortReadError, Stream

MAGIC = b"GGUF"
MAX_PAIRS = 65_536  # of metadata; files have some 40
MAX_RANK = 4  # dimensions; the limit of the reference implementation
LONGEST_NAME = 64  # bytes of a tensor's name, likewise
LONGEST_KEY = 65_535  # bytes of a key, by the specification
EVERY = 512  # strings that are read before the event loop may get a turn

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
"""The types of numbers in metadata, as ``struct`` has them; 7 is a boolean."""
BOOLEAN, STRING, ARRAY = 7, 8, 9

DENSE = {0: "F32", 1: "F16", 30: "BF16"}
BLOCK_TYPES = {
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    20: "IQ4_NL",
}
#: Types of tensors that are not read, for messages.
OTHERS = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}

Steps: TypeAlias = Generator[int, None, Header]
"""The reading of a header: yields the number of bytes that it needs, from the file's beginning, before it continues."""


async def read_gguf_header(stream: Stream, file: str) -> tuple[bytearray, Header]:
    """Read and check the header; ``stream`` is at the file's first byte, afterwards at that of the tensors.

    Returns the bytes before the tensors, and the header, whose ``metadata`` are the values by key: numbers, strings,
    lists of strings, and NumPy arrays. Raises ``InvalidWeights``, and ``DownloadError`` for a connection that was cut.
    """
    raw = bytearray()

    async def more(count: int) -> None:
        while len(raw) < count:
            piece = await stream.read_some(READ)
            if not piece:
                raise InvalidWeights(file, f"truncated in the header: the file ends after {len(raw):,} bytes")
            raw.extend(piece)

    try:
        header = await _advanced(header_steps(raw, stream.size, file), raw, more)
    except ShortReadError as error:
        if error.complete:
            raise InvalidWeights(file, f"truncated in the header: {error.reason}") from error
        raise
    stream.unread(bytes(raw[header.data_start :]))
    del raw[header.data_start :]
    return raw, header


async def parse_gguf_header(raw: bytearray, size: int | None, file: str) -> Header | None:
    """Parse bytes that :func:`read_gguf_header` returned, for a file of ``size`` bytes; None if some are missing."""

    async def more(count: int) -> None:
        raise EOFError

    try:
        header = await _advanced(header_steps(raw, size, file), raw, more)
    except EOFError:
        return None
    return header if header.data_start == len(raw) else None


async def _advanced(steps: Steps, raw: bytearray, more: Callable[[int], Awaitable[None]]) -> Header:
    """Run ``steps``, with ``more`` called for bytes that are not in ``raw`` yet."""
    result: list[Header] = []
    wanted = 0

    def until_more() -> Generator[None, None, None]:
        nonlocal wanted
        try:
            while (wanted := next(steps)) <= len(raw):
                yield
        except StopIteration as done:
            result.append(done.value)

    while not result:
        await in_slices(until_more())
        if not result:
            await more(wanted)
    return result[0]


def header_steps(raw: bytearray, size: int | None, file: str) -> Steps:
    """Parse a header from ``raw``, which grows between the steps; ``size`` is that of the file, None if not known."""
    fields = _Fields(raw, size, file)
    start = yield from fields.take(min(len(MAGIC), fields.most), "the header")
    if start != MAGIC:
        raise InvalidWeights(file, f"not GGUF: {foreign(raw[:ENOUGH]) or f'it begins with {quoted(start)}'}")
    version, tensors, pairs = yield from fields.numbers("<IQQ", "the header")
    if version not in (2, 3):
        what = (
            "a big-endian file is not read" if version and version & 0xFFFF == 0 else f"version {version} is not read"
        )
        raise InvalidWeights(
            file, f"{what}, only GGUF of version 2 and 3 in little-endian order: convert the model again"
        )
    for count, most, what in ((tensors, MAX_TENSORS, "tensors"), (pairs, MAX_PAIRS, "metadata pairs")):
        if count > most:
            raise InvalidWeights(file, f"{count:,} {what} are over the limit of {most:,}")
    metadata: dict[str, Any] = {}
    for number in range(pairs):
        key = yield from fields.string(f"the key of metadata pair {number}", LONGEST_KEY)
        if key in metadata:
            raise InvalidWeights(file, f"the metadata holds {quoted(key)} more than once")
        (kind,) = yield from fields.numbers("<I", f"metadata {quoted(key)}")
        metadata[key] = yield from fields.value(kind, f"metadata {quoted(key)}")
        yield 0
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise InvalidWeights(file, f"general.alignment must be a power of two, not {quoted(alignment)}")
    table: dict[str, _Listed] = {}
    for number in range(tensors):
        listed = yield from _listed(fields, number)
        if listed.name in table:
            raise InvalidWeights(file, f"tensor {quoted(listed.name)} is listed more than once")
        table[listed.name] = listed
        yield 0
    data_start = -(-fields.at // alignment) * alignment if table else fields.at
    if table:
        yield from fields.reach(data_start - fields.at, "the padding before the tensors")
    entries, end, before = [], data_start, "the header"
    for listed in table.values():
        begin = data_start + listed.offset
        expected = -(-end // alignment) * alignment
        if begin != expected:
            raise InvalidWeights(
                file,
                f"tensor {quoted(listed.name)} begins at offset {listed.offset:,}, not at {expected - data_start:,}, "
                f"the next multiple of {alignment} after {before}",
            )
        end, before = begin + listed.nbytes, f"tensor {quoted(listed.name)}"
        if size is not None and end > size:
            raise InvalidWeights(
                file,
                f"{before} ends at {end:,}, but the file has {size:,} bytes: truncated, or still being downloaded?",
            )
        entries.append(TensorEntry(listed.name, listed.dtype, listed.shape, begin, end))
        yield 0
    return Header(file, tuple(entries), data_start, metadata)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A tensor of the list; ``offset`` counts from the first tensor's."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int


def _listed(fields: _Fields, number: int) -> Generator[int, None, _Listed]:
    name = yield from fields.string(f"the name of tensor {number}", LONGEST_NAME)
    what = f"tensor {quoted(name)}"
    if not name:
        raise fields.bad(f"tensor {number} has no name")
    (rank,) = yield from fields.numbers("<I", what)
    if rank > MAX_RANK:
        raise fields.bad(f"{what} has {rank:,} dimensions; at most {MAX_RANK} are allowed")
    extents = yield from fields.numbers(f"<{rank}Q", what)
    kind, offset = yield from fields.numbers("<IQ", what)
    shape = tuple(reversed(extents))
    if kind in DENSE:
        dtype, each, nbytes = DENSE[kind], 1, ITEMSIZE[DENSE[kind]]
    elif kind in BLOCK_TYPES:
        form = BLOCKS[BLOCK_TYPES[kind].lower()]
        dtype, each, nbytes = BLOCK_TYPES[kind], form.size, form.nbytes
    else:
        known = ", ".join((*DENSE.values(), *BLOCK_TYPES.values()))
        raise fields.bad(
            f"{what} is of type {OTHERS.get(kind, kind)}, which is not read; known: {known}. "
            "Use a file of this model in another quantisation, such as Q4_K_M or Q8_0"
        )
    if math.prod(extent or 1 for extent in shape) >= 1 << 60:  # so that no library multiplies what would wrap around
        raise fields.bad(f"{what}: shape {quoted(shape)} has more elements than a file can hold")
    if each > 1 and (not shape or shape[-1] % each):
        raise fields.bad(
            f"{what}: rows of shape {quoted(shape)} are not whole blocks of {each} elements, as {dtype} has"
        )
    return _Listed(name, dtype, shape, math.prod(shape) // each * nbytes, offset)


class _Fields:
    """Reader of the fields of a header, in order; ``at`` is the offset of the next."""

    def __init__(self, raw: bytearray, size: int | None, file: str) -> None:
        self.raw = raw
        self.file = file
        self.size = size
        self.most = MAX_HEADER if size is None else min(MAX_HEADER, size)
        self.at = 0
        self.values = 0  # strings of arrays

    def bad(self, reason: str) -> InvalidWeights:
        return InvalidWeights(self.file, reason)

    def reach(self, count: int, what: str) -> Generator[int, None, None]:
        """Wait until ``count`` more bytes have arrived. Raises InvalidWeights if the file cannot have them."""
        end = self.at + count
        if end > self.most:
            if self.size is not None and end > self.size:
                raise self.bad(
                    f"truncated in {what}: {count:,} bytes at {self.at:,} do not fit in a file of {self.size:,} bytes"
                )
            raise self.bad(f"{what}: {count:,} bytes at {self.at:,} exceed the limit of {MAX_HEADER:,} for a header")
        while end > len(self.raw):
            yield end

    def take(self, count: int, what: str) -> Generator[int, None, bytes]:
        yield from self.reach(count, what)
        self.at += count
        return bytes(self.raw[self.at - count : self.at])

    def numbers(self, layout: str, what: str) -> Generator[int, None, tuple[Any, ...]]:
        data = yield from self.take(struct.calcsize(layout), what)
        return struct.unpack(layout, data)

    def string(self, what: str, longest: int = MAX_HEADER) -> Generator[int, None, str]:
        (length,) = yield from self.numbers("<Q", what)
        if length > longest:
            raise self.bad(f"{what} has {length:,} bytes; at most {longest:,} are allowed")
        data = yield from self.take(length, what)
        return self.text(data, what)

    def text(self, data: bytes | bytearray, what: str) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.bad(f"{what} is not UTF-8 (byte {error.start:,} of {quoted(bytes(data[:80]))})") from None

    def value(self, kind: int, what: str) -> Generator[int, None, Any]:
        """Read a value of a metadata type."""
        if kind in SCALARS:
            (value,) = yield from self.numbers(SCALARS[kind], what)
            return self.boolean(value, what) if kind == BOOLEAN else value
        if kind == STRING:
            text = yield from self.string(what)
            return text
        if kind != ARRAY:
            raise self.bad(f"{what} has the unknown type {kind}")
        of, count = yield from self.numbers("<IQ", what)
        if of == STRING:
            strings = yield from self.strings(count, what)
            return strings
        if of not in SCALARS:
            raise self.bad(f"{what} is an array of {'arrays' if of == ARRAY else f'the unknown type {of}'}")
        data = yield from self.take(count * struct.calcsize(SCALARS[of]), what)
        numbers = np.frombuffer(data, SCALARS[of])
        if of == BOOLEAN and (numbers > 1).any():
            raise self.bad(f"{what} has a boolean that is neither 0 nor 1")
        return numbers.astype(bool) if of == BOOLEAN else numbers

    def boolean(self, value: int, what: str) -> bool:
        if value > 1:
            raise self.bad(f"{what} is a boolean with the value {value}")
        return bool(value)

    def strings(self, count: int, what: str) -> Generator[int, None, list[str]]:
        """Read strings; there may be a million, so this does not go through :meth:`string`."""
        self.values += count
        if self.values > MAX_VALUES:
            raise self.bad(f"{what} has {count:,} strings; at most {MAX_VALUES:,} are allowed in a file")
        if 8 * count > self.most - self.at:
            raise self.bad(f"{what} has {count:,} strings, which do not fit in the file")
        raw, found = self.raw, []
        for number in range(count):
            at = self.at
            if at + 8 > len(raw):
                yield from self.reach(8, what)
            end = at + 8 + int.from_bytes(raw[at : at + 8], "little")
            if end > len(raw):
                yield from self.reach(end - at, what)
            found.append(self.text(raw[at + 8 : end], what))
            self.at = end
            if number % EVERY == 0:
                yield 0
        return found
