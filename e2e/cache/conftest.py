"""Visits: a page that boots Python, on a server that counts the bytes of every body it sends."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import FileResponse, HTMLResponse

from scripts.serve import serve

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE = Path(__file__).parent
PAGE = '<!doctype html><html lang="en"><title>visit</title><link rel="icon" href="data:,"><script type="module" src="{}"></script>'
PLAIN = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}  # no policy: the wheel's own JavaScript

PRELUDE = """
import asyncio, json, time
import numpy as np
import tensorcommons as tc
from tensorcommons.hub import cache as cache_module
from js import location
models = location.origin + "/models/"
"""


class Server:
    """What was asked for and what was sent: path, status, bytes of the body, Range header."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[dict[str, Any]] = []
        self.is_down = False

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"]
            if path == "/visit/":
                await HTMLResponse(PAGE.format("/visit/page.js"))(scope, receive, send)
                return
            if path.startswith("/visit/"):
                await FileResponse(HERE / path.removeprefix("/visit/"))(scope, receive, send)
                return
            asked = dict(scope["headers"]).get(b"range", b"").decode()
            answer = {"path": path, "status": 0, "bytes": 0, "range": asked}
            if path.startswith("/models/"):
                self.answers.append(answer)
                if self.is_down:
                    await HTMLResponse("", 503)(scope, receive, send)
                    return

            async def counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answer["status"] = message["status"]
                answer["bytes"] += len(message.get("body", b""))
                await send(message)

            await app(scope, receive, counted)

        return counting

    def since(self) -> list[dict[str, Any]]:
        """The answers about models since the last call."""
        answers, self.answers = self.answers, []
        return answers


class Visit:
    """One page, from its opening to its closing."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        page.wait_for_function("globalThis.run", timeout=120_000)
        self.run(PRELUDE)

    def run(self, source: str) -> Any:
        """Run Python; its last expression travels as JSON."""
        lines = textwrap.dedent(source).strip().splitlines()
        if not lines[-1].startswith((" ", ")", "import", "from", "models =")):
            lines[-1] = f"json.dumps({lines[-1]})" if "=" not in lines[-1].split("(")[0] else lines[-1]
        reply = self.page.evaluate("(source) => run(source)", "\n".join(lines))
        if "error" in reply:
            pytest.fail(reply["error"], pytrace=False)
        return json.loads(reply["value"]) if isinstance(reply.get("value"), str) else None

    def reload(self) -> Visit:
        return Visit(self.page, self.page.url)


@pytest.fixture
def server(site_folder: Path) -> Iterator[Server]:
    counting = Server()
    with serve(site_folder, headers={}, wrap=counting.wrap) as url:
        counting.url = url
        yield counting


@pytest.fixture(params=["worker", "page"])
def visit(request: pytest.FixtureRequest, context: BrowserContext, server: Server) -> Visit:
    """A first visit, with Python in a worker or in the page itself."""
    return Visit(context.new_page(), f"{server.url}visit/{'?main' if request.param == 'page' else ''}")
