"""The tasks that people ask for by name: texts or images in, NumPy arrays or labels out.

A pipeline makes arrays of its inputs, runs the model on its device, reads the small results, and makes them readable.
What each task does with its inputs and outputs is in tasks/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backends.device import Device
from .errors import TensorCommonsError, quoted
from .hub.open_cache import CacheSpec
from .models.architecture import check_task
from .models.loading import from_pretrained
from .models.model import Model
from .models.weight_loader import Progress
from .sharing.manager import TensorSharingManager
from .tasks import TASKS, check_options
from .tasks.batches import check_size
from .tasks.pipeline import Pipeline
from .tasks.text_generation import TASKS as GENERATION_TASKS
from .tasks.text_generation import TextGeneration


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
    known = (*TASKS, *GENERATION_TASKS)
    if task not in known:
        raise TensorCommonsError(f"unknown task {quoted(task)}; known: {', '.join(sorted(known))}")
    if task in TASKS:
        check_size(options.get("batch_size"))
        check_options(task, TASKS[task], {name: value for name, value in options.items() if name != "batch_size"})
    elif options:
        raise TensorCommonsError(f"{task} takes its options ({', '.join(options)}) in the call")
    kind = TextGeneration if task in GENERATION_TASKS else Pipeline
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
