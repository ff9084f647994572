"""Engines beside Chromium, each with the devices that it has here; a missing one is skipped with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from e2e.engines.engine import ENGINES
from e2e.engines.tab import Tab
from scripts.serve import CONTENT_SECURITY_POLICY, HEADERS, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from e2e.engines.protocols import Session


#: The first lines of the page's scripts: they send what a console shows to the server, and wait until it has arrived.
REPORT = """{
  const send = (text) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/complaints", false);
    request.send(text);
  };
  for (const level of ["error", "warn"]) {
    const call = console[level];
    console[level] = (...given) => { send(`${level}: ${given.join(" ")}`); call.apply(console, given); };
  }
  addEventListener("error", (event) => send(`uncaught: ${event.message}`));
  addEventListener("unhandledrejection", (event) => send(`unhandled: ${event.reason}`));
}
"""
EMPTY = '<!doctype html><html lang="en"><title>empty</title><link rel="icon" href="data:,">'
POLICY = {**HEADERS, "Content-Security-Policy": f"{CONTENT_SECURITY_POLICY}; report-uri /complaints"}


class Server:
    """Server of the site. It records errors, warnings, and what the policy refused, and counts the bytes of weights."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self.complaints: list[str] = []
        self.sent = 0
        self._folder = folder

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return ``app`` with the recording in front."""

        async def recording(scope: Scope, receive: Receive, send: Send) -> None:
            async def counted(message: Message) -> None:
                if scope["path"].endswith(".safetensors"):
                    self.sent += len(message.get("body", b""))
                await send(message)

            if scope["path"] == "/empty":
                await HTMLResponse(EMPTY, headers=POLICY)(scope, receive, send)
            elif scope["path"] == "/complaints":
                self.complaints += filter(None, [(await Request(scope, receive).body()).decode()])
                await Response("\n".join(self.complaints))(scope, receive, send)
            elif scope["path"] in ("/main.js", "/worker.js"):
                script = REPORT + (self._folder / scope["path"][1:]).read_text()
                await Response(script, media_type="text/javascript", headers=POLICY)(scope, receive, send)
            else:
                await app(scope, receive, counted)

        return recording


@pytest.fixture(scope="session", params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of an engine that is installed."""
    if packages := ENGINES[request.param].missing:
        pytest.skip(f"{request.param} needs Debian's {packages}, which CI installs")
    return str(request.param)


@pytest.fixture(scope="session")
def session(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The running engine."""
    with ENGINES[name].start(tmp_path_factory.mktemp(name)) as running:
        print(f"\n{name}: {running.version}")
        yield running


@pytest.fixture
def server(site_folder: Path) -> Iterator[Server]:
    """The site under the strict policy, on an origin of its own, whose storage is empty."""
    recording = Server(site_folder)
    with serve(site_folder, headers=POLICY, wrap=recording.wrap) as recording.url:
        yield recording


@pytest.fixture
def tab(session: Session, server: Server) -> Iterator[Tab]:
    """A new tab; the test fails if a console had an error or a warning, or the policy refused something."""
    opened = Tab(session)
    yield opened
    opened.close()
    assert server.complaints == []
