"""Clients of WebDriver BiDi and of WebDriver, as small as the tests of engines need.

Playwright's BiDi client fails with Firefox ESR, and WebKitGTK has only the older WebDriver. Sessions of both protocols
open tabs, call functions in a page, and perform keyboard input.
"""

from __future__ import annotations

import http.client
import itertools
import json
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.sync.client import ClientConnection

SECONDS = 300  # for one command; a case of tests/cases ends in 180, a wait of tab.py in 240


class EngineError(Exception):
    """The engine refused a command, or the page raised an error."""


class Session(Protocol):
    """A session of an engine. ``version`` is its name and version."""

    version: str

    def new_tab(self) -> str:
        """Open an empty tab and return its handle."""
        ...

    def go(self, tab: str, url: str) -> None:
        """Load a page and wait for its load event."""
        ...

    def call(self, tab: str, function: str, text: str) -> str:
        """Call a JavaScript function of a string that returns a promise of a string."""
        ...

    def act(self, tab: str, actions: Sequence[dict[str, Any]]) -> None:
        """Perform input actions, in the form that both protocols share."""
        ...

    def close_tab(self, tab: str) -> None:
        """Close a tab."""
        ...


class BiDi:
    """A session of WebDriver BiDi, over a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        has = self._send("session.new", capabilities={})["capabilities"]
        self.version = f"{has['browserName']} {has['browserVersion']}"

    def new_tab(self) -> str:
        return str(self._send("browsingContext.create", type="tab")["context"])

    def go(self, tab: str, url: str) -> None:
        self._send("browsingContext.navigate", context=tab, url=url, wait="complete")

    def call(self, tab: str, function: str, text: str) -> str:
        answer = self._send(
            "script.callFunction",
            functionDeclaration=function,
            arguments=[{"type": "string", "value": text}],
            target={"context": tab},
            awaitPromise=True,
        )
        if answer["type"] != "success":
            raise EngineError(answer["exceptionDetails"]["text"])
        return str(answer["result"]["value"])

    def act(self, tab: str, actions: Sequence[dict[str, Any]]) -> None:
        self._send("input.performActions", context=tab, actions=actions)

    def close_tab(self, tab: str) -> None:
        self._send("browsingContext.close", context=tab)

    def _send(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            if message.get("id") == number:
                if message["type"] == "error":
                    raise EngineError(f"{method}: {message['error']}: {message['message']}")
                return message["result"]


class WebDriver:
    """A session of WebDriver, over HTTP."""

    def __init__(self, host: str, port: int) -> None:
        self._http = http.client.HTTPConnection(host, port, timeout=SECONDS)
        self._path = ""
        made = self._send("POST", "/session", {"capabilities": {}})
        self._path = f"/session/{made['sessionId']}"
        self.version = f"{made['capabilities']['browserName']} {made['capabilities']['browserVersion']}"
        self._send("POST", "/timeouts", {"script": SECONDS * 1000, "pageLoad": SECONDS * 1000})
        self._first = self._tab = str(self._send("GET", "/window"))  # stays open, since a command needs a window

    def new_tab(self) -> str:
        """Open a window: WebKitGTK draws no frames in a tab that is not in front."""
        return str(self._send("POST", "/window/new", {"type": "window"})["handle"])

    def go(self, tab: str, url: str) -> None:
        self._send("POST", "/url", {"url": url}, tab)

    def call(self, tab: str, function: str, text: str) -> str:
        script = f"""const [text, done] = arguments;
            ({function})(text).then((value) => done({{ value }}), (error) => done({{ error: String(error) }}));"""
        answer = self._send("POST", "/execute/async", {"script": script, "args": [text]}, tab)
        if "error" in answer:
            raise EngineError(answer["error"])
        return str(answer["value"])

    def act(self, tab: str, actions: Sequence[dict[str, Any]]) -> None:
        self._send("POST", "/actions", {"actions": list(actions)}, tab)

    def close_tab(self, tab: str) -> None:
        self._send("DELETE", "/window", None, tab)
        self._send("POST", "/window", {"handle": self._first})
        self._tab = self._first

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None, tab: str = "") -> Any:
        if tab and tab != self._tab:
            self._send("POST", "/window", {"handle": tab})
            self._tab = tab
        self._http.request(method, self._path + path, None if body is None else json.dumps(body))
        value = json.loads(self._http.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value and "message" in value:
            raise EngineError(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    def close(self) -> None:
        self._send("DELETE", "")
        self._http.close()
