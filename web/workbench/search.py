"""The panel of search: a text is cut into passages, which are embedded once each and ranked by a question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

import tensorcommons as tc

from .session import Send, session

MINILM = "all-MiniLM-L6-v2"
MOST = 1_000  # passages
LONGEST = 600  # characters of a passage: some 150 tokens, of the 256 that the model reads
SHORTEST = 60  # characters; a shorter paragraph, such as a heading, joins the next one
BATCH = 32  # passages of a step, after which the panel shows progress and a cancellation takes effect
SHOWN = 10  # passages of an answer

Place: TypeAlias = tuple[int, int]
_vectors: dict[str, Any] = {}  # of each passage of the last text, by its words


async def search(request: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Embed the passages of "text" that are new, and rank them by "question", if there is one.

    {"passages", "left_out", "embedded", "found", "stats"}: numbers of passages, and "found", the best first, with
    "text", "start" and "stop" in the text, and "score". What was embedded before a cancellation is kept.
    """
    text, question = request["text"], request["question"].strip()
    places = list(cut(text))
    passages, left_out = places[:MOST], len(places[MOST:])
    words = [words_of(text, place) for place in passages]
    for gone in _vectors.keys() - set(words):
        del _vectors[gone]
    if not passages:
        return {"empty": True, "notices": ["Paste a text, or drop a text file, to search in it."]}
    missing = sorted({each for each in words if each not in _vectors}, key=len)  # of similar length: little padding
    pipe = await tc.pipeline("feature-extraction", session.model(MINILM), manager=session.manager)
    found: list[dict[str, Any]] = []
    async with session.turn(send) as stats:
        for at in range(0, len(missing), BATCH):
            send({"part": "progress", "done": at, "total": len(missing)})
            batch = missing[at : at + BATCH]
            _vectors.update(zip(batch, await pipe(batch, pooling="model", normalize=True), strict=True))
        send({"part": "progress", "done": len(missing), "total": len(missing)})
        if question:
            asked = await pipe(question, pooling="model", normalize=True)
            scores = np.stack([_vectors[each] for each in words]) @ asked
            best = np.argsort(-scores, kind="stable")[:SHOWN]
            found = [{**_shown(text, passages[i]), "score": float(scores[i])} for i in best]
    counts = {"passages": len(passages), "left_out": left_out, "embedded": len(missing)}
    return {**counts, "found": found, "stats": stats if missing or question else None}


def words_of(text: str, place: Place) -> str:
    """Return a passage with each run of white space as one space, so that a new line break embeds nothing again."""
    return " ".join(text[place[0] : place[1]].split())


def _shown(text: str, place: Place) -> dict[str, Any]:
    """Return a passage's text, and its range in the units of JavaScript's strings."""
    start, stop = (len(text[:at].encode("utf-16-le", "surrogatepass")) // 2 for at in place)
    return {"text": text[place[0] : place[1]], "start": start, "stop": stop}


def cut(text: str) -> Iterator[Place]:
    """Yield (start, stop) of each passage: paragraphs, of which long ones are cut after a sentence or a word."""
    for start, stop in _joined(_paragraphs(text)):
        while stop - start > LONGEST:
            at = start + _last_end(text[start : start + LONGEST])
            yield from _stripped(text, start, at)
            start = at
        yield from _stripped(text, start, stop)


def _paragraphs(text: str) -> Iterator[Place]:
    start = 0
    for gap in re.finditer(r"\n[^\S\n]*\n|\Z", text):
        yield from _stripped(text, start, gap.start())
        start = gap.end()


def _joined(paragraphs: Iterable[Place]) -> Iterator[Place]:
    waiting: Place | None = None
    for start, stop in paragraphs:
        begin = start if waiting is None else waiting[0]
        waiting = begin, stop
        if stop - start >= SHORTEST:
            yield waiting
            waiting = None
    if waiting is not None:
        yield waiting


def _last_end(piece: str) -> int:
    """Return the length of the longest beginning of ``piece`` that ends with a sentence, else with a word."""
    for pattern in (r"[.!?…]['\")\]»”’]*\s|[。！？][」』”]*", r"\s"):
        ends = [found.end() for found in re.finditer(pattern, piece) if found.end() > len(piece) // 3]
        if ends:
            return ends[-1]
    return len(piece)


def _stripped(text: str, start: int, stop: int) -> Iterator[Place]:
    """Yield the range without white space at its ends, unless nothing is left."""
    piece = text[start:stop]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
