"""Rows of one batch with different adapters, beside the base without adapters; and what it costs to choose another one.

An adapter changes the products of queries and values in every layer, by rank 16 on a GPU, with random numbers. Before
anything is timed, rows of the batch are compared with the model that the merge of their adapter makes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import tensorcommons as tc
from bench.report import number
from bench.workloads import BERT_BASE, MINILM, Work
from scripts.safetensors import F32Tensor, encode

Array: TypeAlias = np.ndarray[Any, Any]
BASE = "base without adapters"
CHANGED = ("query", "value")
OUTPUT = "last_hidden_state"
CLOSE = 0.9999  # least cosine of a row and that of a merged model
SHORT = 16  # tokens of a call that is timed for its adapter
PAIRS = 8  # calls of a sample with another adapter than the call before, and as many with the same one
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}
#: The base and its sizes; rows, each with an adapter of its own; tokens of a row; rank.
SIZES = {
    "gpu": ("BERT-base", BERT_BASE, 16, 128, 16),
    "software": ("MiniLM", MINILM, 16, 16, 16),
    "tiny": ("a tiny BERT", TINY, 4, 8, 2),
}


def adapted(size: str, folder: Path) -> Iterator[Work]:
    """Build the rows on the encoder in ``folder``; ``size`` is one of SIZES."""
    name, sizes, rows, length, rank = SIZES[size]
    params = {"layers": sizes["num_hidden_layers"], "hidden": sizes["hidden_size"], "rows": rows, "rank": rank}
    ids = np.random.default_rng(0).integers(1, sizes.get("vocab_size", 20000), (rows, length)).astype(np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    batch = Work(
        *("adapters", f"{rows} × {length} on {name}, each row with an adapter of its own, rank {rank}", "rows"),
        params,
        inputs,
        None,
        tuple(inputs),
        amount=float(ids.size),
        unit="token",
        folder=str(folder),
        has_peers=False,
        variants=(BASE,),
    )
    yield batch
    yield replace(
        batch,
        name=f"1 × {min(SHORT, length)} on {name}, another adapter in each call",
        kind="switch",
        arrays={name: array[:1, :SHORT] for name, array in inputs.items()},
        amount=0.0,
        unit="ms",
        variants=(),
    )


def files(params: Mapping[str, int], seed: int) -> dict[str, bytes]:
    """Make the files of an adapter with random numbers, which changes a result by about a tenth."""
    rng = np.random.default_rng(seed)
    hidden, rank = params["hidden"], params["rank"]
    tensors = {}
    for layer in range(params["layers"]):
        for name in CHANGED:
            for part, shape in (("lora_A", (rank, hidden)), ("lora_B", (hidden, rank))):
                values = rng.standard_normal(shape, np.float32) / np.float32(hidden**0.5)
                key = f"base_model.model.encoder.layer.{layer}.attention.self.{name}.{part}.weight"
                tensors[key] = F32Tensor(shape, values.tobytes())
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [*CHANGED]}
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": encode(tensors)}


async def prepare(
    work: Work, model: tc.Model, *, base: bool
) -> tuple[Callable[[], Awaitable[Array | tuple[Array, float]]], dict[str, Any]]:
    """Return the run of ``work`` on a loaded model, ``base`` without adapters, and what is reported with its times.

    Raises ValueError if a row with an adapter is not that of the merged model.
    """
    if base:
        return (lambda: _rows(model, work.arrays, None)), {}
    names, extra = [f"adapter {i}" for i in range(work.params["rows"])], dict[str, Any]()
    own = sum(weight.data.spec.nbytes for weight in model.weights().values())
    loaded = [await model.load_adapter(files(work.params, i), name) for i, name in enumerate(names)]
    sizes = (own, sum(each.weight_bytes for each in loaded))
    extra["MB of the base, and of all adapters"] = ", ".join(number(size / 1e6) for size in sizes)
    if work.kind == "switch":
        return _switch(model, work, names, extra), extra
    rows, plain = await _rows(model, work.arrays, names), await _rows(model, work.arrays, None)
    for row in (0, len(names) - 1):
        merged = await loaded[row].merge()
        expected = await _rows(merged, {name: array[row : row + 1] for name, array in work.arrays.items()}, None)
        merged.unload()
        close, change = _cosine(rows[row], expected), _cosine(rows[row], plain[row])
        if not (close >= CLOSE > change):
            raise ValueError(
                f"row {row} has cosine {close:.6f} to that of the merged model, {change:.6f} to that of the base"
            )
    return (lambda: _rows(model, work.arrays, names)), extra


def _switch(
    model: tc.Model, work: Work, names: Sequence[str], extra: dict[str, Any]
) -> Callable[[], Awaitable[tuple[Array, float]]]:
    """Time calls with another adapter than the call before. Reports how much longer than with the same they take."""
    differences: list[float] = []

    async def timed(name: str) -> tuple[Array, float]:
        started = time.perf_counter()
        result = await _rows(model, work.arrays, name)
        return result, (time.perf_counter() - started) * 1e3

    async def run() -> tuple[Array, float]:
        others, same = list[float](), list[float]()
        for i in range(PAIRS):
            for times in (others, same):
                result, took = await timed(names[i % len(names)])
                times.append(took)
        differences.append(statistics.median(others) - statistics.median(same))
        extra["longer than with the same adapter, ms"] = f"{statistics.median(differences):.3f}"
        return result, statistics.median(others)

    return run


async def _rows(model: tc.Model, inputs: Mapping[str, Array], adapter: Any) -> Array:
    """Return the result of a call."""
    outputs = await model(outputs=[OUTPUT], adapter=adapter, **inputs)
    result: Array = await outputs[OUTPUT].read()
    return result


def _cosine(a: Array, b: Array) -> float:
    """Compute the cosine of two results."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
