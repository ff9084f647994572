"""Server of dist/site on 127.0.0.1, like a strict static host, for `make demo` and for the browser tests.

    .cache/venv/bin/python -m scripts.serve --port 8000 --open

Starlette handles range requests and conditional requests; this module adds the MIME types, the headers and the port.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import mimetypes
import os
import socket
import sys
import threading
import time
import webbrowser
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from scripts import paths
from scripts.console import SetupError, run, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
PORTS_TRIED = 20

#: Accepted host names. The name of another site that resolves to this machine (DNS rebinding) would
#: give the scripts of that site the origin of the page.
OWN_NAMES = (HOST, "localhost")

#: Policy of the page. Pyodide needs 'wasm-unsafe-eval', because compiling WebAssembly counts as evaluation.
#: A person's own model may be on any server, so data, but no script, may come from anywhere over https.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "connect-src 'self' https:",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a rebuilt site is served at once; unchanged files give 304
    "Access-Control-Allow-Origin": "*",  # other pages may install the wheel
}

MIME_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain",
    ".safetensors": "application/octet-stream",
    ".wasm": "application/wasm",
    ".wgsl": "text/plain",
    ".whl": "application/zip",
}


class HeadersMiddleware:
    """Middleware that adds the same headers to every response, including errors."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the headers when the response starts."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def create_app(directory: Path, *, headers: Mapping[str, str] = HEADERS, prefix: str = "") -> ASGIApp:
    """Return the ASGI app: the files of a folder below `prefix` ("/name" as on GitHub Pages, or "" for the root)."""
    for suffix, kind in MIME_TYPES.items():
        mimetypes.add_type(kind, suffix)  # the table of the system may be incomplete or differ
    return Starlette(
        routes=[Mount(prefix or "/", StaticFiles(directory=directory, html=True))],
        middleware=[
            Middleware(HeadersMiddleware, headers=headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=OWN_NAMES, www_redirect=False),
        ],
    )


def listen(port: int, *, tried: int = PORTS_TRIED) -> socket.socket:
    """Open a listening socket on the first free port from `port` on; 0 is any free port.

    Raises:
        SetupError: all ports are busy, or may not be used.
    """
    if not 0 <= port <= 65535:
        raise SetupError(f"{port} is no port: choose one from 1 to 65535 with PORT=.")
    for candidate in range(port, min(port + tried, 65536)) if port else [0]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                say(f"port {candidate} is busy, trying the next")
                continue
            raise SetupError(
                f"port {candidate} cannot be used ({error.strerror}): choose another with PORT=."
            ) from error
        return listener
    raise SetupError(f"ports {port} to {port + tried - 1} are all busy: choose another with PORT=.")


@contextlib.contextmanager
def serve(
    directory: Path,
    port: int = 0,
    *,
    headers: Mapping[str, str] = HEADERS,
    prefix: str = "",
    wrap: Callable[[ASGIApp], ASGIApp] | None = None,
) -> Iterator[str]:
    """Serve a folder from a thread while the block runs; gives the URL of the folder, with a slash at the end.

    Args:
        directory: the folder.
        port: 0 is any free port.
        headers: added to every response.
        prefix: the path of the folder.
        wrap: wraps the server in another app, e.g. one that injects faults.
    """
    app = create_app(directory, headers=headers, prefix=prefix)
    listener = listen(port)
    server = uvicorn.Server(_config(wrap(app) if wrap else app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield f"http://{HOST}:{listener.getsockname()[1]}{prefix}/"
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)


def has_screen() -> bool:
    """Return True if a browser window can open here."""
    if os.environ.get("CI"):
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main() -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m scripts.serve", description="Serve the built site on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=8000, help="first port to try (default 8000)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser where there is a screen")
    arguments = parser.parse_args()
    if not (paths.SITE / "manifest.json").is_file():
        raise SetupError("dist/site is not built: run 'make site' or 'make demo'.")
    listener = listen(arguments.port)
    url = f"http://{HOST}:{listener.getsockname()[1]}/"
    say(f"tensorcommons is at {url} (Ctrl-C ends)")
    wheel = json.loads((paths.SITE / "manifest.json").read_text("utf-8"))["wheel"]
    say(f'in your own page with Pyodide: await micropip.install("{url}{wheel}")')
    if arguments.open and has_screen():
        webbrowser.open(url)  # the socket listens already, so the page waits for the server
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(_config(create_app(paths.SITE))).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    run(main)
