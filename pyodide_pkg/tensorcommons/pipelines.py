"""``pipeline``: run a model for a named task, from texts or images to NumPy arrays or labels.

A pipeline converts its inputs to arrays, runs the model on its device, reads the small results, and formats them.
tasks/ defines the inputs and outputs of each task.
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
from .models.weight_specs import checked_cache_dtype
from .ops.quantized import check_precision
from .sharing.manager import TensorSharingManager
from .tasks import TASKS, check_options
from .tasks.batches import check_size
from .tasks.pipeline import Pipeline
from .tasks.text_generation import TASKS as GENERATION_TASKS
from .tasks.text_generation import TextGeneration


async def pipeline(
    task: str,
    source: str | bytes | Mapping[str, bytes] | Model,
    *,
    manager: TensorSharingManager,
    device: str | Device = "auto",
    dtype: str | None = None,
    precision: str = "fast",
    cache_dtype: str | None = None,
    progress_callback: Progress | None = None,
    cache: CacheSpec = "auto",
    token: str | None = None,
    **options: Any,
) -> Pipeline:
    """Create a pipeline for ``task`` on ``source``: a loaded model, or any source that ``from_pretrained`` takes.

    ``device``, ``dtype``, ``precision``, ``cache_dtype``, ``progress_callback``, ``cache`` and ``token`` are passed to
    ``from_pretrained``; a loaded model is used as it is.

    Results have the shapes of the pipelines of `transformers` for the same call, with arrays in place of nested lists:
    one result for one input, a list of results for a list. ``options`` are the defaults of every call; a call may
    override them.

    - "feature-extraction": text -> float32 (1, tokens, hidden). With ``pooling`` "mean", "cls", "max" or "model" (as
      the model's folder specifies): (hidden,) for a text, (texts, hidden) for a list; ``normalize=True`` scales vectors
      to length 1. For a sentence-transformers folder, "model" runs all its modules, prepends its default prompt to each
      text and truncates vectors to its ``truncate_dim``; ``prompt_name``, ``prompt`` and ``truncate_dim`` override
      these, with any pooling
    - "sentence-similarity": texts -> float32 (texts, texts) of cosines, or of the folder's ``similarity_fn_name`` (dot
      products, negative distances); ``prompt_name``, ``prompt``
    - "sparse-embedding": text -> list of {"token", "weight"}, largest weight first (SPLADE)
    - "fill-mask": text -> list of {"score", "token", "token_str", "sequence"}, best first; a list of these for each
      mask if there are several. A list of one text gives the same result as the text. ``top_k=5``; ``targets`` limits
      the words to choose from
    - "text-classification": texts, or (text, text_pair) tuples or {"text", "text_pair"} for a model of pairs -> the
      best {"label", "score"} of each; for a single text, in a list. With ``top_k`` (None for all): a list of the best
      for each. ``function_to_apply``: "softmax", "sigmoid" or "none" instead of the model's own
    - "zero-shot/nli": the same with ``top_k=None``
    - "token-classification": text -> list of {"entity", "score", "index", "word", "start", "end"}, one for each token;
      start and end count characters. ``ignore_labels=["O"]``. With ``aggregation_strategy`` "simple", "first",
      "average" or "max", adjacent tokens of one entity become one {"entity_group", "score", "word", "start", "end"},
      and with ``stride`` a long text is read in windows that overlap by that number of tokens
    - "question-answering": {"question", "context"}, or these as keywords -> {"score", "start", "end", "answer"}; a list
      if ``top_k`` is above 1. Contexts are read in windows of ``max_seq_len=384`` tokens that overlap by
      ``doc_stride=128``; ``max_answer_len=15`` tokens, ``align_to_words=True``; with ``handle_impossible_answer=True``
      the empty answer is a candidate
    - "image-feature-extraction": image -> float32 (1, tokens, hidden); with ``pool=True`` (1, hidden)
    - "image-classification": image -> list of {"label", "score"}, best first. ``top_k=5``, ``function_to_apply``
    - "zero-shot-image-classification": image -> list of {"score", "label"} for the texts ``candidate_labels``, best
      first; ``hypothesis_template="This is a photo of {}."`` makes a sentence of a label
    - "saliency": image -> float32 (height, width) from 0 to 1, in the size of the model's input
    - "text-generation", "text2text-generation": a text, a chat, or a list of them -> [{"generated_text"}]; streaming:
      see :class:`TextGeneration`
    - "summarization": a text -> [{"summary_text"}]; a list of texts -> the same, one for each

    Text tasks truncate a text that is longer than the model's maximum, with one warning in the log; with
    ``truncation=False`` such a text is an error.

    ``batch_size`` is the number of rows (texts, windows of texts, images) that run at once. By default it is as large
    as the free memory under the limit allows, estimated by planning the run. Rows of equal length run together, and
    results have the order of the inputs.

    ``adapter`` is the name of an adapter of the model (:meth:`Model.load_adapter`), or a list with one for each input;
    None is the base.

    An image is a uint8 array (height, width, 3), the bytes of an image file, or a canvas, ImageData or ImageBitmap;
    several images are a list.

    Raises:
        UnsupportedModel: the model does not support the task.
        TensorCommonsError: the task or an option is unknown, or a loaded model has another device, dtype,
            precision or cache.

    >>> manager = tc.TensorSharingManager(max_memory_mb=256)
    >>> similar = await tc.pipeline("sentence-similarity", "./models/all-MiniLM-L6-v2", manager=manager)
    >>> print((await similar(["A man is eating.", "A man eats.", "It rains."])).round(2))
    [[1.   0.96 0.02]
     [0.96 1.   0.05]
     [0.02 0.05 1.  ]]
    >>> manager.close()
    """
    check_defaults(task, options)
    kind = TextGeneration if task in GENERATION_TASKS else Pipeline
    if isinstance(source, Model):
        check_task(task, source.architecture.tasks, source.name)
        _check_is_asked_as_loaded(
            source, device=device, dtype=dtype, precision=precision, cache_dtype=cache_dtype, cache=cache, token=token
        )
        return kind(task, source, owns_model=False, options=options)
    try:
        model = await from_pretrained(
            source,
            manager=manager,
            device=device,
            dtype=dtype,
            precision=precision,
            cache_dtype=cache_dtype,
            task=task,
            progress_callback=progress_callback,
            cache=cache,
            token=token,
        )
    finally:
        del manager  # as in from_pretrained: a stored traceback must not keep the manager alive
    return kind(task, model, owns_model=True, options=options)


def check_defaults(task: str, options: Mapping[str, Any]) -> None:
    """Raise TensorCommonsError for an unknown task, or for default options that it does not have."""
    known = (*TASKS, *GENERATION_TASKS)
    if task not in known:
        raise TensorCommonsError(f"unknown task {quoted(task)}; tasks: {', '.join(sorted(known))}")
    if task in TASKS:
        check_size(options.get("batch_size"))
        own = {name: value for name, value in options.items() if name not in ("batch_size", "adapter")}
        check_options(task, TASKS[task], own)
    elif options:
        raise TensorCommonsError(f"pass the options of {task} ({', '.join(options)}) to the call, not to pipeline()")


def _check_is_asked_as_loaded(
    model: Model,
    *,
    device: str | Device,
    dtype: str | None,
    precision: str,
    cache_dtype: str | None,
    cache: CacheSpec,
    token: str | None,
) -> None:
    is_float32 = dtype == "float32" and set(model.weight_formats) <= {"float32"}
    others = {"dtype": dtype is not None and not is_float32, "cache": cache != "auto", "token": token is not None}
    check_precision(precision)
    others["precision"] = precision not in ("fast", model.precision)
    others["cache_dtype"] = cache_dtype is not None and checked_cache_dtype(cache_dtype) is not model.cache_dtype
    others["device"] = device not in ("auto", model.device.kind, model.device)
    asked = [name for name, differs in others.items() if differs]
    if asked:
        raise TensorCommonsError(
            f"{model.name} is already loaded on {model.device.kind}: pass {' and '.join(asked)} to from_pretrained()"
            + (", or move the model with model.to()" if "device" in asked else "")
        )
