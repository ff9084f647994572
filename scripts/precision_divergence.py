"""Measure how far the precision "fast" is from "exact": SmolLM2-135M (Q4_1) over the project's own documentation.

    pip install tokenizers
    PYTHONPATH=pyodide_pkg OPENBLAS_NUM_THREADS=1 python -m scripts.precision_divergence

Both run on the CPU device of CPython, whose NumPy is the meaning of both precisions. Each window of tokens begins a
text. Printed are the share of positions with the same likeliest token, and the mean Kullback-Leibler divergence of the
next token's distribution, in nats, from exact to fast. docs/models.md has the figures.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

import tensorcommons as tc
from scripts import paths

MODEL = paths.DOWNLOADS / "sources/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENIZER = paths.MODELS / "SmolLM2-135M-Instruct/tokenizer.json"
TOKENS, WINDOW = 4096, 256  # of all texts, of one
Array: TypeAlias = np.ndarray[Any, Any]


def windows() -> Iterator[Array]:
    """Yield ids (1, WINDOW) from the beginning of README.md and of docs/*.md in the order of their names."""
    files = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]
    text = "\n\n".join(file.read_text("utf-8") for file in files)
    tokenizers = importlib.import_module("tokenizers")
    ids = np.array(tokenizers.Tokenizer.from_file(str(TOKENIZER)).encode(text).ids[:TOKENS])
    for start in range(0, TOKENS, WINDOW):
        yield ids[None, start : start + WINDOW]


def log_softmax(logits: Array) -> Array:
    """Return the logarithms of the probabilities, as float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


async def main() -> None:
    """Print the figures so far after each window."""
    devices = await tc.open_devices(("cpu",))
    assert devices.cpu is not None
    devices.cpu.backend.multiplies_int8 = True  # the kernels of browsers do; NumPy knows what it means
    manager = tc.TensorSharingManager(4096, devices=devices)
    models = [
        await tc.from_pretrained(str(MODEL), manager=manager, precision=precision) for precision in ("exact", "fast")
    ]
    print(models[0].weight_formats)
    same, divergences, count = 0, 0.0, 0
    for ids in windows():
        answers = [await model(input_ids=ids, outputs=["logits"]) for model in models]
        exact, fast = [log_softmax((await answer["logits"].read())[0]) for answer in answers]
        same += int((exact.argmax(-1) == fast.argmax(-1)).sum())
        divergences += float((np.exp(exact) * (exact - fast)).sum())
        count += ids.size
        print(
            f"{count} tokens: {same / count:.2%} likeliest tokens equal, mean KL {divergences / count:.5f}", flush=True
        )
    manager.close()


if __name__ == "__main__":
    asyncio.run(main())
