"""The panel of a pair: four heads on SPLADE-tiny judge two sentences, and SPLADE gives the terms of each."""

from __future__ import annotations

from typing import Any

from .session import Send
from .texts import Part, run, usable

TERMS = 20
PARTS = (
    Part("nli", "splade-tiny-nli", "text-classification", {"top_k": None}, is_pair=True),
    Part("relevance", "splade-tiny-relevance", "text-classification", {"top_k": None}, is_pair=True),
    Part("polarity", "splade-tiny-polarity", "text-classification", {"top_k": None}),
    Part("relation-type", "splade-tiny-relation-type", "text-classification", {"top_k": None}),
    Part("terms", "splade-tiny", "sparse-embedding", show=lambda rows: [row[:TERMS] for row in rows]),
)


async def pair(request: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Judge the two "texts", and return {"stats"}; see :func:`.texts.run`."""
    used, notices = usable(PARTS, request["texts"], ["A", "B"])
    if len(used) < 2:
        return {"empty": True, "notices": [*notices, "Type both sentences to see results."]}
    return await run(PARTS, request["texts"], notices, send)
