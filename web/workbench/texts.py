"""Panels of a few texts: several models run as one merged graph, so that a common backbone is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorcommons as tc

from .session import Send, session


@dataclass(frozen=True)
class Part:
    """A part of a panel: its name in the page, the model behind it and the model's task."""

    name: str
    model: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)
    is_pair: bool = False  # the texts are one input
    show: Callable[[Any], Any] = lambda result: result


async def run(parts: Sequence[Part], texts: Sequence[str], notices: Sequence[str], send: Send) -> dict[str, Any]:
    """Send the result of each part as {"part", "value"}, or {"part", "needs": model} where that is not loaded.

    Returns {"stats"}, None if no model is loaded.
    """
    present = [part for part in parts if part.model in session.models]
    send({"part": "notices", "notices": [*notices]})
    for part in parts:
        if part not in present:
            send({"part": part.name, "needs": part.model})
    if not present:
        return {"stats": None}
    async with session.turn(send) as stats:
        calls = []
        for part in present:
            pipe = await tc.pipeline(part.task, session.model(part.model), manager=session.manager, **part.options)
            calls.append((pipe, [tuple(texts)] if part.is_pair else list(texts)))
        results = await tc.run_pipelines(calls)
    for part, result in zip(present, results, strict=True):
        send({"part": part.name, "value": part.show(result)})
    return {"stats": stats}


def usable(parts: Sequence[Part], texts: Sequence[str], names: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the numbers of the texts that are not empty, and notices about the others and about long texts."""
    used, notices = [], []
    for number, (text, name) in enumerate(zip(texts, names, strict=True)):
        if not text.strip():
            notices.append(f"{name} is empty and left out.")
            continue
        used.append(number)
        count, most = _tokens(parts, text)
        if count > most:
            notices.append(f"{name} has {count:,} tokens; the model reads the first {most:,}.")
    return used, notices


def _tokens(parts: Sequence[Part], text: str) -> tuple[int, int]:
    """Count a text's tokens, and those that the models of a panel read; a short text is not counted."""
    tokenizer = next((session.models[part.model].tokenizer for part in parts if part.model in session.models), None)
    most = tokenizer.max_length if tokenizer is not None else None
    if tokenizer is None or most is None or len(text) < most // 2:
        return 0, 0
    return tokenizer.encode_batch([text], truncation=False).input_ids.shape[1], most
