"""Run a chat model and an embedder under a memory limit that is too small for both.

    await main("./models/SmolLM2-135M-Instruct", "./models/all-MiniLM-L6-v2")

With float16 weights SmolLM2 takes 257 MB and MiniLM 87 MB. Under a limit of 320 MB, weights of one model are evicted
while the other runs, and restored automatically with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorcommons as tc

NOTES = (
    "The keys are under the blue flower pot.",
    "The meeting moved to Thursday at ten.",
    "Anna is allergic to nuts.",
)


async def main(
    writer: str | Mapping[str, bytes],
    embedder: str,
    questions: tuple[str, ...] = ("Where are the keys?", "When do we meet?"),
    max_memory_mb: float = 320,
    max_new_tokens: int = 40,
    devices: tc.Devices | None = None,
) -> dict[str, Any]:
    """Answer questions, each from the most similar note; return the answers, and the evictions and restores."""
    opened = devices or await tc.open_devices()
    manager = tc.TensorSharingManager(max_memory_mb, devices=opened, activation_cache=False)
    search = await tc.pipeline("sentence-similarity", embedder, manager=manager)
    model = await tc.from_pretrained(writer, manager=manager, dtype="float16")
    chat: Any = await tc.pipeline("text-generation", model, manager=manager)
    answers = []
    for question in questions:
        cosines = (await search([question, *NOTES]))[0, 1:]
        note = NOTES[int(cosines.argmax())]
        messages = [
            {"role": "system", "content": f"Answer in one sentence. You know: {note}"},
            {"role": "user", "content": question},
        ]
        print(f"{question}  [{note}]")
        answer = ""
        async for piece in chat.stream(messages, max_new_tokens=max_new_tokens):
            answer += piece
            print(piece, end="")
        print()
        answers.append({"note": note, "answer": answer})
    stats = manager.get_stats()
    figures: dict[str, Any] = {key: stats[key] for key in ("evictions", "restores", "peak_memory_bytes")}
    print(figures)
    chat.close()
    model.unload()
    search.close()
    return {"answers": answers, **figures}
