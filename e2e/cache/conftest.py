"""Visits of a page that starts Python, on a server that counts the bytes of every body that it sends."""

from __future__ import annotations

import contextlib
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import FileResponse, HTMLResponse

from scripts.serve import serve

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE = Path(__file__).parent
PAGE = """<!doctype html><html lang="en"><title>visit</title><link rel="icon" href="data:,">
<script type="module" src="/visit/page.js"></script>"""
PRELUDE = """
from js import location
from tensorcommons.hub.cache import Cache
models = location.origin + "/models/"
devices = await tc.open_devices(prefer=("webgpu", "cpu"))
ids = {"input_ids": np.array([[101, 7592, 2088, 102]]), "attention_mask": np.ones((1, 4), np.int64)}

async def load(name, manager, device):
    events = []
    model = await tc.from_pretrained(models + name, manager=manager, device=device, progress_callback=events.append)
    return model, events[-1]

async def answer(model):
    return [float(x) for x in (await next(iter((await model(**ids)).values())).read()).ravel()[:50]]
"""


@dataclass
class Answer:
    """One response with a file of a model."""

    path: str
    range: str
    status: int = 0
    nbytes: int = 0


class GoneError(Exception):
    """The client closed the connection while the server held its response."""


class Server:
    """Server that records every response with files of models. It stops before byte ``hold`` of a weights file."""

    def __init__(self) -> None:
        self.url = ""
        self.is_down = False
        self.hold: int | None = None
        self._answers: list[Answer] = []

    def since(self) -> list[Answer]:
        """Return the responses since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def body_bytes(self) -> int:
        """Return the bytes of files since the last call, without those of error pages."""
        return sum(answer.nbytes for answer in self.since() if answer.status < 400)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"]
            if path == "/visit/":
                await HTMLResponse(PAGE)(scope, receive, send)
            elif path.startswith("/visit/"):
                await FileResponse(HERE / path.removeprefix("/visit/"))(scope, receive, send)
            elif path.startswith("/models/") and self.is_down:
                await HTMLResponse("", 503)(scope, receive, send)
            elif path.startswith("/models/"):
                await self._counted(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return counting

    async def _counted(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Answer(scope["path"], dict(scope["headers"]).get(b"range", b"").decode())
        self._answers.append(answer)

        begin = int(answer.range.removeprefix("bytes=").partition("-")[0] or 0)
        most = None if self.hold is None or not answer.path.endswith(".safetensors") else self.hold - begin

        async def counted(message: Message) -> None:
            answer.status = message.get("status", answer.status)
            body = message.get("body", b"")
            if most is not None and answer.nbytes + len(body) > most:
                body = body[: most - answer.nbytes]
                answer.nbytes += len(body)
                await send({**message, "body": body, "more_body": True})
                while (await receive())["type"] != "http.disconnect":
                    pass
                raise GoneError
            answer.nbytes += len(body)
            await send(message)

        with contextlib.suppress(GoneError):
            await app(scope, receive, counted)


class Visit:
    """One page, from its opening to its closing."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        page.wait_for_function("globalThis.run")
        self.run(PRELUDE + "\nNone")

    def run(self, source: str) -> Any:
        """Run Python; its last expression travels as JSON."""
        reply = self.page.evaluate("(source) => run(source)", textwrap.dedent(source))
        if "error" in reply:
            pytest.fail(reply["error"], pytrace=False)
        return json.loads(reply["value"])

    def again(self) -> Visit:
        """Reload the page, which ends its Python."""
        return Visit(self.page, self.page.url)


@pytest.fixture
def server(site_folder: Path) -> Iterator[Server]:
    counting = Server()
    with serve(site_folder, wrap=counting.wrap, headers={}) as counting.url:
        yield counting


@pytest.fixture
def visit(context: BrowserContext, server: Server) -> Visit:
    """A first visit, with Python in a worker."""
    return Visit(context.new_page(), server.url + "visit/")


@pytest.fixture(params=["worker", "page"])
def visit_anywhere(request: pytest.FixtureRequest, context: BrowserContext, server: Server) -> Visit:
    """A first visit, with Python in a worker or in the page itself, which access the same files by different calls."""
    return Visit(context.new_page(), f"{server.url}visit/{'?main' if request.param == 'page' else ''}")
