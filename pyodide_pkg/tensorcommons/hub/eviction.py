"""The choice of entries that leave the cache: leftovers, then the least recently used files until the rest fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set

from .entries import place_name
from .records import Record

ORPHAN_AGE = 24 * 3600.0  # seconds until a blob that no record names is a leftover, not part of another tab's load


def leaving(
    entries: Mapping[str, tuple[int, float]], records: Mapping[str, Record], in_use: Set[str], limit: int, now: float
) -> list[str]:
    """Return the names to remove so that at most ``limit`` bytes are left; what is ``in_use`` stays.

    ``entries`` is as :meth:`Entries.list` returns it, ``now`` in seconds since 1970.
    """
    named = Counter(blob for record in records.values() for blob in _blobs(record))
    gone = [
        name
        for name, (_, written) in entries.items()
        if not (name.startswith("file-") or named[name] or name in in_use) and now - written > ORPHAN_AGE
    ]
    total = sum(size for size, _ in entries.values()) - sum(entries[name][0] for name in gone)
    for name in sorted(records.keys() - in_use, key=lambda name: records[name].used):
        if total <= limit:
            break
        blobs = _blobs(records[name])
        named.subtract(blobs)
        unnamed = {blob for blob in blobs if not named[blob]} - in_use
        files = [name, *sorted(unnamed & entries.keys())]
        total -= sum(entries[each][0] for each in files)
        gone += files
    return gone


def _blobs(record: Record) -> set[str]:
    return {place_name(piece) for piece in record.pieces.values() if not piece.data}
