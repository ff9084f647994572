"""A record of a file that is kept: which bytes are where, written as they arrive.

A record is text, one line a batch of facts, each with a checksum in front. Lines are appended while the file is
downloaded, so a tab that dies takes with it what came since the last line and nothing more. A line that was cut off or
damaged is skipped: what it stated is fetched again.

::

    <checksum> {"address": …, "size": …, "etag": …, "modified": …, "generation": …, …}      the first line
    <checksum> {"of": generation, "pieces": [[start, stop, identity, label, data, pack, offset], …], "tensors": […]}
    <checksum> {"of": generation, "used": seconds since 1970}

Two tabs may append to one record, also while the server's file changes: a line counts only if it is of the generation
that the first line states. Where the validators prove what the content is, equal ones make the same generation; else
each download has one of its own, so the bytes of two never meet in a record.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..bridge.digest import identity_of
from .version import Version, is_immutable

CHECKSUM = 64  # hex digits in front of a line
AT_ONCE = 500  # facts of a line: the page is blocked while one is read

Place: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``start`` to ``stop`` of a file, identified by content.

    They are ``data`` if they are few, else a blob, or those of ``pack``, a blob of several pieces, from ``offset`` on.
    """

    start: int
    stop: int
    identity: str
    label: str = ""
    data: bytes = field(default=b"", repr=False)
    pack: str = ""
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.stop - self.start

    def packed(self) -> list[Any]:
        """Return the fields for JSON."""
        return [
            *(self.start, self.stop, self.identity, self.label, b64encode(self.data).decode()),
            *((self.pack, self.offset) if self.pack else ()),
        ]

    @classmethod
    def unpacked(
        cls, start: int, stop: int, identity: str, label: str, data: str, pack: str = "", offset: int = 0
    ) -> Piece:
        """Build a piece from what :meth:`packed` gave."""
        return cls(start, stop, identity, label, b64decode(data), pack, offset)


@dataclass
class Record:
    """The file at ``address``: its bytes by ``pieces``, perhaps not all; or the fact that it is ``absent``.

    ``tensors`` are the identities of tensors that several pieces make up. ``size``, ``etag``, ``modified`` and
    ``is_settled`` are the file's version; see :class:`Version`.
    """

    address: str
    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    absent: bool = False
    used: float = 0.0
    is_settled: bool = False
    generation: str = ""
    pieces: dict[Place, Piece] = field(default_factory=dict)
    tensors: dict[Place, tuple[str, str]] = field(default_factory=dict)  # identity and label
    unsaved: list[Piece | Place] = field(default_factory=list, compare=False, repr=False)
    is_kept: bool = field(default=False, compare=False)  # True if the store has its first line

    @classmethod
    def of(cls, address: str, version: Version) -> Record:
        """Begin the record of a file of that version, without pieces."""
        return cls(address, version.size, version.etag, version.modified, is_settled=version.is_settled)

    @property
    def version(self) -> Version:
        """The version of the file."""
        return Version(self.size, self.etag, self.modified, self.is_settled)

    @property
    def is_provable(self) -> bool:
        """True if the content of another response can be proved to be the same: ranges may be combined."""
        return is_immutable(self.address) or self.version.is_proof

    @property
    def is_whole(self) -> bool:
        """True if the pieces cover the file."""
        end = 0
        for start, stop in sorted(self.pieces):
            if start > end:
                return False
            end = max(end, stop)
        return end == self.size

    def add(self, piece: Piece) -> None:
        """Add a piece."""
        self.pieces[piece.start, piece.stop] = piece
        self.unsaved.append(piece)

    def name(self, place: Place, identity: str, label: str) -> None:
        """Add the identity of a tensor that several pieces make up."""
        self.tensors[place] = identity, label
        self.unsaved.append(place)

    def restart(self) -> None:
        """Drop the pieces: the next ones may be of another content."""
        self.pieces.clear()
        self.tensors.clear()
        self.unsaved.clear()
        self.generation, self.is_kept = "", False

    # --- as text ---

    def is_of_the_same(self, other: Record) -> bool:
        """True if both describe the same content."""
        other.first_line()
        return (self.generation, self.absent) == (other.generation, other.absent)

    def first_line(self) -> bytes:
        """Return the line with the file's address and version."""
        if not self.generation:
            same = [self.address, self.size, *([] if is_immutable(self.address) else [self.etag, self.modified])]
            self.generation = identity_of(json.dumps(same).encode())[:16] if self.is_provable else secrets.token_hex(8)
        names = ("address", "size", "etag", "modified", "absent", "used", "is_settled", "generation")
        return _line({name: getattr(self, name) for name in names})

    def text(self) -> bytes:
        """Return the whole record."""
        return self.first_line() + as_lines(self.lines([*self.pieces.values(), *self.tensors]))

    def lines(self, facts: list[Piece | Place]) -> Iterator[bytes]:
        """Yield the lines that state ``facts``, entries of :attr:`unsaved`."""
        for at in range(0, len(facts), AT_ONCE):
            batch = facts[at : at + AT_ONCE]
            pieces = [fact.packed() for fact in batch if isinstance(fact, Piece)]
            places = [fact for fact in batch if not isinstance(fact, Piece)]
            tensors = [[*place, *self.tensors[place]] for place in places if place in self.tensors]
            yield _line({"of": self.generation, "pieces": pieces, "tensors": tensors})

    def used_line(self) -> bytes:
        """Return the line with the time of use."""
        return _line({"of": self.generation, "used": self.used})

    @classmethod
    def from_first_line(cls, line: bytes) -> Record | None:
        """Read the first line; None for one that is damaged, or of another version of this package."""
        table = _table(line)
        try:
            return None if table is None else cls(**table, is_kept=True)
        except TypeError:
            return None

    def learn(self, line: bytes) -> None:
        """Read one of the other lines; one that is damaged or of another generation changes nothing."""
        table = _table(line)
        if table is None or table.get("of") != self.generation:
            return
        try:
            pieces = [Piece.unpacked(*piece) for piece in table.get("pieces", ())]
            tensors = {(start, stop): (str(each), str(label)) for start, stop, each, label in table.get("tensors", ())}
            used = float(table.get("used", self.used))
        except (ValueError, TypeError):
            return
        self.pieces.update({(piece.start, piece.stop): piece for piece in pieces})
        self.tensors.update(tensors)
        self.used = max(self.used, used)


def pack_of(pieces: Sequence[Piece]) -> str:
    """Return the identity of the blob of several pieces; empty for one piece, whose own it is."""
    return identity_of("".join(piece.identity for piece in pieces).encode()) if len(pieces) > 1 else ""


def as_lines(lines: Iterable[bytes]) -> bytes:
    """Join lines that follow a record's first."""
    return b"".join(b"\n" + line for line in lines)


def _line(table: dict[str, Any]) -> bytes:
    text = json.dumps(table, separators=(",", ":")).encode()
    return identity_of(text).encode() + text


def _table(line: bytes) -> dict[str, Any] | None:
    text = line[CHECKSUM:]
    if len(line) <= CHECKSUM or identity_of(text).encode() != line[:CHECKSUM]:
        return None
    try:
        table = json.loads(text)
    except ValueError:
        return None
    return table if isinstance(table, dict) else None
