"""The panel of chat: SmolLM2 answers, streamed, beside whatever else is loaded, under the page's memory limit."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Any

import tensorcommons as tc

from .session import Send, session

SMOLLM2 = "SmolLM2-135M-Instruct"


async def chat(request: dict[str, Any], *, send: Send) -> dict[str, Any]:
    """Stream the answer to "messages" of at most "max_new_tokens", as :func:`written` does."""
    pipe: Any = await tc.pipeline("text-generation", session.model(SMOLLM2), manager=session.manager)
    return await written(pipe, request["messages"], request["max_new_tokens"], send)


async def written(pipe: Any, prompt: Any, max_new_tokens: int, send: Send) -> dict[str, Any]:
    """Stream a generation as parts {"part": "text", "text", "seconds"}, counted from the first token.

    Returns {"tokens", "first_seconds", "tokens_per_second", "evicted_bytes", "restored_bytes", "moved_bytes", "stats"}:
    the seconds before the first token and the speed after it; the bytes of weights that left the device and came back
    meanwhile; and those that each token moved, if the model is larger than the limit.
    """
    share, text, began = session.manager.share, "", 0.0
    evicted, restored = share.evicted_bytes, share.restored_bytes
    async with session.turn(send) as stats:
        started = time.perf_counter()
        async with aclosing(pipe.stream(prompt, max_new_tokens=max_new_tokens)) as pieces:
            async for piece in pieces:
                now = time.perf_counter()
                began = began or now
                text += piece
                send({"part": "text", "text": piece, "seconds": now - began})
        ended = time.perf_counter()
    tokenizer = pipe.model.tokenizer
    tokens = tokenizer.encode_batch([text], add_special_tokens=False).input_ids.shape[1] if text else 0
    return {
        "tokens": tokens,
        "first_seconds": (began or ended) - started,
        "tokens_per_second": (tokens - 1) / (ended - began) if tokens > 1 else None,
        "evicted_bytes": share.evicted_bytes - evicted,
        "restored_bytes": share.restored_bytes - restored,
        "moved_bytes": session.manager.report().moved_bytes.get(pipe.model.name, 0),
        "stats": stats,
    }
