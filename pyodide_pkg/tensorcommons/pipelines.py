"""The tasks that people ask for by name: texts or images in, NumPy arrays or labels out.

A pipeline makes arrays of its inputs, runs the model on its device, reads the small results, and makes them readable.
What each task does with its inputs and outputs is in tasks/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from .backends.device import Device
from .errors import MemoryBudgetError, TensorCommonsError, quoted
from .hub.cache import CacheSpec
from .models.architecture import check_task
from .models.interning import Progress
from .models.loading import from_pretrained
from .models.model import Model
from .sharing.manager import TensorSharingManager
from .tasks import TASKS, Job, check_options
from .tasks.batches import batches, check_size
from .tensor import read_together


class Pipeline:
    """``await pipe(inputs)``. ``model`` is the model it runs; ``close()`` unloads it if the pipeline loaded it.

    ``options`` are the task's, for every call that does not give its own.
    """

    def __init__(self, task: str, model: Model, *, owns_model: bool, options: Mapping[str, Any] | None = None) -> None:
        self.task = task
        self.model = model
        self.options = dict(options or {})
        self._owns_model = owns_model

    def __repr__(self) -> str:
        return f"<Pipeline {self.task} of {self.model!r}>"

    async def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The task's result for one input or a list of them; see :func:`pipeline`."""
        if len(inputs) > 1:
            raise TensorCommonsError(f"several inputs are a list, not {len(inputs)} arguments")
        return (await run_pipelines([(self, inputs[0] if inputs else None, options)]))[0]

    async def call(self, inputs: Any, options: Mapping[str, Any] | None = None, *, together: int = 1) -> TaskCall:
        """Prepare a call that shares its run with others, ``together`` in all.

        Raises TensorCommonsError where the task cannot take its inputs or options.
        """
        if self.task not in TASKS:
            raise TensorCommonsError(f"{self.task} does not run together with others: its steps depend on its words")
        task, chosen = TASKS[self.task], {**self.options, **(options or {})}
        size = check_size(chosen.pop("batch_size", None))
        check_options(self.task, task, chosen)
        job = await task(self.model, inputs, **chosen)
        return TaskCall(self.model, job, await batches(self.model, job.rows, job.outputs, size, together), bool(size))

    def close(self) -> None:
        """Unload the model, if the pipeline loaded it. Safe to call twice."""
        if self._owns_model:
            self.model.unload()


@dataclass(frozen=True)
class TaskCall:
    """One pipeline's part of a run, and the rows of each of its batches; ``is_fixed`` if their size was asked for."""

    model: Model
    job: Job
    batches: Sequence[Sequence[int]]
    is_fixed: bool


async def run_pipelines(calls: Sequence[tuple[Pipeline, Any] | tuple[Pipeline, Any, Mapping[str, Any]]]) -> list[Any]:
    """Several pipelines as one merged graph: what they share is computed once.

    ``calls`` are (pipeline, inputs) or (pipeline, inputs, options). All of one manager and device. Gives each one's
    result, as the pipeline alone would.

    Raises:
        TensorCommonsError: a pipeline cannot take its inputs, or they are on different devices; nothing ran.
    """
    return await run_calls([await pipe.call(inputs, *more, together=len(calls)) for pipe, inputs, *more in calls])


