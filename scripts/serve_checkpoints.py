"""Server of random checkpoints of any size: ``/random/<recipe>/<file>``, without files on disk.

    .cache/venv/bin/python -m scripts.serve_checkpoints --port 8001
    curl http://127.0.0.1:8001/random/llama-1b,layers=2/config.json

:mod:`scripts.random_checkpoint` describes recipes. Responses have an ETag and a Last-Modified date, and support HEAD,
Range, If-Range and If-None-Match. :class:`Stop` ends a download at a byte of the weights files.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import Response

from scripts import paths
from scripts.console import SetupError, run, say
from scripts.random_checkpoint import PRESETS, RandomCheckpoint
from scripts.serve import HOST, create_app, listen

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = "/random/"
ALWAYS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag, Content-Range",
    "Accept-Ranges": "bytes",
    "Cache-Control": "no-store",  # the cache of the browser would store gigabytes
    "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
}
_checkpoint = lru_cache(maxsize=16)(RandomCheckpoint)


@dataclass
class Stop:
    """Bytes at which responses with weights end early: the connection is closed at ``cut``, or stalls at ``hold``.

    Both are offsets in the file, or None. A response that begins at or after one is complete. A test may change them
    while the server runs.
    """

    cut: int | None = None
    hold: int | None = None

    def of(self, start: int, stop: int) -> tuple[int, bool]:
        """Return the offset where a response of bytes ``start`` to ``stop`` ends, and True if it stays open then."""
        places = [(at, held) for at, held in ((self.cut, False), (self.hold, True)) if at is not None]
        return min(((at, held) for at, held in places if start < at < stop), default=(stop, False))


def with_random(app: ASGIApp, stop: Stop | None = None) -> ASGIApp:
    """Return ``app`` with the random checkpoints in front."""
    stops = stop or Stop()

    async def random_app(scope: Scope, receive: Receive, send: Send) -> None:
        path = unquote(scope.get("path", ""))
        if scope["type"] != "http" or not path.startswith(FOLDER):
            await app(scope, receive, send)
            return
        recipe, _, file = path.removeprefix(FOLDER).partition("/")
        try:
            checkpoint = _checkpoint(recipe)
            size = checkpoint.size(file)
        except (ValueError, KeyError) as error:
            await Response(f"nothing here: {error}", 404, ALWAYS)(scope, receive, send)
            return
        await _answer(checkpoint, file, size, stops, scope, receive, send)

    return random_app


async def _answer(
    checkpoint: RandomCheckpoint, file: str, size: int, stops: Stop, scope: Scope, receive: Receive, send: Send
) -> None:
    asked = Headers(scope=scope)
    etag = checkpoint.etag(file)
    headers = {**ALWAYS, "ETag": etag, "Content-Type": "application/octet-stream"}
    if asked.get("if-none-match") == etag:
        await Response(status_code=304, headers=headers)(scope, receive, send)
        return
    start, stop, status = 0, size, 200
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.get("range", ""))
    is_same = asked.get("if-range", etag) in (etag, ALWAYS["Last-Modified"])
    if wanted and any(wanted.groups()) and is_same:
        first, last = wanted.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            await Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})(
                scope, receive, send
            )
            return
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        return
    end, is_held = stops.of(start, stop) if file.endswith(".safetensors") else (stop, False)
    for piece in checkpoint.pieces(file, start, end):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if end == stop:
        await send({"type": "http.response.body", "body": b""})
        return
    message: Message = {"type": ""}
    while is_held and message["type"] != "http.disconnect":
        message = await receive()
    # leaving the response unfinished closes the connection


def main() -> int:
    """Serve until Ctrl-C, together with the built site."""
    parser = argparse.ArgumentParser(prog="python -m scripts.serve_checkpoints", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8001, help="first port to try (default 8001)")
    parser.add_argument("--cut", type=int, help="close connections at this byte of a weights file")
    parser.add_argument("--hold", type=int, help="send nothing from this byte of a weights file on")
    arguments = parser.parse_args()
    if not (paths.SITE / "manifest.json").is_file():
        raise SetupError("dist/site is not built: run 'make site'.")
    listener = listen(arguments.port)
    app = with_random(create_app(paths.SITE), Stop(arguments.cut, arguments.hold))
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    say(f"{address}/ has the site, {address}{FOLDER} the checkpoints (Ctrl-C ends):")
    for name in PRESETS:
        say(f"  {FOLDER}{name}/ {_checkpoint(name).nbytes / 1e6:,.1f} MB")
    config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    run(main)
