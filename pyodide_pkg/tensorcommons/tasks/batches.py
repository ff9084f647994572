"""The rows of a pipeline call in batches: as many at once as fit, rows of one length together, answers in order.

Padding makes a batch as long as its longest row, and attention takes the square of that, so a thousand texts in one
batch would take hundreds of megabytes. How many rows fit is told by planning the graph of two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..models.model import Model
from ..models.text import bucket_of
from .base import Rows

SMALL = 2048  # tokens, padding included, that are one batch without a look at the graph
MOST = 128 << 20  # bytes of a batch where the memory limit allows more


def check_size(batch_size: object) -> int | None:
    """The option ``batch_size``. Raises TensorCommonsError for anything but a number from 1 or None."""
    if batch_size is None or (type(batch_size) is int and batch_size > 0):
        return batch_size
    raise TensorCommonsError(f"batch_size is a whole number from 1, or None for what fits, not {quoted(batch_size)}")


async def batches(
    model: Model, rows: Rows, outputs: Sequence[str], batch_size: int | None, together: int = 1
) -> list[list[int]]:
    """The rows of each batch, longest rows first; all rows as they stand where they fit into one.

    ``together`` is how many pipelines share a run.
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
    sizes: dict[int, int] = {}  # rows that fit, by the columns that they are padded to
    while order:
        width = bucket_of(lengths[order[0]])
        if width not in sizes:
            sizes[width] = await _fitting(model, rows, outputs, order[0], together)
        most = sizes[width]
        if not found and most >= len(every):
            return [every]
        # Rows of half the length would waste half of the work; a few of them are not worth a batch of their own.
        alike = sum(1 for row in order[:most] if 2 * bucket_of(lengths[row]) > width)
        count = most if alike >= most // 2 else max(alike, 1)
        found.append(order[:count])
        order = order[count:]
    return found


def _one_by_one(model: Model) -> bool:
    """True if the model takes one text a call: it cannot distinguish the end of a shorter one from padding."""
    inputs: Any = model.architecture.inputs
    if not hasattr(inputs, "one_text"):
        return False
    padded = model.tokenizer.pad_id if model.tokenizer is not None else None
    return bool(inputs.one_text) or inputs.padding != padded


async def _fitting(model: Model, rows: Rows, outputs: Sequence[str], row: int, together: int) -> int:
    """Number of rows as long as ``row`` that fit into a run: a power of two, at least 1."""
    ((_, inputs), *_) = await rows.take([row])
    twice = {name: np.concatenate([array, array]) for name, array in inputs.items()}
    budget = model.manager.residency
    spare = budget.free_bytes() + budget.cached_bytes + sum(each.idle_scratch_bytes for each in budget.devices)
    if model.weight_bytes > budget.room():  # they come and go: every batch moves them, so batches are large
        spare = budget.room() - model.least_need(twice, outputs).weights
    most = min(spare // 2, MOST) // together
    count = max(2 * most // max(model.bytes_to_run(twice, outputs), 1), 1)
    return int(1 << (int(count).bit_length() - 1))
