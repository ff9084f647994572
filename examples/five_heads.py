"""Run five heads on one backbone, whose weights are stored once and which is computed once.

    await main("./models")

The models are folders relative to the page, or to the program.
"""

from __future__ import annotations

from typing import Any

import tensorcommons as tc

HEADS = ("nli", "relevance", "polarity", "relation-type")


async def main(models: str, devices: tc.Devices | None = None) -> dict[str, Any]:
    """Return the best label of each head, and the savings by sharing: ``saved_bytes``, ``reused_in_run``."""
    manager = tc.TensorSharingManager(max_memory_mb=256, devices=devices or await tc.open_devices())
    sparse = await tc.pipeline("sparse-embedding", f"{models}/splade-tiny", manager=manager)
    heads = {
        name: await tc.pipeline("text-classification", f"{models}/splade-tiny-{name}", manager=manager)
        for name in HEADS
    }
    pair = ("A man is playing a guitar.", "Somebody makes music.")
    texts = {"nli": pair, "relevance": pair, "polarity": list(pair), "relation-type": list(pair)}
    calls = [(sparse, list(pair)), *((heads[name], texts[name]) for name in HEADS)]
    terms, *labels = await tc.run_pipelines(calls)  # one merged graph
    report, run = manager.report(), manager.last_run
    answer: dict[str, Any] = {"terms": [term["token"] for term in terms[0][:5]]}
    for name, found in zip(HEADS, labels, strict=True):
        answer[name] = found["label"] if isinstance(found, dict) else found[0]["label"]
    answer |= {"saved_bytes": report.saved_bytes, "reused_in_run": run["reused_in_run"]}
    print(answer)
    for pipe in (sparse, *heads.values()):
        pipe.close()
    return answer
