"""The tasks that people ask for by name: texts or images in, NumPy arrays or labels out.

A pipeline makes arrays of its inputs, runs the model on its device, reads the small results, and makes them readable.
What each task does with its inputs and outputs is in tasks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import TensorCommonsError
from .models.architecture import check_task
from .models.loading import from_pretrained
from .models.model import Model
from .sharing.manager import TensorSharingManager
from .tasks import TASKS
from .tensor import read_together


class Pipeline:
    """``await pipe(inputs)``. ``model`` is the model it runs; ``close()`` unloads it if the pipeline loaded it."""

    def __init__(self, task: str, model: Model, *, owns_model: bool) -> None:
        self.task = task
        self.model = model
        self._owns_model = owns_model

    def __repr__(self) -> str:
        return f"<Pipeline {self.task} of {self.model!r}>"

    async def __call__(self, inputs: Any, /) -> Any:
        """The task's result for one input or a list of them; see :func:`pipeline`."""
        return (await run_pipelines([(self, inputs)]))[0]

    def close(self) -> None:
        """Unload the model, if the pipeline loaded it. Safe to call twice."""
        if self._owns_model:
            self.model.unload()


async def run_pipelines(calls: Sequence[tuple[Pipeline, Any]]) -> list[Any]:
    """Several pipelines as one merged graph: ``calls`` are (pipeline, inputs) pairs; what they share is computed once.

    All of one manager and device. Gives each one's result, as the pipeline alone would.

    Raises:
        TensorCommonsError: a pipeline cannot take its inputs, or they are on different devices; nothing ran.
    """
    results: list[Any] = [[] for _ in calls]
    work = []
    for number, (pipe, given) in enumerate(calls):
        if pipe.task not in TASKS:
            raise TensorCommonsError(f"{pipe.task} does not run together with others: its steps depend on its words")
        task = TASKS[pipe.task]
        single = task.is_single(given)
        batch = [given] if single else list(given)
        if batch:
            inputs, context = await task.prepare(pipe.model, batch)
            work.append((number, pipe, task, inputs, context, single and task.by_input))
    if not work:
        return results
    outputs = await work[0][1].model.manager.run_together(
        [(pipe.model, inputs) for _, pipe, _, inputs, *_ in work], [task.outputs for _, _, task, *_ in work]
    )
    wanted = [output[name] for entry, output in zip(work, outputs, strict=True) for name in entry[2].outputs]
    values = iter(await read_together(wanted))
    for number, pipe, task, _, context, first_only in work:
        rows = task.show(pipe.model, context, [next(values) for _ in task.outputs])
        results[number] = rows[0] if first_only else rows
    return results


async def pipeline(
    task: str,
    source: str | Mapping[str, bytes] | Model,
    *,
    manager: TensorSharingManager,
    device: str = "auto",
    progress_callback: Callable[[dict[str, Any]], None] | None = None,
) -> Pipeline:
    """A pipeline for ``task`` on ``source``: a loaded model, or anything that ``from_pretrained`` takes.

    - "feature-extraction": texts -> float32 array (texts, hidden), one embedding each
    - "sentence-similarity": texts -> float32 array (texts, texts) of cosines
    - "sparse-embedding": texts -> for each a list of {"token", "weight"}, heaviest first (SPLADE)
    - "fill-mask": texts with one [MASK] -> for each the five likeliest {"token", "score"}
    - "text-classification", "zero-shot/nli": texts, or (text, text_pair) tuples for a head or cross-encoder of pairs ->
      for each a list of {"label", "score"}, best first
    - "token-classification": texts -> for each a list of {"entity", "score", "index", "word", "start", "end"}, one a
      token whose label is not "O"; start and end count characters of the text
    - "question-answering": {"question", "context"} -> for each {"score", "start", "end", "answer"}
    - "image-feature-extraction": images -> float32 array (images, hidden), the first token of each
    - "image-classification": images -> for each the five likeliest {"label", "score"}
    - "saliency": images -> for each a float32 array (height, width) from 0 to 1, in the size that the model sees
    - "text-generation", "text2text-generation": a text, a chat, or a list of them -> [{"generated_text"}]; also in
      pieces, see :class:`TextGeneration`

    An image is a uint8 array (height, width, 3), the bytes of an image file, or a canvas, ImageData or ImageBitmap;
    several are a list.

    Raises:
        UnsupportedModel: the model does not do the task.
        TensorCommonsError: the task is unknown, or the model has no tokenizer.
    """
    from .writing import TASKS as WRITING  # a kind of pipeline, so it stands above this file
    from .writing import TextGeneration

    known = (*TASKS, *WRITING)
    if task not in known:
        raise TensorCommonsError(f"unknown task {task!r}; known: {', '.join(sorted(known))}")
    kind = TextGeneration if task in WRITING else Pipeline
    if isinstance(source, Model):
        check_task(task, source.architecture.tasks, source.name)
        return kind(task, source, owns_model=False)
    model = await from_pretrained(
        source, manager=manager, device=device, task=task, progress_callback=progress_callback
    )
    return kind(task, model, owns_model=True)
