"""Pipeline: a task on a model; and the calls of several pipelines in one run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np

from ..errors import MemoryBudgetError, TensorCommonsError
from ..models.model import Model
from ..tensor import read_together
from . import TASKS, check_options
from .adapters import adapted_rows
from .base import Job
from .batches import batches, check_size


class Pipeline:
    """A task on a model: ``await pipe(inputs)``. ``close()`` unloads ``model`` if the pipeline loaded it.

    ``options`` are the default options of every call.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> terms = await tc.pipeline("sparse-embedding", "./models/splade-tiny", manager=manager)
    >>> [term["token"] for term in (await terms("It never rains."))[:2]]
    ['never', 'rains']
    >>> terms.close()
    """

    def __init__(self, task: str, model: Model, *, owns_model: bool, options: Mapping[str, Any] | None = None) -> None:
        self.task = task
        self.model = model
        self.options = dict(options or {})
        self._owns_model = owns_model

    def __repr__(self) -> str:
        return f"<Pipeline {self.task} of {self.model!r}>"

    async def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the task on one input or a list of inputs; see :func:`pipeline` for options and results.

        Raises:
            TensorCommonsError: the task does not accept the inputs, or has no such option.
            ShapeMismatch: with ``truncation=False``, a text is longer than the model's maximum.
            MemoryBudgetError: not even one row fits beside the model.
        """
        if len(inputs) > 1:
            raise TensorCommonsError(f"pass several inputs as a list, not as {len(inputs)} arguments")
        return (await run_pipelines([(self, inputs[0] if inputs else None, options)]))[0]

    async def call(self, inputs: Any, options: Mapping[str, Any] | None = None, *, together: int = 1) -> TaskCall:
        """Prepare a call that shares a run with others, ``together`` in all.

        Raises TensorCommonsError if the task does not accept the inputs or options.
        """
        if self.task not in TASKS:
            raise TensorCommonsError(f"{self.task} cannot run together with other pipelines: call it on its own")
        task, chosen = TASKS[self.task], {**self.options, **(options or {})}
        size, adapter = check_size(chosen.pop("batch_size", None)), chosen.pop("adapter", None)
        check_options(self.task, task, chosen)
        job = await task(self.model, inputs, **chosen)
        if adapter is not None:
            job = replace(job, rows=adapted_rows(job.rows, inputs, adapter))
        return TaskCall(self.model, job, await batches(self.model, job.rows, job.outputs, size, together), bool(size))

    def close(self) -> None:
        """Unload the model, if the pipeline loaded it. Safe to call twice."""
        if self._owns_model:
            self.model.unload()


@dataclass(frozen=True)
class TaskCall:
    """One pipeline's call in a run, with the rows of each of its batches; ``is_fixed`` if ``batch_size`` was passed."""

    model: Model
    job: Job
    batches: Sequence[Sequence[int]]
    is_fixed: bool


async def run_pipelines(calls: Sequence[tuple[Pipeline, Any] | tuple[Pipeline, Any, Mapping[str, Any]]]) -> list[Any]:
    """Run several pipelines as one merged graph, in which common subexpressions are computed once.

    ``calls`` are (pipeline, inputs) or (pipeline, inputs, options), all of one manager and device. Returns the result
    of each pipeline, equal to that of the pipeline alone.

    Raises:
        TensorCommonsError: a pipeline does not accept its inputs, or they are on different devices; nothing ran.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> terms = await tc.pipeline("sparse-embedding", "./models/splade-tiny", manager=manager)
    >>> nli = await tc.pipeline("text-classification", "./models/splade-tiny-nli", manager=manager)
    >>> pair = ("The cup is on the table.", "There is something on the table.")
    >>> found, labels = await tc.run_pipelines([(terms, "It never rains."), (nli, [pair])])
    >>> found[0]["token"], labels[0]["label"]
    ('never', 'entailment')
    >>> manager.close()
    """
    return await run_calls([await pipe.call(inputs, *more, together=len(calls)) for pipe, inputs, *more in calls])


async def run_calls(calls: Sequence[TaskCall]) -> list[Any]:
    """Run the calls batch by batch; the batches of all calls run in one graph. Cancellable between two batches.

    Raises:
        MemoryBudgetError: one row does not fit, or a batch of the requested size.
    """
    kept: list[dict[int, Any]] = [{} for _ in calls]
    steps = [list(step) for step in zip_longest(*[call.batches for call in calls], fillvalue=())]
    while steps:
        step = steps.pop(0)
        try:
            await _run_batches(calls, step, kept)
        except MemoryBudgetError:  # less memory is free than when the batches were made
            halves = [(len(rows) + 1) // 2 for rows in step]
            rest = [rows[half:] for rows, half in zip(step, halves, strict=True)]
            if not any(rest) or any(call.is_fixed for call in calls):
                raise
            steps[:0] = [[rows[:half] for rows, half in zip(step, halves, strict=True)], rest]
        if steps:
            await asyncio.sleep(0)  # let other tasks run and a cancellation arrive, even if a batch never waits
    return [
        call.job.show([found[row] for row in range(len(found))]) if found else []
        for call, found in zip(calls, kept, strict=True)
    ]


async def _run_batches(calls: Sequence[TaskCall], step: Sequence[Sequence[int]], kept: list[dict[int, Any]]) -> None:
    """Run one batch of each call in one graph, and add what each call keeps of its rows to ``kept``."""
    work = [
        (number, rows, inputs)
        for number, (call, batch) in enumerate(zip(calls, step, strict=True))
        if batch
        for rows, inputs in await call.job.rows.take(batch)
    ]
    models = [calls[number].model for number, _, _ in work]
    outputs = [list(calls[number].job.outputs) for number, _, _ in work]
    asked = [(model, inputs) for model, (_, _, inputs) in zip(models, work, strict=True)]
    ran = await models[0].manager.run_together(asked, outputs)
    values = iter(await read_together([out[name] for out, names in zip(ran, outputs, strict=True) for name in names]))
    for (number, rows, _), names in zip(work, outputs, strict=True):
        call, arrays = calls[number], [next(values) for _ in names]
        per_token = getattr(call.model.architecture.inputs, "per_token", ())
        for place, row in enumerate(rows):
            parts = [
                array[place][call.job.rows.columns(row, array.shape[1])] if name in per_token else array[place]
                for name, array in zip(names, arrays, strict=True)
            ]
            # min() and max() are NaN if any element is, and need no temporary array.
            if not all(np.isfinite(end) for part in parts if part.size for end in (part.min(), part.max())):
                call.model.warn_once("its outputs are not finite (NaN or infinite); are its weights?")
            kept[number][row] = call.job.each(row, parts)
