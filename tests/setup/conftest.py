"""Fixtures: the wheel and the site of this checkout, and a web server on this machine that misbehaves on demand."""

from __future__ import annotations

import http.server
import threading
from dataclasses import dataclass, field

import pytest

from scripts import site
from scripts.lock import one_at_a_time
from scripts.wheel import build_wheel


@pytest.fixture(scope="session")
def wheel():
    """The path of the wheel; the tests of other processes use it at the same time."""
    with one_at_a_time():
        return build_wheel()


@pytest.fixture(scope="session")
def built():
    """The folder of the site, which the tests of other processes serve at the same time."""
    with one_at_a_time():
        return site.build_site()


@dataclass
class FaultyServer:
    """Server of `files` that records the Range of each request, with faults set by the test."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next responses breaks off
    ignores_range: bool = False
    ranges: list[str | None] = field(default_factory=list)
    base: str = ""

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"


@pytest.fixture
def server():
    faulty = FaultyServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            faulty.ranges.append(wanted)
            data = faulty.files.get(self.path.removeprefix("/"))
            if data is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and not faulty.ignores_range else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if faulty.cuts:
                self.wfile.write(data[start : start + faulty.cuts.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(data[start:])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    faulty.base = f"http://127.0.0.1:{httpd.server_address[1]}"
    yield faulty
    httpd.shutdown()
    thread.join()
    httpd.server_close()
