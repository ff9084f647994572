"""Divide the rows of a pipeline call into batches: rows of similar length together, as many as memory allows.

A batch is padded to its longest row, and the memory of attention grows with the square of that length, so a thousand
texts in one batch would take hundreds of megabytes. Planning the graph of two rows gives the number of rows that fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..models.model import Model
from ..models.text import bucket_of
from .base import Rows

SMALL = 2048  # tokens, with padding, that run as one batch without planning
MOST = 128 << 20  # bytes of a batch, even if the memory limit allows more


def check_size(batch_size: object) -> int | None:
    """Check the option ``batch_size``. Raises TensorCommonsError unless it is an integer from 1 or None."""
    if batch_size is None or (type(batch_size) is int and batch_size > 0):
        return batch_size
    raise TensorCommonsError(
        f"batch_size must be an integer from 1, or None for as many rows as fit, not {quoted(batch_size)}"
    )


async def batches(
    model: Model, rows: Rows, outputs: Sequence[str], batch_size: int | None, together: int = 1
) -> list[list[int]]:
    """Return the rows of each batch, longest rows first, or all rows in order if they fit into one batch.

    ``together`` is the number of pipelines that share the run.
    """
    lengths, every = rows.lengths, list(range(len(rows.lengths)))
    if len(every) <= (batch_size or 1):
        return [every] if every else []
    if _one_by_one(model):
        return [[row] for row in every]
    order = sorted(every, key=lambda row: -lengths[row])
    if batch_size is not None:
        return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    if len(every) * bucket_of(lengths[order[0]]) <= SMALL:
        return [every]
    found: list[list[int]] = []
    sizes: dict[int, int] = {}  # number of rows that fit, by padded length
    while order:
        width = bucket_of(lengths[order[0]])
        if width not in sizes:
            sizes[width] = await _fitting(model, rows, outputs, order[0], together)
        most = sizes[width]
        if not found and most >= len(every):
            return [every]
        # Rows of half the length would be padded to double; but a batch of a few rows does not pay.
        alike = sum(1 for row in order[:most] if 2 * bucket_of(lengths[row]) > width)
        count = most if alike >= most // 2 else max(alike, 1)
        found.append(order[:count])
        order = order[count:]
    return found


def _one_by_one(model: Model) -> bool:
    """Return whether the model takes only one text in a call, since it cannot tell padding from tokens."""
    inputs: Any = model.architecture.inputs
    if not hasattr(inputs, "one_text"):
        return False
    padded = model.tokenizer.pad_id if model.tokenizer is not None else None
    return bool(inputs.one_text) or inputs.padding != padded


async def _fitting(model: Model, rows: Rows, outputs: Sequence[str], row: int, together: int) -> int:
    """Return the number of rows as long as ``row`` that fit into a run: a power of two, at least 1."""
    ((_, inputs), *_) = await rows.take([row])
    twice = {
        name: np.concatenate([value, value]) if isinstance(value, np.ndarray) else [*value, *value]
        for name, value in inputs.items()
    }
    memory = model.manager.residency
    idle = sum(each.idle_scratch_bytes + each.backend.constant_bytes for each in memory.devices)
    spare = memory.free_bytes() + memory.cached_bytes + idle
    if model.weight_bytes > memory.room():  # the weights are streamed for every batch, so that large batches pay
        spare = memory.room() - model.least_need(twice, outputs).weights
    most = min(spare // 2, MOST) // together
    count = max(2 * most // max(model.bytes_to_run(twice, outputs), 1), 1)
    return int(1 << (int(count).bit_length() - 1))
