"""The panel of one's own model: what it is, what it costs beside what is loaded, and a form for each of its tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorcommons as tc

from .chat import written
from .images import map_of, pixels_of
from .session import Send, session

MOST = 20  # rows of a result
TOKENS = 128  # of a generation

Form: TypeAlias = dict[str, Any]
GENERATION = ("text-generation", "text2text-generation", "summarization")


@dataclass(frozen=True)
class Call:
    """A task's call: its input, its options, and the form of its result in JSON."""

    given: Callable[[Form], Any]
    show: Callable[[Any], Any]
    options: Callable[[Form], dict[str, Any]] = lambda form: {}


async def own(request: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Run "task" of the loaded model "name" on the fields of "form": {"value", "stats"}.

    A generated text arrives as parts, see :func:`.chat.written`.
    """
    task, form = request["task"], request["form"]
    pipe: Any = await tc.pipeline(task, session.model(request["name"]), manager=session.manager)
    if task in GENERATION:
        prompt = [{"role": "user", "content": form["text"]}] if form.get("chat") else form["text"]
        return await written(pipe, prompt, TOKENS, send)
    call = CALLS[task]
    async with session.turn(send) as stats:
        value = await pipe(call.given(form), **call.options(form))
    return {"value": call.show(value), "stats": stats}


def _labels(rows: Any) -> Any:
    rows = rows[0] if isinstance(rows[0], list) else rows
    return sorted(rows, key=lambda row: -row["score"])[:MOST]


def _lines(form: Form) -> list[str]:
    return [line for line in form["text"].splitlines() if line.strip()]


def _vectors(found: Any) -> dict[str, Any]:
    return {"dims": list(found.shape), "first": found[0, :6].tolist(), "cosines": (found @ found.T).tolist()}


def _text_or_pair(form: Form) -> Any:
    return (form["text"], form["pair"]) if form.get("pair") else form["text"]


CALLS = {
    "text-classification": Call(_text_or_pair, _labels, lambda form: {"top_k": None}),
    "zero-shot/nli": Call(_text_or_pair, _labels),
    "token-classification": Call(
        lambda form: form["text"], lambda rows: rows, lambda form: {"aggregation_strategy": "simple"}
    ),
    "feature-extraction": Call(_lines, _vectors, lambda form: {"pooling": "model", "normalize": True}),
    "sparse-embedding": Call(lambda form: form["text"], lambda rows: rows[:MOST]),
    "fill-mask": Call(lambda form: form["text"], lambda rows: rows if isinstance(rows[0], list) else [rows]),
    "question-answering": Call(
        lambda form: {"question": form["question"], "context": form["text"]}, lambda found: found
    ),
    "image-classification": Call(pixels_of, _labels, lambda form: {"top_k": MOST}),
    "zero-shot-image-classification": Call(
        pixels_of, _labels, lambda form: {"candidate_labels": [each.strip() for each in form["text"].split(",")]}
    ),
    "image-feature-extraction": Call(
        pixels_of, lambda found: {"dims": list(found.shape), "first": found[0, 0, :6].tolist()}
    ),
    "saliency": Call(pixels_of, map_of),
}
