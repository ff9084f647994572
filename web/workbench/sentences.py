"""The panel of sentences: how alike they are, and how likely each names a skill."""

from __future__ import annotations

from typing import Any

from .session import Send
from .texts import Part, run, usable

PARTS = (
    Part("similarity", "all-MiniLM-L6-v2", "sentence-similarity", show=lambda matrix: matrix.tolist()),
    Part("skill", "skill-head", "text-classification", {"top_k": None}),
)


async def sentences(request: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Compare "texts", and return {"stats"}; see :func:`.texts.run`. The part "rows" has the numbers of the texts."""
    texts = request["texts"]
    used, notices = usable(PARTS, texts, [f"Sentence {number + 1}" for number in range(len(texts))])
    if not used:
        return {"empty": True, "notices": [*notices, "Type a sentence to see results."]}
    return await run(PARTS, [texts[number] for number in used], notices, lambda part: send({"rows": used, **part}))
