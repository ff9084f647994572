"""Model folders over HTTP, intact or with one fault each; the same app serves tests on CPython and in a browser.

``/models/<id>/<file>`` are the real models, ``/tiny/<id>/<file>`` those of tests/goldens, ``/random/<recipe>/<file>``
random ones of any size (scripts/serve_checkpoints.py), and below ``/faulty/``:

- ``cut``: the weights' connection is closed half way
- ``held``: half of the weights, then nothing until the client closes the connection
- ``missing-weights``, ``missing-config``, ``missing-tokenizer``: 404 for that file
- ``page``: the configuration is a web page
- ``private``: 401 without the token of :data:`TOKEN`
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import FileResponse, Response

from scripts.paths import MODELS, ROOT
from scripts.serve_checkpoints import with_random

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TINY = ROOT / "tests" / "goldens"
WEIGHTS = "model.safetensors"
MISSING = {"missing-weights": WEIGHTS, "missing-config": "config.json", "missing-tokenizer": "tokenizer.json"}
TOKEN = "let-me-in"
CORS = {"Access-Control-Allow-Origin": "*", "Cache-Control": "no-store"}


def with_models(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with the folders of this module in front."""

    async def models_app(scope: Scope, receive: Receive, send: Send) -> None:
        kind, _, rest = scope.get("path", "").lstrip("/").partition("/")
        fault = ""
        if kind == "faulty":
            fault, _, rest = rest.partition("/")
        elif kind not in ("models", "tiny"):
            await app(scope, receive, send)
            return
        path = (MODELS if kind == "models" else TINY) / rest
        granted = (b"authorization", f"Bearer {TOKEN}".encode()) in scope.get("headers", ())
        if fault == "private" and not granted:
            await Response("who are you?", 401, CORS)(scope, receive, send)
        elif not path.is_file() or MISSING.get(fault) == path.name:
            await Response("nothing here", 404, CORS)(scope, receive, send)
        elif fault == "page" and path.name == "config.json":
            await Response("<!doctype html><title>Sign in</title>", 200, CORS)(scope, receive, send)
        elif fault in ("cut", "held") and path.name == WEIGHTS:
            await _half(path.read_bytes(), receive, send, hold=fault == "held")
        else:
            await FileResponse(path, headers=CORS)(scope, receive, send)

    return with_random(models_app)


async def _half(data: bytes, receive: Receive, send: Send, *, hold: bool) -> None:
    headers = [(b"content-length", str(len(data)).encode()), (b"access-control-allow-origin", b"*")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data[: len(data) // 2], "more_body": True})
    message: Message = {"type": ""}
    while hold and message["type"] != "http.disconnect":
        message = await receive()
    await asyncio.sleep(0)  # leaving a response unfinished closes the connection
