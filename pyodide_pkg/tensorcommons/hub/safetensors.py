"""The safetensors format: a header that is checked to the last byte, then tensors one by one as they arrive.

    8 bytes    little-endian length N of the header
    N bytes    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {}}
    the rest   the tensors' bytes, without holes and without overlap; offsets count from here

https://github.com/huggingface/safetensors#format. A checkpoint is not trusted: every
contradiction is an ``InvalidWeights`` that names the tensor and the values, raised before anything is allocated for it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bridge.runtime import at_once, in_slices
from ..errors import InvalidWeights, quoted
from .config import load_json
from .foreign import ENOUGH, foreign
from .streams import ShortReadError, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping

    from numpy.typing import NDArray

MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation
MAX_TENSORS = 100_000  # of one file; the largest published models have some 1,000 in each of theirs
MAX_RANK = 32  # dimensions; NumPy's older limit

ITEMSIZE = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
}
"""Bytes per element of every dtype that is read."""

NUMPY_NAME = {
    "F64": "float64",
    "I64": "int64",
    "F32": "float32",
    "I32": "int32",
    "U32": "uint32",
    "F16": "float16",
    "BF16": "uint16",  # NumPy has no bfloat16: the bits, for bfloat16_to_float32
    "I16": "int16",
    "U16": "uint16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "uint8",  # the bits, as those of bfloat16
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its bytes are ``start`` to ``stop``, counted from the file's beginning.

    ``dtype`` is a key of :data:`ITEMSIZE`, or the type of a GGUF file's blocks, such as "Q4_K". The rows of each of
    ``heads`` heads are pairs, which become two halves while they are loaded; 0 if the rows are in order. A quantised
    matrix may be made of ``parts``, tensors of the same file (models/assembly.py); the columns of its blocks are then
    those of the matrix in the ``order`` of another such entry. ``shift`` is added to each number, in float32.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    heads: int = 0
    parts: tuple[TensorEntry, ...] = ()
    order: TensorEntry | None = None
    shift: float = 0.0

    @property
    def nbytes(self) -> int:
        """Number of bytes in the file."""
        return sum(part.nbytes for part in self.parts) if self.parts else self.stop - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a file. ``entries`` are in file order and, but for padding in GGUF files, cover every byte from
    ``data_start`` to the file's end."""

    file: str
    entries: tuple[TensorEntry, ...]
    data_start: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of bytes up to the last tensor's end, which in safetensors is that of the file."""
        return self.entries[-1].stop if self.entries else self.data_start


async def read_header(stream: Stream, file: str) -> Header:
    """Read and check the header; ``stream`` is at the file's first byte, afterwards at the first tensor's.

    Raises ``InvalidWeights``, and ``DownloadError`` for a connection that was cut.
    """
    return await parse_file_header(await read_header_bytes(stream, file), stream.size, file)


async def read_header_bytes(stream: Stream, file: str) -> bytes:
    """Read the header's length and JSON, checking only the length. Raises as ``read_header``."""
    try:
        prefix = await stream.read_exact(8)
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER or (stream.size is not None and 8 + length > stream.size):
            what = foreign(prefix + await stream.read_some(ENOUGH))
            if what is not None:
                raise InvalidWeights(file, f"not safetensors: {what}")
        if length > MAX_HEADER:
            raise InvalidWeights(
                file, f"a header of {length:,} bytes is over the limit of {MAX_HEADER:,}: not safetensors?"
            )
        if stream.size is not None and 8 + length > stream.size:
            raise InvalidWeights(file, f"a header of {length:,} bytes does not fit in a file of {stream.size:,} bytes")
        return bytes(prefix + await stream.read_exact(length))
    except ShortReadError as error:
        if error.complete:
            if stream.position == 0:
                raise InvalidWeights(file, "the file is empty") from None
            raise InvalidWeights(file, f"truncated in the header: {error.reason}") from error
        raise


async def parse_file_header(raw: bytes | bytearray, size: int | None, file: str) -> Header:
    """Parse the result of ``read_header_bytes``, and check it against ``size``, the bytes of the file. Raises
    ``InvalidWeights``."""
    entries, metadata = await in_slices(_parse(bytes(raw[8:]), None if size is None else size - len(raw), file))
    return Header(file, entries, len(raw), metadata)


def parse_header(raw: bytes, data_size: int | None, file: str) -> tuple[TensorEntry, ...]:
    """Return the entries of a header's JSON ``raw``, in file order, checked against ``data_size`` bytes of tensors.

    ``data_size`` None leaves out only the comparison with the end of the file. Raises ``InvalidWeights``.
    """
    return at_once(_parse(raw, data_size, file))[0]


