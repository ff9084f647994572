"""Search sentences by meaning: 1,000 embeddings and one matrix product.

    await main("./models/all-MiniLM-L6-v2")

It needs a browser with Pyodide, since the tokenizer is JavaScript.
"""

from __future__ import annotations

from itertools import product

import numpy as np

import tensorcommons as tc

WHO = (
    "A cat",
    "A dog",
    "The engineer",
    "My grandmother",
    "A violinist",
    "The gardener",
    "A child",
    "A pilot",
    "The cook",
    "A robot",
)
DOES = (
    *("sleeps", "repairs an engine", "plays a sonata", "waters the tulips", "bakes bread"),
    *("reads a thick book", "counts the stars", "chases a ball", "writes a letter", "paints the wall"),
)
WHERE = (
    *("on the sofa", "in the garden", "at the airport", "in the kitchen", "under an old oak"),
    *("beside the river", "in an empty hall", "on the roof", "behind the school", "at midnight"),
)
SENTENCES = [f"{who} {does} {where}." for who, does, where in product(WHO, DOES, WHERE)]


async def main(
    model: str,
    questions: tuple[str, ...] = ("a pet having a nap", "someone making music", "preparing food"),
    sentences: list[str] = SENTENCES,
    devices: tc.Devices | None = None,
) -> list[list[str]]:
    """Return the three best of ``sentences`` for each question."""
    manager = tc.TensorSharingManager(max_memory_mb=512, devices=devices or await tc.open_devices())
    pipe = await tc.pipeline("feature-extraction", model, manager=manager, pooling="model")
    batches = [sentences[start : start + 50] for start in range(0, len(sentences), 50)]
    index = np.concatenate([await pipe(batch) for batch in batches])  # (sentences, hidden), each of length 1
    scores = (await pipe(list(questions))) @ index.T  # cosines
    pipe.close()
    found = []
    for question, row in zip(questions, scores, strict=True):
        best = np.argsort(-row)[:3]
        found.append([sentences[i] for i in best])
        print(f"{question}: {', '.join(f'{sentences[i]} ({row[i]:.2f})' for i in best)}")
    return found
