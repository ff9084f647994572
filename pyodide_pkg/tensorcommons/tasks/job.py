"""What every task begins with: inputs checked, and the run that they come to."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError
from ..hub.encoding import Encoding
from ..hub.tokenizer import Tokenizer
from ..models.model import Model

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Inputs: TypeAlias = "dict[str, np.ndarray[Any, Any]]"


@dataclass(frozen=True)
class Job:
    """One call of a pipeline: ``calls`` of the model, each for ``outputs``, and what ``show`` makes of their arrays.

    ``show`` gets for each call its outputs, and gives the pipeline's answer.
    """

    calls: Sequence[Inputs]
    outputs: tuple[str, ...]
    show: Callable[[Sequence[Sequence[Array]]], Any]


#: From a model, what the user gave, and the task's options by name, to a Job.
Task: TypeAlias = Callable[..., Awaitable[Job]]


def check_options(name: str, task: Task, options: Mapping[str, Any]) -> None:
    """Raises TensorCommonsError for an option that ``task``, called ``name``, does not know."""
    known = [key for key, entry in inspect.signature(task).parameters.items() if entry.kind is entry.KEYWORD_ONLY]
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise TensorCommonsError(f"{name} does not take {', '.join(wrong)}; options: {', '.join(known) or 'none'}")


def tokenizer_of(model: Model) -> Tokenizer:
    """The model's tokenizer. Raises TensorCommonsError where it has none."""
    if model.tokenizer is None:
        raise TensorCommonsError(f"{model.name} has no tokenizer for this text: {model.why_no_tokenizer}")
    return model.tokenizer


def inputs_of(model: Model, encoding: Encoding) -> Inputs:
    """The arrays that the model takes."""
    return {name: array for name, array in encoding.as_inputs().items() if name in model.input_names}


def strings(batch: Sequence[Any]) -> list[str]:
    """``batch``, of which all are strings. Raises TensorCommonsError for another one."""
    for text in batch:
        if not isinstance(text, str):
            raise TensorCommonsError(f"this task takes strings, not {type(text).__name__} ({text!r:.60})")
    return list(batch)


def texts_of(given: Any) -> tuple[list[str], bool]:
    """The texts of a call, and whether it was one alone."""
    single = isinstance(given, str)
    return strings([given] if single else several(given)), single


def several(given: Any) -> list[Any]:
    """The inputs of a call that got a list of them. Raises TensorCommonsError for anything else."""
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise TensorCommonsError(
            f"a call takes one input or a list of them, not {type(given).__name__} ({given!r:.60})"
        )
    return list(given)


def count(name: str, value: Any, *, low: int = 1) -> int:
    """The option ``name``, a whole number of at least ``low``. Raises TensorCommonsError for anything else."""
    if type(value) is not int or value < low:
        raise TensorCommonsError(f"{name} is a whole number from {low}, not {value!r}")
    return value


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """The option ``name``, one of ``known``. Raises TensorCommonsError for anything else."""
    if value not in known:
        raise TensorCommonsError(f"{name} {value!r} is not one of {', '.join(known)}")
    return str(value)


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True), np.float32)