async def iterate(
    stream: Stream, header: Header, skip: Callable[[TensorEntry], bool] | None = None
) -> AsyncGenerator[tuple[TensorEntry, bytearray], None]:
    """Yield each tensor's bytes as they arrive, in file order; ``stream`` was given to ``read_header``.

    Entries for which ``skip`` is true are skipped. Use ``async with contextlib.aclosing(...)`` or exhaust it; the
    stream stays the caller's to close. Raises ``InvalidWeights`` for a truncated file, ``DownloadError`` for a
    connection that was cut.
    """
    for entry in header.entries:
        if skip is not None and skip(entry):
            await stream.skip(entry.nbytes)
            continue
        yield entry, await read_tensor(stream, header, entry)
    if stream.size is None and await stream.read_some(1):  # otherwise the sizes were compared before
        raise InvalidWeights(header.file, f"bytes after the last tensor, which ends at {header.size:,}")


async def read_tensor(stream: Stream, header: Header, entry: TensorEntry) -> bytearray:
    """Read the bytes of ``entry``, at which ``stream`` is. Raises as ``iterate``."""
    try:
        return await stream.read_exact(entry.nbytes)
    except ShortReadError as error:
        if error.complete:
            raise InvalidWeights(header.file, f"truncated in tensor {quoted(entry.name)}: {error.reason}") from error
        raise


def as_array(entry: TensorEntry, data: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Return ``data`` as an array of the entry's shape, without a copy except for BF16, which becomes float32."""
    array: NDArray[Any] = np.frombuffer(data, dtype=NUMPY_NAME[entry.dtype])
    if entry.dtype == "BF16":
        array = bfloat16_to_float32(array)
    return array.reshape(entry.shape)


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bfloat16, the upper half of a float32."""
    wide: NDArray[np.uint32] = bits.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def _parse(
    raw: bytes, data_size: int | None, file: str
) -> Generator[None, None, tuple[tuple[TensorEntry, ...], dict[str, str]]]:
    """Return the entries and the metadata; a step is a tensor, as there may be 100,000."""
    count = raw.count(b'"data_offsets"')
    if count > MAX_TENSORS:
        raise InvalidWeights(file, f"{count:,} tensors are over the limit of {MAX_TENSORS:,} in one file")
    table = _load(raw, file)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidWeights(file, "__metadata__ must be an object of strings")
    data_start = 8 + len(raw)
    entries = []
    for name, value in table.items():
        entries.append(_entry(name, value, data_start, file))
        yield
    # Empty tensors share their offset with a neighbour: order by both ends.
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    end = data_start
    before = "the header"
    for entry in entries:
        begin = entry.start - data_start
        if entry.start < end:
            raise InvalidWeights(
                file, f"tensor {quoted(entry.name)} begins at {begin:,}, inside {before} (ends at {end - data_start:,})"
            )
        if entry.start > end:
            raise InvalidWeights(
                file, f"{entry.start - end:,} bytes before tensor {quoted(entry.name)} (at {begin:,}) belong to none"
            )
        end, before = entry.stop, f"tensor {quoted(entry.name)}"
        yield
    covered = end - data_start
    if data_size is not None and covered > data_size:
        raise InvalidWeights(
            file, f"{before} ends at {covered:,}, but the file holds {data_size:,} bytes of tensors: truncated?"
        )
    if data_size is not None and covered < data_size:
        raise InvalidWeights(
            file, f"{data_size - covered:,} bytes after {before} (ends at {covered:,}) belong to no tensor"
        )
    return tuple(entries), metadata


def _load(raw: bytes, file: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise InvalidWeights(file, f"the header holds {quoted(twice)} more than once")
        return table

    try:
        table = load_json(raw.decode(), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise InvalidWeights(file, f"the header is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise InvalidWeights(file, f"the header is not JSON: {error.msg} at character {error.pos}") from None
    except (RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        raise InvalidWeights(file, f"the header's JSON cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise InvalidWeights(file, f"the header must be a JSON object, not {type(table).__name__}")
    return table


def _entry(name: str, value: object, data_start: int, file: str) -> TensorEntry:
    def bad(reason: str) -> InvalidWeights:
        return InvalidWeights(file, f"tensor {quoted(name)}: {reason}")

    if not isinstance(value, dict) or not value.keys() >= {"dtype", "shape", "data_offsets"}:
        raise bad(f"{quoted(value)} does not give dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise bad(f"unknown dtype {quoted(dtype)}; known: {', '.join(ITEMSIZE)}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_count(extent) for extent in shape):
        raise bad(f"shape {quoted(shape)} is not a list of at most {MAX_RANK} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
        raise bad(f"data_offsets {quoted(offsets)} are not two sizes")
    begin, end = offsets
    if begin > end:
        raise bad(f"data_offsets {quoted(offsets)} end before they begin")
    # Zeros aside, so that no array library has to multiply what would wrap around.
    if math.prod(extent or 1 for extent in shape) * ITEMSIZE[dtype] >= 1 << 63:
        raise bad(f"shape {quoted(shape)} has more bytes than 63 bits can count")
    nbytes = math.prod(shape) * ITEMSIZE[dtype]
    if end - begin != nbytes:
        raise bad(
            f"{dtype} of shape {quoted(shape)} takes {nbytes:,} bytes, "
            f"data_offsets {quoted(offsets)} hold {end - begin:,}"
        )
    return TensorEntry(name, dtype, tuple(shape), data_start + begin, data_start + end)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
