"""The fenced blocks of README.md and docs/: one way to find what the tests run.

Every block in Python, JavaScript or HTML is run by a test, unless the paragraph before it begins with ``NOT_RUN`` and
the reason. The Python blocks of a page are one program, run in their order; a ``text`` block is what the program before
it shows. A block of HTML or JavaScript is a file: its name is the last one in the paragraph before it, or index.html.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_RUN = "*Not run by the tests:*"
RUN = ("python", "js", "html")
NOTEBOOKS = [("docs/hosts.md", "JupyterLite"), ("docs/hosts.md", "marimo")]  # which e2e/hosts/test_notebooks.py builds
SHOWN = ("text", "pycon", "json")  # output, and the sessions of docs/api, which have a test of their own


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, the heading and the paragraph above it."""

    page: str
    line: int
    heading: str
    before: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        """True unless the page says that the tests do not run it."""
        return not self.before.startswith(NOT_RUN)

    @property
    def file(self) -> str:
        """The name under which the page has the reader save the block."""
        names = re.findall(r"`([\w.-]+\.(?:html|m?js|py))`", self.before)
        return names[-1] if names else "index.html"

    @property
    def program(self) -> str:
        """The block at its line of the page, so that a failure names this line."""
        return "\n" * self.line + self.text


def pages() -> list[str]:
    """Return README.md and the pages of docs/, relative to the checkout."""
    return ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md")))]


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page that have a language."""
    return list(_blocks(page))


def _blocks(page: str) -> Iterator[Block]:
    heading, before, paragraph = "", "", list[str]()
    inside: list[str] | None = None
    language, start = "", 0
    for number, line in enumerate((ROOT / page).read_text("utf-8").splitlines(), 1):
        if inside is not None:
            if line.startswith("```"):
                if language:
                    yield Block(page, start, heading, before, language, "".join(inside))
                inside = None
            else:
                inside.append(line + "\n")
        elif line.startswith("```"):
            inside, language, start, before = [], line[3:], number, " ".join(paragraph) or before
            paragraph = []
        elif line.startswith("#"):
            heading, before, paragraph = line.lstrip("# "), "", []
        elif line:
            paragraph.append(line)
        else:
            before, paragraph = " ".join(paragraph) or before, []


@dataclass(frozen=True)
class Program:
    """The Python blocks of a page up to a ``text`` block, which is what they show, or up to the end of the page."""

    page: str
    heading: str
    source: str
    shown: str | None

    @property
    def name(self) -> str:
        """The page, and the heading if the page has several programs."""
        return f"{self.page}: {self.heading}" if self.shown is not None else self.page


def programs() -> list[Program]:
    """Return the Python programs of all pages. Their lines are those of the page."""
    found = []
    for page in pages():
        source, heading = "", ""
        for block in blocks(page):
            if block.language == "python" and block.is_run and (page, block.heading) not in NOTEBOOKS:
                source += block.program[source.count("\n") :]
                heading = block.heading
            elif block.language == "text" and source:
                found.append(Program(page, heading, source, block.text))
                source = ""
        if source:
            found.append(Program(page, heading, source, None))
    return found


def sites() -> list[tuple[str, str]]:
    """Return (page, heading) of the sections that have files of HTML or JavaScript: each section is a folder."""
    return list(dict.fromkeys((page, block.heading) for page in pages() for block in _files(page)))


def files(page: str, heading: str) -> dict[str, str]:
    """Return the files of a section, by name."""
    return {block.file: block.text for block in _files(page) if block.heading == heading}


def _files(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("html", "js") and block.is_run]


def sessions(page: str) -> list[Block]:
    """Return the interactive sessions of a page of docs/api."""
    return [block for block in blocks(page) if block.language == "pycon"]


def needs_browser(session: Block) -> bool:
    """True if the session loads a model, whose tokenizer is JavaScript."""
    return "./models/" in session.text