async def run_calls(calls: Sequence[TaskCall]) -> list[Any]:
    """Run the calls batch by batch, each batch of all of them in one graph. A cancel ends it between two batches.

    Raises:
        MemoryBudgetError: one row does not fit, or a batch of the size that was asked for.
    """
    kept: list[dict[int, Any]] = [{} for _ in calls]
    steps = [list(step) for step in zip_longest(*[call.batches for call in calls], fillvalue=())]
    while steps:
        step = steps.pop(0)
        try:
            await _run_batches(calls, step, kept)
        except MemoryBudgetError:  # there is less room than when the batches were made
            halves = [(len(rows) + 1) // 2 for rows in step]
            rest = [rows[half:] for rows, half in zip(step, halves, strict=True)]
            if not any(rest) or any(call.is_fixed for call in calls):
                raise
            steps[:0] = [[rows[:half] for rows, half in zip(step, halves, strict=True)], rest]
        if steps:
            await asyncio.sleep(0)  # others run, and a cancel arrives, also where a batch never waits
    return [
        call.job.show([found[row] for row in range(len(found))]) if found else []
        for call, found in zip(calls, kept, strict=True)
    ]


async def _run_batches(calls: Sequence[TaskCall], step: Sequence[Sequence[int]], kept: list[dict[int, Any]]) -> None:
    """Run one batch of each call in one graph; ``kept`` gets what each makes of its rows."""
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
            # Without a temporary array: NaN is the least and the greatest of what it is among.
            if not all(np.isfinite(end) for part in parts if part.size for end in (part.min(), part.max())):
                call.model.warn_once("its outputs are not finite (NaN or infinite), as where its weights are not")
            kept[number][row] = call.job.each(row, parts)


async def pipeline(
    task: str,
    source: str | Mapping[str, bytes] | Model,
    *,
    manager: TensorSharingManager,
    device: str | Device = "auto",
    dtype: str = "float32",
    progress_callback: Progress | None = None,
    cache: CacheSpec = "auto",
    token: str | None = None,
    **options: Any,
) -> Pipeline:
    """A pipeline for ``task`` on ``source``: a loaded model, or anything that ``from_pretrained`` takes, which gets
    ``device``, ``dtype``, ``progress_callback``, ``cache`` and ``token``. A loaded model stays as it is.

    Answers have the shapes that the pipelines of `transformers` give for the same call, arrays in place of nested
    lists: of one input its answer, of a list of them a list. ``options`` stand for every call; a call may give its own.

    - "feature-extraction": of a text float32 (1, tokens, hidden). With ``pooling`` "mean", "cls", "max", or "model" (as
      the model's folder says), (hidden,) of a text and (texts, hidden) of a list; ``normalize=True`` for length 1
      In a sentence-transformers folder "model" runs all its modules, puts its default prompt before each text and cuts
      vectors to its ``truncate_dim``; ``prompt_name``, ``prompt`` and ``truncate_dim`` choose others, with any pooling
    - "sentence-similarity": texts -> float32 (texts, texts) of cosines, or of what the folder's ``similarity_fn_name``
      says (dot products, negative distances); ``prompt_name``, ``prompt``
    - "sparse-embedding": of a text a list of {"token", "weight"}, heaviest first (SPLADE)
    - "fill-mask": of a text a list of {"score", "token", "token_str", "sequence"}, likeliest first, of several masks a
      list for each; a list of one text is as the text. ``top_k=5``, ``targets`` are the words to choose from
    - "text-classification": texts, or (text, text_pair) tuples or {"text", "text_pair"} for a head or cross-encoder of
      pairs -> for each the best {"label", "score"}, that of one text in a list. With ``top_k`` (None for all) the best
      of each as a list. ``function_to_apply``: "softmax", "sigmoid" or "none" instead of the model's own
    - "zero-shot/nli": the same with ``top_k=None``
    - "token-classification": of a text a list of {"entity", "score", "index", "word", "start", "end"}, one a token;
      start and end count characters. ``ignore_labels=["O"]``. With ``aggregation_strategy`` "simple", "first",
      "average" or "max" tokens of one name are one {"entity_group", "score", "word", "start", "end"}, and ``stride``
      has a long text read in windows that share so many tokens
    - "question-answering": {"question", "context"}, or these as keywords -> {"score", "start", "end", "answer"}, with
      ``top_k`` over 1 a list. Contexts are read in windows of ``max_seq_len=384`` tokens that share ``doc_stride=128``;
      ``max_answer_len=15`` tokens, ``align_to_words=True``; with ``handle_impossible_answer=True`` no answer is one too
    - "image-feature-extraction": of an image float32 (1, tokens, hidden); with ``pool=True`` (1, hidden)
    - "image-classification": of an image a list of {"label", "score"}, best first. ``top_k=5``, ``function_to_apply``
    - "saliency": of an image float32 (height, width) from 0 to 1, in the size that the model sees
    - "text-generation", "text2text-generation": a text, a chat, or a list of them -> [{"generated_text"}]; also in
      pieces, see :class:`TextGeneration`

    Tasks of texts leave out what is longer than the model takes, and say so once in the log; with ``truncation=False``
    such a text is refused.

    ``batch_size`` is how many rows (texts, windows of them, images) run at once; by default as many as fit: planning
    the run tells how much a row takes of what the memory limit leaves free. Rows of one length run together, and
    answers have the order of the inputs.

    An image is a uint8 array (height, width, 3), the bytes of an image file, or a canvas, ImageData or ImageBitmap;
    several are a list.

    Raises:
        UnsupportedModel: the model does not do the task.
        TensorCommonsError: the task or an option is unknown, or a loaded model is asked to be another one.
    """
    from .writing import TASKS as WRITING  # a kind of pipeline, so it stands above this file
    from .writing import TextGeneration

    known = (*TASKS, *WRITING)
    if task not in known:
        raise TensorCommonsError(f"unknown task {quoted(task)}; known: {', '.join(sorted(known))}")
    if task in TASKS:
        check_size(options.get("batch_size"))
        check_options(task, TASKS[task], {name: value for name, value in options.items() if name != "batch_size"})
    elif options:
        raise TensorCommonsError(f"{task} takes its options ({', '.join(options)}) in the call")
    kind = TextGeneration if task in WRITING else Pipeline
    if isinstance(source, Model):
        check_task(task, source.architecture.tasks, source.name)
        _check_is_asked_as_loaded(source, device=device, dtype=dtype, cache=cache, token=token)
        return kind(task, source, owns_model=False, options=options)
    try:
        model = await from_pretrained(
            source,
            manager=manager,
            device=device,
            dtype=dtype,
            task=task,
            progress_callback=progress_callback,
            cache=cache,
            token=token,
        )
    finally:
        del manager  # as in from_pretrained: a traceback that is kept must not keep it
    return kind(task, model, owns_model=True, options=options)


def _check_is_asked_as_loaded(
    model: Model, *, device: str | Device, dtype: str, cache: CacheSpec, token: str | None
) -> None:
    others = {"dtype": dtype != "float32", "cache": cache != "auto", "token": token is not None}
    others["device"] = device not in ("auto", model.device.kind, model.device)
    asked = [name for name, differs in others.items() if differs]
    if asked:
        raise TensorCommonsError(
            f"{model.name} is loaded, on {model.device.kind}: {' and '.join(asked)} can be chosen in from_pretrained()"
            + (", or move it with model.to()" if "device" in asked else "")
        )
