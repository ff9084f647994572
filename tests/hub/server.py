"""A real HTTP server on this machine that misbehaves on demand: ``mode`` of ``/mode/file`` selects the behaviour.

Modes: ``good`` (Range works), ``plain`` (Range is ignored), ``chunked`` (no Content-Length), ``cut`` (half of the
bytes, then the connection is closed), ``hiccup`` (``cut`` without a Range, ``good`` with one), ``stall`` (half of the
bytes, then silence), ``slow`` (1 KiB at a time), ``redirect`` (to ``good``), ``loop`` (to itself), ``error`` (500),
``elsewhere`` (to ``good`` of the server ``other``), ``shifted`` (the wrong range), ``refused`` (ranges get 416),
``patchy`` (the first three answers of each weights file are ``cut``), ``whole`` (206 where no range was asked for),
``gzip`` (compressed without being accepted), ``endless`` (the file repeated). A file has an ETag of its content, unless
it is in ``bare``.
"""

from __future__ import annotations

import gzip
import re
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

Server = TypeVar("Server", bound=ThreadingHTTPServer)


class FileServer(ThreadingHTTPServer):
    """Server of ``files`` (path after the mode → bytes). ``requests`` records (path, Range header or None)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.granted: list[str | None] = []  # the Authorization header of each request
        self.other = self
        self.bare: set[str] = set()  # files without an ETag
        self.more: dict[str, dict[str, str]] = {}  # other headers of a file
        self.gone = threading.Event()  # the client closed a stalled or slow connection
        self.released = threading.Event()  # set at the end of the test, to end stalled connections

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of closed connections, which tests cause."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        self.server.granted.append(self.headers.get("Authorization"))
        mode, _, file = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if mode in ("redirect", "loop"):
            target = f"/{'good' if mode == 'redirect' else 'loop'}/{file}"
            return self.answer(302, b"", {"Location": target})
        if mode == "nowhere":
            return self.answer(302, b"", {"Location": "http://[/"})
        if mode == "elsewhere":
            return self.answer(302, b"", {"Location": f"{self.server.other.address}/good/{file}"})
        if mode == "error":
            return self.answer(500, b"out of order")
        if mode == "patchy":
            asked = sum(path == self.path for path, _ in self.server.requests)
            mode = "cut" if file.endswith(".safetensors") and asked <= 3 else "good"
        data = self.server.files.get(file)
        if data is None:
            return self.answer(404, b"<html>nothing here</html>")
        tag = {} if file in self.server.bare else {"ETag": f'"{zlib.crc32(data)}"'}
        tag |= self.server.more.get(file, {})
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and mode == "refused":
            return self.answer(416, b"")
        if wanted and mode not in ("plain", "gzip"):
            start = int(wanted[1])
            stop = min(int(wanted[2]) + 1, len(data)) if wanted[2] else len(data)
            shown = start + 1 if mode == "shifted" else start
            place = {"Content-Range": f"bytes {shown}-{stop - 1}/{len(data)}"}
            return self.answer(206, data[start:stop], place | tag, mode)
        if mode == "whole":
            return self.answer(206, data, {"Content-Range": f"bytes 0-{len(data) - 1}/{len(data)}"} | tag)
        if mode == "gzip":
            return self.answer(200, gzip.compress(data), {"Content-Encoding": "gzip"})
        return self.answer(200, data, tag, mode)

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None, mode: str = "good") -> None:
        self.send_response(status)
        for name, value in {"Access-Control-Allow-Origin": "*", **(headers or {})}.items():
            self.send_header(name, value)
        if mode in ("chunked", "endless"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                while mode == "endless":
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            if mode == "endless":
                self.close_connection = True
                return
            for start in range(0, len(data), 1000):
                piece = data[start : start + 1000]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):
            if mode == "slow":
                for start in range(0, len(data), 1024):
                    self.wfile.write(data[start : start + 1024])
                    time.sleep(0.02)
                return
            if mode not in ("cut", "stall") and (mode != "hiccup" or status != 200):
                self.wfile.write(data)
                return
            self.close_connection = True
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if mode in ("cut", "hiccup"):
                return
            self.connection.settimeout(20)
            if self.connection.recv(1) == b"":
                self.server.gone.set()
            return
        self.server.gone.set()


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
