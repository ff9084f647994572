"""A file server with random traits: validators, ranges, encodings, lengths and faults.

It may replace a file by another version between two requests. ``AsAPageSees`` hides the headers that a browser hides
from a page of another origin.
"""

from __future__ import annotations

import gzip
import random
import re
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.hub.server import Handler

SAFELISTED = ("content-length", "content-type", "last-modified")  # headers that CORS exposes, of those used here
OLD = 1_600_000_000.0


@dataclass
class Traits:
    """Traits of one server. After ``replaced`` requests of a file, its second version is served."""

    validators: str = "etag"
    ranges: str = "good"
    framing: str = "length"
    encoding: str = "none"
    whole: int = 200
    head: str = "good"
    condition: str = "good"
    cuts: float = 0.0
    replaced: int = 1_000_000
    redirects: bool = False
    lower: bool = False

    @classmethod
    def drawn(cls, rng: random.Random) -> Traits:
        """Draw random traits, common ones more often."""
        return cls(
            rng.choice(["etag", "weak", "both", "date", "fresh", "none", "constant-weak", "weak-date"]),
            rng.choice(["good", "good", "good", "ignored", "refused", "shifted", "several", "star", "bare", "capped"]),
            rng.choice(["length", "length", "chunked", "close"]),
            rng.choice(["none", "none", "gzip", "gzip-stored"]),
            rng.choice([200, 200, 200, 206]),
            rng.choice(["good", "refused", "broken", "bare"]),
            rng.choice(["good", "good", "refused", "ignored"]),
            rng.choice([0.0, 0.2, 0.5]),
            rng.choice([1_000_000, 1_000_000, 1, 2, 3, 4, 6]),
            rng.random() < 0.2,
            rng.random() < 0.3,
        )


class VariedServer(ThreadingHTTPServer):
    """Server of ``versions`` of each file by ``traits``, the second one after ``traits.replaced`` requests of it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), VariedHandler)
        self.reset(Traits(), {}, 0)

    def reset(self, traits: Traits, versions: dict[str, list[bytes]], seed: int) -> None:
        self.traits, self.versions, self.rng = traits, versions, random.Random(seed)
        self.asked: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of closed connections, which tests cause."""


class VariedHandler(Handler):
    server: Any

    def do_HEAD(self) -> None:  # noqa: N802 - http.server calls it so
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        t, file = self.server.traits, urlsplit(self.path).path.rpartition("/")[2]
        if t.redirects and not self.path.startswith("/moved/"):
            return self.send(302, b"", {"Location": f"/moved/{file}"})
        if file not in self.server.versions:
            return self.send(404, b"none", {})
        self.server.asked[file] = count = self.server.asked.get(file, 0) + 1
        number = int(count > t.replaced)
        data = self.server.versions[file][number]
        tags = self.validators(t, number, file)
        if self.command == "HEAD" and t.head != "good":
            return self.send(
                {"refused": 405, "broken": 501, "bare": 200}[t.head], b"", tags if t.head == "bare" else {}
            )
        condition = self.headers.get("If-None-Match")
        if condition and t.condition == "refused":
            return self.send(503, b"", {})
        if condition and t.condition == "good" and tags.get("ETag") == condition:
            return self.send(304, b"", tags)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and t.ranges != "ignored":
            return self.range(t, data, int(wanted[1]), int(wanted[2]) + 1 if wanted[2] else len(data), tags)
        if t.encoding != "none" and not wanted:
            level = 9 if t.encoding == "gzip" else 0  # uncompressed blocks: longer than the content
            return self.send(200, gzip.compress(data, level), {**tags, "Content-Encoding": "gzip"})
        place = {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"} if t.whole == 206 else {}
        return self.send(t.whole, data, {**tags, **place})

    def validators(self, t: Traits, number: int, file: str) -> dict[str, str]:
        strong = {"ETag": f'"{file}-{number}"'}
        weak = {"ETag": f'W/"{file}-{number}"'}
        date = {"Last-Modified": formatdate(OLD + 7 * number, usegmt=True)}
        return {
            "etag": strong,
            "weak": weak,
            "both": strong | date,
            "weak-date": weak | date,
            "date": date,
            "fresh": {"Last-Modified": formatdate(usegmt=True)},  # of the current second
            "constant-weak": {"ETag": 'W/"the-same-meaning"'},
            "none": {},
        }[t.validators]

    def range(self, t: Traits, data: bytes, start: int, stop: int, tags: dict[str, str]) -> None:
        if t.ranges == "refused" or start >= len(data):
            return self.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        stop = min(stop, len(data))
        if t.ranges == "shifted":  # aligned to a block; Content-Range has the start, where it is exposed
            start -= start % 512
        if t.ranges == "capped":
            stop = min(stop, start + 30_000)
        if t.ranges == "several":
            return self.send(206, data[start:stop], {**tags, "Content-Type": "multipart/byteranges; boundary=x"})
        total = "*" if t.ranges == "star" else len(data)
        place = {} if t.ranges == "bare" else {"Content-Range": f"bytes {start}-{stop - 1}/{total}"}
        return self.send(206, data[start:stop], {**tags, **place})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        t, rng = self.server.traits, self.server.rng
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        if status == 304:
            headers = {**headers, "Content-Length": "0"}
        framing = t.framing if status in (200, 206) and self.command == "GET" else "length"
        if framing == "length" and status != 304:
            headers = {**headers, "Content-Length": str(len(data))}
        elif framing == "chunked":
            headers = {**headers, "Transfer-Encoding": "chunked"}
        for name, value in headers.items():
            self.send_header(name.lower() if t.lower else name, value)
        if framing == "close":
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        # A body that ends with the connection looks complete wherever it is cut: a browser cannot tell.
        cut = framing != "close" and len(data) > 2000 and rng.random() < t.cuts
        sent = data[: rng.randrange(len(data))] if cut else data
        try:
            if framing == "chunked":
                for at in range(0, len(sent), 5000):
                    piece = sent[at : at + 5000]
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                if not cut:
                    self.wfile.write(b"0\r\n\r\n")
            else:
                self.wfile.write(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass
        if cut:
            self.close_connection = True


@dataclass
class AsAPageSees:
    """Removes the headers that CORS hides from the responses of ``send``."""

    send: Any
    exposed: frozenset[str] = field(default=frozenset())

    async def __call__(self, url: str, headers: dict[str, str], method: str, *, store: bool) -> Any:
        response = await self.send(url, headers, method, store=store)
        seen = {name: v for name, v in response.headers.items() if name in SAFELISTED or name in self.exposed}
        response.headers, response.shows_all = seen, False
        return response
