"""A server that misbehaves on demand: files that are missing, end early, or are held half way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Faults:
    """Wrapper of the site's app. Paths are relative to the site, e.g. "manifest.json"."""

    def __init__(self) -> None:
        self._missing: set[str] = set()
        self._cut: dict[str, int] = {}
        self._held: dict[str, int] = {}

    def missing(self, path: str) -> None:
        """Respond with 404 from now on."""
        self._missing.add(path)

    def cut(self, path: str, size: int) -> None:
        """Respond with only the first `size` bytes of the file, as if complete."""
        self._cut[path] = size

    def hold(self, path: str, size: int) -> None:
        """Send `size` bytes, then nothing until `mend`."""
        self._held[path] = size

    def mend(self) -> None:
        """Remove all faults; held responses continue."""
        self._missing.clear()
        self._cut.clear()
        self._held.clear()

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "").lstrip("/")
            if path in self._missing:
                await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
            elif path in self._cut or path in self._held:
                await app(self._whole(scope), receive, self._limited(path, send))
            else:
                await app(scope, receive, send)

        return faulty

    @staticmethod
    def _whole(scope: Scope) -> Scope:
        """Return the request without the headers that would make the response a 304 or a part."""
        drop = (b"if-none-match", b"if-modified-since", b"range", b"if-range")
        return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name not in drop]}

    def _limited(self, path: str, send: Send) -> Send:
        sent = 0

        async def limited(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start" and path in self._cut:
                headers = [_shorter(header, self._cut[path]) for header in message["headers"]]
                kept = [header for header in headers if header[0] not in (b"etag", b"last-modified")]
                message = {**message, "headers": kept}  # no validators: a cache must not keep the short file
            if message["type"] == "http.response.body":
                body = message.get("body", b"")
                if path in self._cut:
                    body = body[: max(0, self._cut[path] - sent)]
                elif path in self._held:
                    first = body[: max(0, self._held[path] - sent)]
                    await send({"type": "http.response.body", "body": first, "more_body": True})
                    body = body[len(first) :]
                    sent += len(first)
                    while body and path in self._held:  # noqa: ASYNC110 - mend() comes from another thread
                        await asyncio.sleep(0.02)
                sent += len(body)
                message = {**message, "body": body}
            await send(message)

        return limited


def _shorter(header: tuple[bytes, bytes], size: int) -> tuple[bytes, bytes]:
    name, value = header
    return (name, str(min(int(value), size)).encode()) if name == b"content-length" else header
