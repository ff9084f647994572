"""A folder on a real server that records its requests and the bytes of bodies that it sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response

from scripts.serve import serve

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Answer:
    method: str
    file: str
    range: str
    status: int = 0
    nbytes: int = 0


@dataclass
class Counting:
    """Server by ``mode``: "" behaves well, "down" answers 503, "bare" sends no validators, "weak" only a weak ETag,
    "date" only the date, "picky" drops conditional GETs.
    """

    folder: Path
    url: str = ""
    mode: str = ""
    answers: list[Answer] = field(default_factory=list)

    def since(self) -> list[Answer]:
        """Return the answers since the last call."""
        answers, self.answers = self.answers, []
        return answers

    def body_bytes(self) -> int:
        """Return the bytes of bodies since the last call, without those of error pages."""
        return sum(answer.nbytes for answer in self.since() if answer.status < 400)

    def _sends(self, header: bytes) -> bool:
        left_out = {"bare": (b"etag", b"last-modified"), "weak": (b"etag", b"last-modified"), "date": (b"etag",)}
        return header not in left_out.get(self.mode, ())

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def counting(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            answer = Answer(scope["method"], scope["path"].rpartition("/")[2], headers.get(b"range", b"").decode())
            self.answers.append(answer)

            async def counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answer.status = message["status"]
                    message = {**message, "headers": [h for h in message["headers"] if self._sends(h[0])]}
                    if self.mode == "weak":
                        message["headers"].append((b"etag", b'W/"the same meaning"'))
                answer.nbytes += len(message.get("body", b"")) if scope["method"] == "GET" else 0
                await send(message)

            if self.mode == "down" or (self.mode == "picky" and b"if-none-match" in headers):
                await Response("out of order", 503)(scope, receive, counted)
            else:
                await app(scope, receive, counted)

        return counting


@contextmanager
def counted(folder: Path) -> Iterator[Counting]:
    counting = Counting(folder)
    with serve(folder, headers={}, wrap=counting.wrap) as counting.url:
        yield counting
