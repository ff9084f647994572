"""Pages that use tensorcommons.mjs: under the strict policy, beside checkpoints that the tests make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import FileResponse, HTMLResponse, Response

from scripts.paths import MODELS, ROOT
from scripts.serve import HEADERS, serve
from tests.cases import Place
from tests.cases.pipelines import files_for
from tests.cases.seeded import checkpoint
from tests.models.server import with_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext, Page
    from starlette.types import ASGIApp, Receive, Scope, Send

HERE = Path(__file__).parent
GOLDENS = ROOT / "tests" / "goldens"
PLACE = Place(devices=None, models="", tiny="", faulty="", goldens=str(GOLDENS))  # type: ignore[arg-type]
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>page</title><link rel="icon" href="data:,">
<script type="module" src="/page/page.js"></script>"""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def goldens() -> list[dict[str, Any]]:
    """Return the calls of pipelines of `transformers`, with their answers."""
    found: list[dict[str, Any]] = json.loads((GOLDENS / "pipelines.json").read_text())["models"]
    return found


def written(config: str, words: Path, **changes: Any) -> dict[str, bytes]:
    """Make a model that writes, with the tokenizer of a folder."""
    return {**checkpoint(PLACE, config, **changes), **{name: (words / name).read_bytes() for name in TOKENIZER}}


def made() -> dict[str, dict[str, bytes]]:
    """Make the checkpoints of the tests, by name: the number of a golden, or a task."""
    files = {
        str(number): files_for(PLACE, golden["task"], golden["model"], golden["changes"])
        for number, golden in enumerate(goldens())
    }
    smollm2 = MODELS / "SmolLM2-135M-Instruct"
    files["chat"] = written("tiny-llama", smollm2, vocab_size=49152, max_position_embeddings=300)
    for name in ("tiny-t5-text", "tiny-bart-text"):
        files[name] = written(name, GOLDENS / "tiny-t5-text")
    return files


@pytest.fixture(scope="session")
def url(site_folder: Path) -> Iterator[str]:
    """The site, with a page at page/ and checkpoints at made/<name>/."""
    files = made()

    def wrap(app: ASGIApp) -> ASGIApp:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            _, first, *rest = scope["path"].split("/")
            answer: Any = with_models(app)
            if first == "page":
                answer = (
                    FileResponse(HERE / rest[0], headers=HEADERS) if rest[0] else HTMLResponse(PAGE, headers=HEADERS)
                )
            elif first == "made":
                data = files[rest[0]].get("/".join(rest[1:]))
                answer = Response(data or b"", 404 if data is None else 200)
            await answer(scope, receive, send)

        return served

    with serve(site_folder, wrap=wrap) as address:
        yield address


@pytest.fixture
def opened(context: BrowserContext, url: str) -> Callable[..., Page]:
    """Open a page in a new tab of one context, connected with the given options."""

    def opening(**options: Any) -> Page:
        page = context.new_page()
        page.goto(f"{url}page/")
        page.wait_for_function("globalThis.ready")
        page.evaluate("(options) => open(options)", options)
        return page

    return opening
