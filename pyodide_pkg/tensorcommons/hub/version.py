"""The version of a file: what distinguishes two contents of one address, and how far that can be trusted.

A file is read by several requests: its tensors one by one, a broken download from where it broke, a second visit. All
of them must be of one content. The rules are those of HTTP (RFC 9110, 8.8): a strong ETag changes with every byte, a
weak one only with the meaning, and a Last-Modified date counts whole seconds, so that it proves something only if that
second was over when the first response came. Another origin may hide the ETag, and any server may send none of these.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, urlsplit

PINNED = re.compile(r"/resolve/[0-9a-f]{40}/")
CLOCKS_APART = 60.0  # seconds by which this machine's clock may be ahead of a server's whose Date is hidden


@dataclass(frozen=True, slots=True)
class Version:
    """Validators as the server sent them, and the ``size`` of the whole file in bytes where that is certain.

    ``is_settled`` means that ``modified`` lay at least a second before the response: a later change has another date.
    """

    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    is_settled: bool = False

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int | None) -> Version:
        """The version that a response's ``headers`` (lower-case names) state."""
        modified = headers.get("last-modified")
        return cls(size, headers.get("etag"), modified, _is_settled(modified, headers.get("date")))

    @property
    def is_proof(self) -> bool:
        """True if another response with the same content can be recognised as such."""
        return _is_strong(self.etag) or bool(self.modified and self.is_settled)

    def proves(self, later: Version) -> bool:
        """Return whether ``later`` is certainly the same content, byte for byte: ranges of the two may be combined."""
        if self._contradicts(later):
            return False
        if _is_strong(self.etag) and _is_strong(later.etag):
            return self.etag == later.etag
        return self._is_of_the_same_date(later)

    def matches(self, later: Version) -> bool:
        """Return whether the server regards ``later`` as the same content: a whole copy of this one may replace it."""
        if self._contradicts(later):
            return False
        if self.etag and later.etag:
            return True
        return self._is_of_the_same_date(later)

    def _contradicts(self, later: Version) -> bool:
        if self.size is not None and later.size is not None and self.size != later.size:
            return True
        return bool(self.etag and later.etag) and _opaque(self.etag) != _opaque(later.etag)

    def _is_of_the_same_date(self, later: Version) -> bool:
        return self.is_settled and self.modified is not None and self.modified == later.modified


def is_immutable(address: str) -> bool:
    """Return whether ``address`` never changes its content: it has a hash as revision, or a version in the query."""
    parts = urlsplit(address)
    return PINNED.search(parts.path) is not None or bool(parse_qs(parts.query).get("v"))


def _is_strong(etag: str | None) -> bool:
    return bool(etag) and not str(etag).startswith("W/")


def _opaque(etag: str | None) -> str:
    """Return an ETag without the mark of a weak one, and without the suffix that compression adds."""
    return re.sub(r"[-;](?:gzip|gz|br|zstd|df)(?=\"?$)", "", str(etag).removeprefix("W/"))


def _is_settled(modified: str | None, date: str | None) -> bool:
    changed = _seconds(modified)
    if changed is None:
        return False
    answered = _seconds(date)
    return changed + 1 <= answered if answered is not None else changed + CLOCKS_APART <= time.time()


def _seconds(date: str | None) -> float | None:
    try:
        moment: datetime | None = parsedate_to_datetime(date) if date else None
        return None if moment is None else moment.timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
